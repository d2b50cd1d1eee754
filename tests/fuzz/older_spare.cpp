// SPDX-License-Identifier: GPL-2.0-or-later
#include "older_spare.hpp"

#include <zlib.h>

#include <algorithm>
#include <string_view>

#include "libremap/older_format.hpp"

namespace fuzz {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr unsigned int most_steps = 32;
constexpr std::size_t most_entries = 64;

void put(std::span<std::uint8_t> bytes, std::size_t at, std::size_t size, std::uint64_t value) {
    for (std::size_t i = 0; i < size; ++i, value >>= 8) {
        bytes[at + i] = static_cast<std::uint8_t>(value);
    }
}

/// Reflected, started with zero, not inverted at the end.
std::uint32_t older_crc(std::uint32_t crc, std::span<const std::uint8_t> bytes) {
    return ~static_cast<std::uint32_t>(
        crc32(~crc & 0xffffffffU, bytes.data(), static_cast<uInt>(bytes.size())));
}

void seal_dmr4(std::span<std::uint8_t> copy) {
    put(copy, 24, 4,
        older_crc(older_crc(0, copy.first(24)), copy.subspan(28, remap::dmr4_size - 28)));
}

/// Main and spare sector of an entry: mostly such as a device has.
std::pair<std::uint64_t, std::uint64_t> entry(Input& input) {
    const std::uint16_t original = input.word();
    const std::uint16_t spare = input.word();
    return {original == 0xffff ? ~std::uint64_t{0} : original % 4096U,
            spare == 0xffff ? ~std::uint64_t{0} : spare % 16384U};
}

const Bytes& older_main() {
    static const Bytes content = [] {
        Bytes bytes(OlderSpareImage::main_sectors * remap::sector_size);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            // Some sectors hold zeroes.
            bytes[i] = (i / remap::sector_size) % 4 == 0
                           ? std::uint8_t{0}
                           : static_cast<std::uint8_t>(i * 2654435761U >> 13);
        }
        return bytes;
    }();
    return content;
}

const Bytes& nothing() {
    static const Bytes empty;
    return empty;
}

}  // namespace

OlderSpareImage::OlderSpareImage(Input& input)
    : main("main.img", older_main(), 512), below("old.img", nothing(), 512), spare(below) {
    below.resize(sectors);
    for (unsigned int i = 0; i < most_steps && !input.empty(); ++i) {
        step(input);
    }
}

void OlderSpareImage::put_dmr4(Input& input) {
    Bytes copy(remap::dmr4_size);
    const std::uint8_t mask = input.byte();
    put(copy, 0, 4, 0x444d5234);
    put(copy, 4, 4, 4);
    put(copy, 8, 8, input.byte());
    put(copy, 16, 8, 1700000000);
    put(copy, 32, 4, remap::dmr4_size);
    put(copy, 120, 8, main_sectors);
    put(copy, 128, 8, sectors);
    put(copy, 136, 4, remap::sector_size);
    put(copy, 300, 4, 2048);
    const std::size_t count = input.byte() % most_entries;
    put(copy, 296, 4, count);
    for (std::size_t i = 0; i < count; ++i) {
        const auto [original, to] = entry(input);
        put(copy, 312 + i * 40, 8, original);
        put(copy, 320 + i * 40, 8, to);
        put(copy, 328 + i * 40, 8, 1700000000000000000ULL + i);
    }
    seal_dmr4(copy);
    for (std::size_t i = 0; i < remap::dmr4_places.size(); ++i) {
        if ((mask >> i & 1) != 0) {
            below.put(remap::dmr4_places.at(i) * remap::sector_size, copy);
        }
    }
}

void OlderSpareImage::put_script(Input& input) {
    Bytes header(remap::script_size);
    put(header, 0, 4, 0x444d5234);
    put(header, 4, 4, 4);
    put(header, 32, 4, 2048);
    put(header, 114, 8, main_sectors);
    put(header, 122, 8, sectors);
    below.put(
        remap::script_places.at(input.byte() % remap::script_places.size()) * remap::sector_size,
        header);
}

void OlderSpareImage::put_dmremap3(Input& input) {
    constexpr std::string_view magic = "DMREMAP3";
    Bytes bytes(remap::dmremap3_size);
    std::copy(magic.begin(), magic.end(), bytes.begin());
    put(bytes, 8, 4, 3);
    const std::size_t count = input.byte() % most_entries;
    for (std::size_t i = 0; i < count; ++i) {
        const auto [original, to] = entry(input);
        put(bytes, 4096 + i * 16, 8, original);
        put(bytes, 4104 + i * 16, 8, to);
    }
    below.put(0, bytes);
}

void OlderSpareImage::patch(Input& input) {
    const std::uint16_t choice = input.word();
    const std::uint64_t place = remap::dmr4_places.at(choice % remap::dmr4_places.size());
    const std::size_t offset = input.word();
    const Bytes bytes = input.bytes(input.byte() % 32 + 1);
    Bytes copy((remap::dmr4_size + remap::sector_size - 1) / remap::sector_size *
               remap::sector_size);
    if (below.try_read(place, copy) != 0) {
        return;
    }
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        copy[(offset + i) % remap::dmr4_size] = bytes[i];
    }
    if ((choice & 0x8000) == 0) {
        seal_dmr4(copy);
    }
    below.put(place * remap::sector_size, copy);
}

void OlderSpareImage::step(Input& input) {
    switch (static_cast<OlderStep>(input.byte() % static_cast<unsigned int>(OlderStep::count))) {
        case OlderStep::dmr4:
            put_dmr4(input);
            break;
        case OlderStep::script:
            put_script(input);
            break;
        case OlderStep::dmremap3:
            put_dmremap3(input);
            break;
        case OlderStep::patch:
            patch(input);
            break;
        case OlderStep::data: {
            const std::uint64_t sector = input.word() % sectors;
            below.put(sector * remap::sector_size, Bytes(remap::sector_size, input.byte()));
            break;
        }
        default:
            spare.bad_reads.insert(input.word() % sectors);
    }
}

}  // namespace fuzz
