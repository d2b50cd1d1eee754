// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/crc.hpp"

#include <zlib.h>

#include <array>

namespace remap {

std::uint32_t crc_of(std::span<const std::uint8_t> bytes, std::uint32_t crc) {
    // zlib takes a null pointer for a request to begin anew.
    return bytes.empty() ? crc
                         : static_cast<std::uint32_t>(crc32_z(crc, bytes.data(), bytes.size()));
}

std::uint32_t crc_seed(const Uuid& set_uuid, std::uint64_t nonce) {
    std::array<std::uint8_t, 8> little{};

    for (auto& byte : little) {
        byte = static_cast<std::uint8_t>(nonce);
        nonce >>= 8;
    }
    return crc_of(little, crc_of(set_uuid.bytes));
}

std::uint32_t crc_structure(std::uint32_t seed, std::span<const std::uint8_t> bytes,
                            std::size_t crc_offset) {
    static constexpr std::array<std::uint8_t, 4> zero{};

    const std::uint32_t before = crc_of(bytes.first(crc_offset), seed);
    return crc_of(bytes.subspan(crc_offset + zero.size()), crc_of(zero, before));
}

std::uint32_t crc_shift(std::uint32_t reg, std::size_t bytes) {
    return static_cast<std::uint32_t>(crc32_combine(reg, 0, static_cast<z_off_t>(bytes)));
}

std::uint32_t crc_unshift(std::uint32_t reg, std::size_t bytes) {
    constexpr std::uint32_t polynomial = 0xedb88320;

    // One step back for each bit: the bit that fell out last says whether the polynomial was added.
    for (std::size_t i = 0; i < bytes * 8; i++) {
        const bool added = (reg & 0x80000000) != 0;
        reg = added ? (reg ^ polynomial) << 1 | 1 : reg << 1;
    }
    return reg;
}

std::uint32_t crc_contribution(std::span<const std::uint8_t> piece, std::size_t after) {
    return crc_shift(~crc_of(piece, ~std::uint32_t{0}), after);
}

}  // namespace remap
