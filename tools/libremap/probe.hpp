// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a device holds: our own signature, and what libblkid takes it for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"

namespace remap {

// --- ours -------------------------------------------------------------------------------------

/// A member of a set, as its own superblock or label says.
struct MemberInfo {
    std::uint8_t role = 0;  ///< enum remap_role
    std::uint8_t state = 0;
    std::uint32_t version = 0;
    std::uint32_t flags = 0;
    std::uint32_t epoch = 0;
    /// A format newer than this program: the fields below are not known.
    bool newer = false;
    Uuid set;
    Uuid member;
    Uuid partner;
    std::uint64_t nonce = 0;
    std::uint64_t size = 0;  ///< of the device when it became a member, sectors
    std::string label;       ///< of a spare
    std::uint64_t sector;    ///< where the structure was found
};

/// Is the device a member? Reads 8 KiB at the front and 8 KiB at the end; only if what is there is
/// ours but damaged, further superblock places. Never throws for what it reads: what cannot be read
/// or verified is not ours.
std::optional<MemberInfo> probe_member(BlockIo& io);

/// Is this device, of which libblkid says that it holds `type`, not the member itself but a leg of
/// the device that is? What a leg shows at its front and end may be the other's, but it is longer.
/// The data on a member may look like the end of a leg, too: so that alone proves nothing.
bool is_leg(const MemberInfo& info, std::string_view type, std::uint64_t sectors);

/// Properties for the udev database as KEY=value lines, the values encoded.
std::string udev_properties(const MemberInfo& info);

// --- others' ----------------------------------------------------------------------------------

/// A run of bytes.
struct ByteRange {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;

    friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

/// Something that libblkid recognises.
struct Signature {
    std::string type;   ///< "ext4", "gpt", …
    std::string label;  ///< may be empty
    std::string uuid;   ///< may be empty
    ByteRange magic;    ///< where the bytes are by which it was recognised
    bool partition_table = false;

    /// "ext4 (label root, UUID 1234…) at byte 1080".
    std::string describe() const;
};

/// Several descriptions, joined for a message.
std::string describe(const std::vector<Signature>& signatures);

/// What would lie at some place of a device.
struct Patch {
    std::uint64_t sector = 0;
    std::vector<std::uint8_t> bytes;
};

/// Everything libblkid would recognise on the device if the patches were on it, each signature
/// hidden in turn so that what is behind it is seen as well. Works on a picture in memory of the
/// device's first and last 8 MiB, where all places lie that libblkid looks at; unreadable sectors
/// count as zeroes. Throws Error if libblkid or the picture fails.
std::vector<Signature> signatures_if(BlockIo& io, const std::vector<Patch>& patches);

/// signatures_if without patches.
std::vector<Signature> signatures_on(BlockIo& io);

/// What libblkid recognises on a device or image as it is, as `blkid -p` does, past this program's
/// own reading: the last check. Throws Error if the path cannot be probed.
std::vector<Signature> visible_signatures(const std::string& path);

}  // namespace remap
