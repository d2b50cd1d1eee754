// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/payload.hpp"

#include <endian.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "libremap/error.hpp"
#include "libremap/places.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint64_t smallest_main = (1U << 20) / sector_size;

/// What can be adopted, as libblkid calls it. The sector of the signature by which libblkid knows
/// it decides.
constexpr std::array<std::string_view, 11> adoptable = {
    "ext2",      "ext3", "ext4",        "xfs",         "btrfs",
    "f2fs",      "swap", "LVM2_member", "crypto_LUKS", "linux_raid_member",
    "zfs_member"};

constexpr std::string_view raid = "linux_raid_member";
constexpr std::string_view zfs = "zfs_member";

/// What counts in a label are the name-value pairs at 16 KiB and the uberblocks from 128 KiB on.
constexpr std::uint64_t zfs_pairs = 16U << 10;
constexpr std::uint64_t zfs_uberblocks = 128U << 10;
constexpr std::uint64_t zfs_uberblock = 1024;
constexpr std::uint64_t zfs_uberblock_magic = 0x00bab10c;

bool has_zfs_label(const PayloadReader& read, std::uint64_t sectors) {
    std::vector<std::uint8_t> label(zfs_label - zfs_uberblocks);
    if (sectors * sector_size < 4 * zfs_label || !read(zfs_uberblocks / sector_size, label)) {
        return false;
    }
    for (std::size_t at = 0; at < label.size(); at += zfs_uberblock) {
        std::uint64_t magic = 0;
        std::memcpy(&magic, label.data() + at, sizeof(magic));
        if (le64toh(magic) == zfs_uberblock_magic || be64toh(magic) == zfs_uberblock_magic) {
            return true;
        }
    }
    return false;
}

/// LUKS2 has its second header behind the first one, whose size is in it.
std::optional<ByteRange> luks2_second_header(const PayloadReader& read, std::uint64_t sectors) {
    constexpr std::uint64_t smallest = 0x4000;
    constexpr std::uint64_t largest = 0x400000;
    constexpr std::array<std::uint8_t, 8> magic = {'L', 'U', 'K', 'S', 0xba, 0xbe, 0, 2};
    std::vector<std::uint8_t> header(sector_size);
    std::uint64_t size = 0;

    if (!read(0, header) || !std::equal(magic.begin(), magic.end(), header.begin())) {
        return std::nullopt;
    }
    std::memcpy(&size, header.data() + magic.size(), sizeof(size));
    size = be64toh(size);
    if (size < smallest || size > largest || size % sector_size != 0 ||
        size / sector_size >= sectors) {
        return std::nullopt;
    }
    return ByteRange{size, sector_size};
}

std::optional<ByteRange> f2fs_second_superblock(const PayloadReader& read) {
    constexpr std::uint32_t magic = 0xf2f52010;
    constexpr std::uint64_t first = 1024;
    constexpr std::uint64_t second = 4096 + first;
    std::vector<std::uint8_t> superblock(sector_size);
    std::uint32_t found = 0;

    if (!read(first / sector_size, superblock)) {
        return std::nullopt;
    }
    std::memcpy(&found, superblock.data(), sizeof(found));
    if (le32toh(found) != magic) {
        return std::nullopt;
    }
    return ByteRange{second, sector_size};
}

bool all_zero(ConstBytes bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

/// The first byte above zero among the places that would be hidden.
std::optional<std::uint64_t> first_data(BlockIo& main, const Superblock& superblock) {
    MainBlocks blocks(main, superblock.block_sectors());
    Superblock planned = superblock;
    planned.hidden = extents_of(standard_places(superblock));
    const HiddenContent content = read_hidden(blocks, planned);
    for (std::size_t i = 0; i < content.blocks.size(); ++i) {
        const ConstBytes bytes = content.at(i);
        if (!all_zero(bytes)) {
            const auto byte = std::find_if(bytes.begin(), bytes.end(),
                                           [](std::uint8_t value) { return value != 0; });
            return content.blocks[i] * content.block_bytes +
                   static_cast<std::uint64_t>(byte - bytes.begin());
        }
    }
    return std::nullopt;
}

[[noreturn]] void refuse(const BlockIo& main, const std::string& why) {
    throw Error(Exit::unrecognised, cat(main.name(), ": ", why));
}

/// The signature by which the payload is known; refuses what cannot be adopted.
const Signature& choose_signature(const BlockIo& main, const std::vector<Signature>& seen) {
    for (const Signature& signature : seen) {
        if (signature.partition_table) {
            refuse(main, cat("holds a ", signature.describe(),
                             "; adopt its partitions, not the whole device"));
        }
    }
    // A mirror's legs show what is in the array as well.
    const auto leg =
        std::find_if(seen.begin(), seen.end(), [](const Signature& s) { return s.type == raid; });
    if (leg != seen.end()) {
        return *leg;
    }
    const bool one_kind = std::all_of(seen.begin(), seen.end(), [&](const Signature& s) {
        return s.type == seen.front().type && s.uuid == seen.front().uuid;
    });
    if (!one_kind) {
        refuse(main, cat("is not clearly one thing: ", describe(seen),
                         "; remove what is stale with wipefs(8)"));
    }
    if (std::find(adoptable.begin(), adoptable.end(), seen.front().type) == adoptable.end()) {
        std::string list = "an empty device";
        for (const std::string_view type : adoptable) {
            list += cat(", ", type);
        }
        refuse(main, cat("holds ", seen.front().describe(), ", which cannot be adopted (", list,
                         " can); copy the data elsewhere and adopt the device empty"));
    }
    return seen.front();
}

Payload known_payload(BlockIo& main, const std::vector<Signature>& seen) {
    const Signature& chosen = choose_signature(main, seen);
    Payload payload;

    payload.kind = PayloadKind::known;
    payload.description = chosen.describe();
    payload.deciding_sector = deciding_sector_of(chosen);
    for (const Signature& signature : seen) {
        payload.signatures.push_back(signature.magic);
    }
    payload.replicas = replicas_of(
        [&main](std::uint64_t sector, Bytes to) { return main.try_read(sector, to) == 0; },
        main.size());
    if (const auto label = first_label_of(chosen)) {
        payload.signatures.push_back(*label);
    }
    payload.signatures.insert(payload.signatures.end(), payload.replicas.begin(),
                              payload.replicas.end());
    return payload;
}

}  // namespace

std::uint64_t deciding_sector_of(const Signature& signature) {
    return (signature.type == zfs ? zfs_pairs : signature.magic.offset) / sector_size;
}

std::optional<ByteRange> first_label_of(const Signature& signature) {
    return signature.type == zfs ? std::optional(ByteRange{0, zfs_label}) : std::nullopt;
}

std::vector<ByteRange> replicas_of(const PayloadReader& read, std::uint64_t sectors) {
    if (const auto header = luks2_second_header(read, sectors)) {
        return {*header};
    }
    if (const auto superblock = f2fs_second_superblock(read)) {
        return {*superblock};
    }
    if (has_zfs_label(read, sectors)) {
        const auto labels = zfs_labels(sectors * sector_size);
        return {labels.begin() + 1, labels.end()};
    }
    return {};
}

void require_main_size(const BlockIo& main, std::uint64_t sectors) {
    if (sectors < smallest_main) {
        throw Error(Exit::usage, cat(main.name(), ": too small for a main: it has ", sectors,
                                     " sectors, at least ", smallest_main, " are needed"));
    }
}

Payload recognise_payload(BlockIo& main, std::uint32_t block_size, bool force) {
    Superblock geometry;
    geometry.head.block_shift = block_size == sector_size ? 9 : 12;
    geometry.main_size = main.size() / geometry.block_sectors() * geometry.block_sectors();
    require_main_size(main, geometry.main_size);

    const std::vector<Signature> seen = signatures_on(main);
    if (!seen.empty()) {
        return known_payload(main, seen);
    }
    Payload payload;
    const auto data = first_data(main, geometry);
    payload.description = "nothing";
    if (data) {
        if (!force) {
            refuse(main, cat("holds data that is not recognised (the first of it at byte ", *data,
                             "); --force adopts it as it is"));
        }
        payload.kind = PayloadKind::unknown;
        payload.description = "data that is not recognised";
    }
    return payload;
}

}  // namespace remap
