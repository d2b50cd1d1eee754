// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a main holds, as far as adoption and release must know: where its signatures lie, which of
// them decides, and which are only replicas.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/probe.hpp"

namespace remap {

enum class PayloadKind {
    empty,    ///< nothing that libblkid knows, and zeroes where it would be hidden
    known,    ///< something that libblkid knows
    unknown,  ///< data that libblkid does not recognise
};

/// What a main holds.
struct Payload {
    PayloadKind kind = PayloadKind::empty;
    std::string description;            ///< "ext4 (label root, UUID …)", "nothing"
    std::uint64_t deciding_sector = 0;  ///< its one write decides
    /// Where its signatures lie, replicas included; these blocks must be writable.
    std::vector<ByteRange> signatures;
    /// Places that its own tools turn to when the primary signature is gone, and may restore that
    /// from: hidden before the primary one, and given back after it.
    std::vector<ByteRange> replicas;
};

/// Recognises the payload of a main with blocks of `block_size` bytes. Throws Error (unrecognised)
/// with what was seen and what to do instead: a partition table, a kind that cannot be adopted,
/// several signatures at once; and unknown data unless `force`.
Payload recognise_payload(BlockIo& main, std::uint32_t block_size, bool force);

/// Throws Error (usage) if a main of `sectors` sectors is too small.
void require_main_size(const BlockIo& main, std::uint64_t sectors);

/// Reads `to.size()` bytes, whole sectors, at `sector` of the payload; false if that cannot be
/// read.
using PayloadReader = std::function<bool(std::uint64_t sector, Bytes to)>;

/// The sector of the main without which what was recognised would not be that.
std::uint64_t deciding_sector_of(const Signature& signature);

/// ZFS is recognised by any of many places in its first label.
std::optional<ByteRange> first_label_of(const Signature& signature);

/// Where the payload keeps replicas of its signature: f2fs's second superblock, LUKS2's second
/// header, labels 2 to 4 of ZFS. `sectors` is the size of the main. What they are is told by the
/// payload itself, which may be another one than when the main was adopted.
std::vector<ByteRange> replicas_of(const PayloadReader& read, std::uint64_t sectors);

}  // namespace remap
