// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/backups.hpp"

#include <endian.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "libremap/text.hpp"
#include "libremap/uuid.hpp"

namespace remap {
namespace {

namespace fs = std::filesystem;

using Buffer = std::vector<std::uint8_t>;

/// `bytes` bytes at byte `offset`, both multiples of 512; nothing if they are not there.
std::optional<Buffer> bytes_at(BlockIo& main, std::uint64_t offset, std::uint64_t bytes) {
    if (offset % sector_size != 0 || offset / sector_size + bytes / sector_size > main.size()) {
        return std::nullopt;
    }
    Buffer buffer(bytes);
    if (main.try_read(offset / sector_size, buffer) != 0) {
        return std::nullopt;
    }
    return buffer;
}

template <typename T>
T raw(const Buffer& from, std::size_t at) {
    T value = 0;
    std::memcpy(&value, from.data() + at, sizeof(value));
    return value;
}

std::uint16_t le16(const Buffer& from, std::size_t at) {
    return le16toh(raw<std::uint16_t>(from, at));
}

std::uint32_t le32(const Buffer& from, std::size_t at) {
    return le32toh(raw<std::uint32_t>(from, at));
}

std::uint64_t le64(const Buffer& from, std::size_t at) {
    return le64toh(raw<std::uint64_t>(from, at));
}

std::uint32_t be32(const Buffer& from, std::size_t at) {
    return be32toh(raw<std::uint32_t>(from, at));
}

std::uint64_t be64(const Buffer& from, std::size_t at) {
    return be64toh(raw<std::uint64_t>(from, at));
}

std::string uuid_text(const Buffer& from, std::size_t at) {
    std::ostringstream out;
    out << std::hex;
    for (std::size_t i = 0; i < 16; ++i) {
        const unsigned int byte = from[at + i];
        out << (byte >> 4) << (byte & 0xf);
        if (i == 3 || i == 5 || i == 7 || i == 9) {
            out << "-";
        }
    }
    return out.str();
}

// --- ext2, ext3, ext4 -------------------------------------------------------------------------

/// A backup superblock of ext with blocks of `block` bytes at the start of group `group`.
bool is_ext_backup(const Buffer& superblock, std::uint32_t block, std::uint64_t group,
                   std::uint64_t main_bytes) {
    constexpr std::size_t blocks_low = 0x4;
    constexpr std::size_t log_block = 0x18;
    constexpr std::size_t magic = 0x38;
    constexpr std::size_t group_number = 0x5a;
    constexpr std::uint16_t ext_magic = 0xef53;
    constexpr std::uint32_t largest_log = 6;
    return le16(superblock, magic) == ext_magic && le32(superblock, log_block) <= largest_log &&
           1024U << le32(superblock, log_block) == block &&
           le16(superblock, group_number) == group &&
           static_cast<std::uint64_t>(le32(superblock, blocks_low)) * block <= main_bytes;
}

void find_ext(BlockIo& main, const std::string& device, std::vector<Backup>& out) {
    constexpr std::size_t uuid_at = 0x68;
    // Groups that keep a backup with the feature sparse_super: 1 and the powers of 3, 5 and 7.
    for (const std::uint32_t block : {4096U, 1024U, 2048U}) {
        for (const std::uint64_t group : {1U, 3U, 5U, 7U, 9U, 25U, 27U, 49U}) {
            const std::uint64_t first = block == 1024 ? 1 : 0;
            const std::uint64_t number = first + group * 8 * block;
            const auto superblock = bytes_at(main, number * block, 1024);
            if (!superblock ||
                !is_ext_backup(*superblock, block, group, main.size() * sector_size)) {
                continue;
            }
            out.push_back({cat("ext2/3/4 (UUID ", uuid_text(*superblock, uuid_at),
                               "): backup superblock in block ", number, " of ", block, " bytes"),
                           {cat("e2fsck -f -b ", number, " -B ", block, " ", device)}});
            return;
        }
    }
}

// --- XFS --------------------------------------------------------------------------------------

bool is_xfs_backup(const Buffer& superblock, std::uint64_t offset, std::uint64_t main_bytes) {
    constexpr std::size_t block_size = 4;
    constexpr std::size_t blocks = 8;
    constexpr std::size_t ag_blocks = 84;
    if (std::memcmp(superblock.data(), "XFSB", 4) != 0) {
        return false;
    }
    const std::uint64_t block = be32(superblock, block_size);
    const std::uint64_t group = block * be32(superblock, ag_blocks);
    return block >= sector_size && block <= 65536 && group != 0 && offset % group == 0 &&
           be64(superblock, blocks) <= main_bytes / block;
}

/// mkfs.xfs makes at least as many groups as keep each below 1 TiB, and mostly four.
void find_xfs(BlockIo& main, const std::string& device, std::vector<Backup>& out) {
    constexpr std::size_t uuid_at = 32;
    constexpr std::uint64_t unit = 4096;
    const std::uint64_t bytes = main.size() * sector_size;
    std::set<std::uint64_t> places = {std::uint64_t{1} << 40};
    for (std::uint64_t groups = 2; groups <= 64; ++groups) {
        const std::uint64_t down = bytes / unit / groups * unit;
        places.insert(down);
        places.insert(down + unit);
    }
    for (const std::uint64_t place : places) {
        const auto superblock = bytes_at(main, place, sector_size);
        if (superblock && is_xfs_backup(*superblock, place, bytes)) {
            out.push_back(
                {cat("XFS (UUID ", uuid_text(*superblock, uuid_at), "): backup superblock at byte ",
                     place,
                     "; its root directory is among what was hidden and is lost, files go "
                     "to lost+found"),
                 {cat("xfs_repair ", device)}});
            return;
        }
    }
}

// --- Btrfs ------------------------------------------------------------------------------------

void find_btrfs(BlockIo& main, const std::string& device, std::vector<Backup>& out) {
    constexpr std::size_t uuid_at = 32;
    constexpr std::size_t own_place = 48;
    constexpr std::size_t magic = 64;
    unsigned int number = 0;
    for (const std::uint64_t place : {std::uint64_t{64} << 20, std::uint64_t{256} << 30}) {
        ++number;
        const auto superblock = bytes_at(main, place, 4096);
        if (!superblock || std::memcmp(superblock->data() + magic, "_BHRfS_M", 8) != 0 ||
            le64(*superblock, own_place) != place) {
            continue;
        }
        out.push_back({cat("Btrfs (UUID ", uuid_text(*superblock, uuid_at), "): backup superblock ",
                           number, " at byte ", place),
                       {cat("btrfs-select-super -s ", number, " ", device),
                        cat("btrfs check --readonly ", device)}});
        return;
    }
}

// --- LUKS2 ------------------------------------------------------------------------------------

/// Of the second header only the first 4 KiB are hidden; its description in JSON is behind them.
void find_luks2(BlockIo& main, const std::string& device, std::vector<Backup>& out) {
    constexpr std::uint64_t binary_header = 4096;
    constexpr std::string_view start = "{\"keyslots\":";
    for (std::uint64_t place = 0x20000; place <= 0x400000; place *= 2) {
        const auto json = bytes_at(main, place + binary_header, sector_size);
        if (json && std::memcmp(json->data(), start.data(), start.size()) == 0) {
            out.push_back(
                {cat("LUKS2: the description of its second header at byte ", place + binary_header,
                     ", but not its salt and checksum: a backup of the header is needed"),
                 {cat("cryptsetup luksHeaderRestore --header-backup-file FILE ", device)}});
            return;
        }
    }
}

// --- LVM --------------------------------------------------------------------------------------

/// A physical volume as a file of LVM's own backups describes it.
struct VolumeBackup {
    std::string group;
    std::string id;
    std::uint64_t size = 0;  ///< sectors
};

/// The text between quotes, or after "=".
std::string value_of(const std::string& line) {
    const auto quote = line.find('"');
    if (quote != std::string::npos) {
        return line.substr(quote + 1, line.find('"', quote + 1) - quote - 1);
    }
    const auto equals = line.find('=');
    const auto first = line.find_first_not_of(" \t", equals + 1);
    return first == std::string::npos
               ? ""
               : line.substr(first, line.find_first_of(" \t#", first) - first);
}

std::vector<VolumeBackup> volumes_in(const fs::path& file) {
    std::vector<VolumeBackup> volumes;
    std::string group;
    bool physical = false;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        const auto first = line.find_first_not_of(" \t");
        if (first == std::string::npos || line[first] == '#') {
            continue;
        }
        const auto is = [&](std::string_view word) {
            return line.compare(first, word.size(), word) == 0;
        };
        // The group is the only section that begins at the margin.
        if (first == 0 && line.find('{') != std::string::npos) {
            group = line.substr(0, line.find_first_of(" \t{"));
        } else if (is("physical_volumes")) {
            physical = true;
        } else if (is("logical_volumes")) {
            physical = false;
        } else if (physical && is("id")) {
            volumes.push_back({group, value_of(line), 0});
        } else if (physical && is("dev_size") && !volumes.empty()) {
            volumes.back().size = std::strtoull(value_of(line).c_str(), nullptr, 10);
        }
    }
    return volumes;
}

void find_lvm(BlockIo& main, const std::string& device, const std::string& host_root,
              std::vector<Backup>& out) {
    const std::string folder = "/etc/lvm/backup";
    std::vector<fs::path> files;
    std::error_code error;
    for (fs::directory_iterator it(host_root + folder, error), end; !error && it != end;
         it.increment(error)) {
        files.push_back(it->path());
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
        for (const VolumeBackup& volume : volumes_in(file)) {
            if (volume.size != main.size() || volume.id.empty()) {
                continue;
            }
            const std::string path = folder + "/" + file.filename().string();
            out.push_back(
                {cat("LVM: ", path, " describes a physical volume of this size (", volume.id,
                     ") of the volume group ", volume.group, "; only if it was this one:"),
                 {cat("pvcreate --uuid ", volume.id, " --restorefile ", path, " ", device),
                  cat("vgcfgrestore ", volume.group)}});
        }
    }
}

}  // namespace

std::vector<Backup> find_backups(BlockIo& main, const std::string& device,
                                 const std::string& host_root) {
    std::vector<Backup> backups;
    find_ext(main, device, backups);
    find_xfs(main, device, backups);
    find_btrfs(main, device, backups);
    find_luks2(main, device, backups);
    find_lvm(main, device, host_root, backups);
    return backups;
}

std::vector<std::string> checks_after_rescue(const std::string& type, const std::string& device) {
    struct Check {
        std::string_view type;
        std::string_view command;
    };
    static constexpr std::array<Check, 8> checks = {{{"ext2", "e2fsck -f "},
                                                     {"ext3", "e2fsck -f "},
                                                     {"ext4", "e2fsck -f "},
                                                     {"xfs", "xfs_repair "},
                                                     {"btrfs", "btrfs check --readonly "},
                                                     {"f2fs", "fsck.f2fs "},
                                                     {"swap", "mkswap "},
                                                     {"LVM2_member", "pvck "}}};
    std::vector<std::string> commands;
    for (const Check& check : checks) {
        if (check.type == type) {
            commands.push_back(cat(check.command, device));
        }
    }
    return commands;
}

}  // namespace remap
