// SPDX-License-Identifier: GPL-2.0-or-later
//
// One structure byte by byte: every field by the name that kmod/dm-remap-format.h gives it, also
// when the structure is damaged. For whoever has to mend by hand, or to understand what happened.
#pragma once

#include <cstdint>
#include <optional>

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"
#include "libremap/search.hpp"

namespace remap {

/// Which structure.
struct HexdumpOptions {
    /// What to take the bytes for; nothing: what their magic says.
    std::optional<StructureKind> kind;
    std::uint64_t number = 0;             ///< copy of a superblock or label; index of a table block
    unsigned int copy = 0;                ///< of a table block
    std::optional<std::uint64_t> sector;  ///< instead of number and copy
};

/// Shows it: place, verdict, checksum wanted and found, then each field with offset, bytes and
/// value; entries that are free and reserved bytes that are zero are left out. Calls `out.finish()`
/// unless it throws. Returns ok, or damage if the structure is not valid where it lies. Throws
/// Error (unrecognised) if the place is not known or the bytes are nothing of ours, IoError if they
/// cannot be read.
Exit hexdump(BlockIo& device, const HexdumpOptions& options, Emitter& out);

}  // namespace remap
