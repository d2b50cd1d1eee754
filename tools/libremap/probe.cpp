// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/probe.hpp"

#include <blkid/blkid.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include "libremap/error.hpp"
#include "libremap/metadata.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// What a probe reads at each end of a device.
constexpr std::uint64_t probe_sectors = 16;
/// All places that libblkid looks at lie this near to one of the ends.
constexpr std::uint64_t picture_sectors = (8U << 20) / sector_size;
constexpr std::uint64_t copy_chunk_sectors = 256;
/// More signatures than one device can reasonably show; ends a loop that gets nowhere.
constexpr std::size_t max_signatures = 64;

using Buffer = std::vector<std::uint8_t>;

MemberInfo info_from_head(const Head& head, std::uint64_t sector) {
    MemberInfo info;
    info.role = head.role;
    info.state = head.state;
    info.version = head.version;
    info.flags = head.flags;
    info.set = head.set_uuid;
    info.member = head.member_uuid;
    info.partner = head.partner_uuid;
    info.nonce = head.nonce;
    info.sector = sector;
    return info;
}

MemberInfo info_from(const Superblock& superblock, std::uint64_t sector) {
    MemberInfo info = info_from_head(superblock.head, sector);
    info.epoch = superblock.epoch;
    info.size = superblock.spare_size;
    info.label = superblock.label;
    return info;
}

MemberInfo info_from(const Label& label, std::uint64_t sector) {
    MemberInfo info = info_from_head(label.head, sector);
    info.epoch = label.epoch;
    info.size = label.main_size;
    return info;
}

MemberInfo newer_info(std::uint8_t role, ConstBytes bytes, std::uint64_t sector) {
    MemberInfo info;
    info.newer = true;
    info.role = role;
    info.sector = sector;
    for (unsigned int i = 0; i < sizeof(std::uint32_t); ++i) {
        info.version |= static_cast<std::uint32_t>(bytes[offsetof(remap_head, version) + i])
                        << (8 * i);
    }
    return info;
}

/// One end of the device in memory.
struct Window {
    std::uint64_t start = 0;  ///< sector
    Buffer bytes;

    std::uint64_t end() const { return start + bytes.size() / sector_size; }
    ConstBytes at(std::uint64_t sector, std::size_t length) const {
        return ConstBytes(bytes).subspan((sector - start) * sector_size, length);
    }
    bool has(std::uint64_t sector, std::size_t length) const {
        return sector >= start && sector * sector_size + length <= end() * sector_size;
    }
};

Window read_window(BlockIo& io, std::uint64_t start, std::uint64_t end) {
    Window window{start, Buffer((end - start) * sector_size)};
    if (io.try_read(start, window.bytes) == 0) {
        return window;
    }
    // One bad sector must not hide the others.
    const std::uint64_t step = std::max<std::uint64_t>(io.logical_block_size() / sector_size, 1);
    for (std::uint64_t sector = start; sector + step <= end; sector += step) {
        const Bytes part =
            Bytes(window.bytes).subspan((sector - start) * sector_size, step * sector_size);
        if (io.try_read(sector, part) != 0) {
            std::fill(part.begin(), part.end(), std::uint8_t{0});
        }
    }
    return window;
}

/// What the windows show, and whether something of ours is there that is damaged.
struct Sighting {
    std::optional<MemberInfo> found;
    bool damaged_superblock = false;
};

void look_for_superblock(const Window& window, std::uint64_t sector, Sighting& sighting) {
    if (sighting.found || !window.has(sector, REMAP_SB_SIZE)) {
        return;
    }
    const ConstBytes bytes = window.at(sector, REMAP_SB_SIZE);
    const auto decoded = decode_superblock(bytes, sector);
    if (decoded.valid()) {
        sighting.found = info_from(decoded.value, sector);
    } else if (decoded.verdict == Verdict::newer_version) {
        sighting.found = newer_info(REMAP_ROLE_SPARE, bytes, sector);
    } else if (decoded.verdict == Verdict::bad_crc || decoded.verdict == Verdict::implausible) {
        sighting.damaged_superblock = true;
    }
}

void look_for_labels(const Window& window, Sighting& sighting) {
    for (std::uint64_t sector = window.start; sector < window.end(); ++sector) {
        if (sighting.found) {
            return;
        }
        const ConstBytes bytes = window.at(sector, REMAP_LABEL_SIZE);
        const auto decoded = decode_label(bytes, sector);
        if (decoded.valid()) {
            sighting.found = info_from(decoded.value, sector);
        } else if (decoded.verdict == Verdict::newer_version) {
            sighting.found = newer_info(REMAP_ROLE_MAIN, bytes, sector);
        }
    }
}

using ProbePtr = std::unique_ptr<std::remove_pointer_t<blkid_probe>, decltype(&blkid_free_probe)>;

/// The values of one result of a probe.
std::string value_of(blkid_probe probe, const char* name) {
    const char* text = nullptr;
    return blkid_probe_lookup_value(probe, name, &text, nullptr) == 0 && text != nullptr ? text
                                                                                         : "";
}

/// The bytes of a value that is binary (a magic number).
std::size_t length_of(blkid_probe probe, const char* name) {
    const char* text = nullptr;
    std::size_t length = 0;
    return blkid_probe_lookup_value(probe, name, &text, &length) == 0 ? length : 0;
}

Signature current_signature(blkid_probe probe) {
    Signature signature;
    signature.type = value_of(probe, "TYPE");
    signature.partition_table = signature.type.empty();
    if (signature.partition_table) {
        signature.type = value_of(probe, "PTTYPE");
    }
    signature.label = value_of(probe, "LABEL");
    signature.uuid = value_of(probe, signature.partition_table ? "PTUUID" : "UUID");
    const char* prefix = signature.partition_table ? "PTMAGIC" : "SBMAGIC";
    signature.magic.offset =
        std::strtoull(value_of(probe, cat(prefix, "_OFFSET").c_str()).c_str(), nullptr, 10);
    signature.magic.length = length_of(probe, prefix);
    return signature;
}

void enable_everything(blkid_probe probe) {
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_TYPE |
                                                 BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID |
                                                 BLKID_SUBLKS_BADCSUM);
    blkid_probe_enable_partitions(probe, 1);
    blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
}

std::vector<Signature> run_probe(blkid_probe probe, const std::string& name) {
    enable_everything(probe);
    std::vector<Signature> found;
    int rc = 0;
    while (found.size() < max_signatures && (rc = blkid_do_probe(probe)) == 0) {
        Signature signature = current_signature(probe);
        if (!signature.type.empty()) {
            found.push_back(std::move(signature));
        }
    }
    if (rc < 0) {
        throw Error(Exit::operational, cat(name, ": libblkid could not probe it"));
    }
    return found;
}

/// A device's two ends as a sparse file in memory, which libblkid can be let loose on.
class Picture {
  public:
    explicit Picture(BlockIo& io) : io_(io), fd_(::memfd_create("remap-probe", MFD_CLOEXEC)) {
        const std::uint64_t size = io.size();
        if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(size * sector_size)) != 0) {
            fail();
        }
        const std::uint64_t head = std::min(size, picture_sectors);
        copy(0, head);
        copy(std::max(head, size - std::min(size, picture_sectors)), size);
    }
    ~Picture() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    Picture(const Picture&) = delete;
    Picture& operator=(const Picture&) = delete;

    void patch(std::uint64_t offset, ConstBytes bytes) {
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done,
                                       static_cast<off_t>(offset + done));
            if (n <= 0) {
                fail();
            }
            done += static_cast<std::size_t>(n);
        }
    }

    std::vector<Signature> probe() {
        const ProbePtr probe(blkid_new_probe(), blkid_free_probe);
        if (!probe || blkid_probe_set_device(probe.get(), fd_, 0, 0) != 0) {
            throw Error(Exit::operational, cat(io_.name(), ": libblkid could not be set up"));
        }
        blkid_probe_set_sectorsize(probe.get(), io_.logical_block_size());
        return run_probe(probe.get(), io_.name());
    }

  private:
    [[noreturn]] void fail() {
        const int error = errno;
        if (fd_ >= 0) {
            ::close(fd_);
        }
        throw Error(
            Exit::operational,
            cat(io_.name(), ": cannot make a picture of it in memory: ", std::strerror(error)));
    }

    void copy(std::uint64_t start, std::uint64_t end) {
        for (std::uint64_t sector = start; sector < end; sector += copy_chunk_sectors) {
            const Window chunk =
                read_window(io_, sector, std::min(end, sector + copy_chunk_sectors));
            const bool zero = std::all_of(chunk.bytes.begin(), chunk.bytes.end(),
                                          [](std::uint8_t byte) { return byte == 0; });
            if (!zero) {
                patch(sector * sector_size, chunk.bytes);
            }
        }
    }

    BlockIo& io_;
    int fd_;
};

std::string encoded(const std::string& value) {
    Buffer out(value.size() * 4 + 1);
    return blkid_encode_string(value.c_str(), reinterpret_cast<char*>(out.data()), out.size()) == 0
               ? reinterpret_cast<const char*>(out.data())
               : "";
}

/// libblkid's way to make a string harmless lets control characters through, and what a shell or
/// udev's own reader of "KEY=value" would take for quoting.
std::string safe(const std::string& value) {
    Buffer out(value.size() * 4 + 1);
    if (blkid_safe_string(value.c_str(), reinterpret_cast<char*>(out.data()), out.size()) != 0) {
        return "";
    }
    std::string text = reinterpret_cast<const char*>(out.data());
    for (char& c : text) {
        const auto byte = static_cast<unsigned char>(c);
        const bool quoting = std::string_view("\"'`$\\").find(c) != std::string_view::npos;
        c = byte < ' ' || byte == 0x7f || quoting ? '_' : c;
    }
    return text;
}

std::string property(const char* key, const std::string& value) {
    return cat(key, "=", safe(value), "\n", key, "_ENC=", encoded(value), "\n");
}

}  // namespace

std::optional<MemberInfo> probe_member(BlockIo& io) {
    const std::uint64_t size = io.size();
    if (size < 2 * probe_sectors) {
        return std::nullopt;
    }
    const std::uint64_t whole = size & ~std::uint64_t{REMAP_SB_SECTORS - 1};
    const Window front = read_window(io, 0, probe_sectors);
    const Window back = read_window(io, whole - probe_sectors, size);

    Sighting sighting;
    look_for_superblock(front, remap_sb_place(size, 0), sighting);
    look_for_superblock(back, remap_sb_place(size, REMAP_SB_COPIES - 1), sighting);
    if (!sighting.found && sighting.damaged_superblock) {
        const SuperblockScan scan = scan_superblocks(io);
        if (scan.winner) {
            sighting.found = info_from(*scan.winner, scan.winner->sb_sector[0]);
        }
    }
    look_for_labels(front, sighting);
    look_for_labels(back, sighting);
    return sighting.found;
}

bool is_leg(const MemberInfo& info, std::string_view type, std::uint64_t sectors) {
    return type == "mpath_member" ||
           ((type == "drbd" || type.ends_with("_raid_member")) && info.size != sectors);
}

std::string udev_properties(const MemberInfo& info) {
    std::string out = cat("ID_FS_TYPE=remap_member\nID_FS_USAGE=raid\nID_FS_VERSION=", info.version,
                          "\nID_REMAP_ROLE=", role_name(info.role), "\n");
    if (info.newer) {
        return out + "ID_REMAP_STATE=newer-format\n";
    }
    out += property("ID_FS_UUID", info.set.str());
    out += property("ID_FS_UUID_SUB", info.member.str());
    if (!info.label.empty()) {
        out += property("ID_FS_LABEL", info.label);
    }
    return out +
           cat("ID_REMAP_SET=", info.set, "\nID_REMAP_STATE=", set_state_name(info.state), "\n");
}

std::string Signature::describe() const {
    std::string text = partition_table ? cat("partition table ", type) : type;
    if (!label.empty() || !uuid.empty()) {
        text += cat(" (", label.empty() ? "" : cat("label ", label, uuid.empty() ? "" : ", "),
                    uuid.empty() ? "" : cat("UUID ", uuid), ")");
    }
    return cat(text, " at byte ", magic.offset);
}

std::string describe(const std::vector<Signature>& signatures) {
    std::string text;
    for (const Signature& signature : signatures) {
        text += (text.empty() ? "" : "; ") + signature.describe();
    }
    return text;
}

std::vector<Signature> signatures_if(BlockIo& io, const std::vector<Patch>& patches) {
    Picture picture(io);
    for (const Patch& patch : patches) {
        picture.patch(patch.sector * sector_size, patch.bytes);
    }
    std::vector<Signature> all;
    while (all.size() < max_signatures) {
        const std::vector<Signature> seen = picture.probe();
        if (seen.empty()) {
            break;
        }
        for (const Signature& signature : seen) {
            const Buffer zeroes(std::max<std::uint64_t>(signature.magic.length, 1));
            picture.patch(signature.magic.offset, zeroes);
            all.push_back(signature);
        }
    }
    return all;
}

std::vector<Signature> signatures_on(BlockIo& io) {
    return signatures_if(io, {});
}

std::vector<Signature> visible_signatures(const std::string& path) {
    const ProbePtr probe(blkid_new_probe_from_filename(path.c_str()), blkid_free_probe);
    if (!probe) {
        const int error = errno;
        throw Error(Exit::operational, cat(path, ": cannot be probed: ", std::strerror(error)));
    }
    return run_probe(probe.get(), path);
}

}  // namespace remap
