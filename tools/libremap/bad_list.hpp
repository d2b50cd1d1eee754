// SPDX-License-Identifier: GPL-2.0-or-later
//
// Lists of bad sectors as other programs write them.
#pragma once

#include <cstdint>
#include <streambuf>
#include <string>
#include <vector>

namespace remap {

/// A run of sectors of 512 bytes.
struct SectorRun {
    std::uint64_t start = 0;
    std::uint64_t count = 0;

    friend bool operator==(const SectorRun&, const SectorRun&) = default;
};

struct BadList {
    std::vector<SectorRun> runs;  ///< in the order of the input; neighbours are joined
    /// Of a ddrescue mapfile: bytes that were tried but not given up, or not tried at all.
    std::uint64_t undecided_bytes = 0;
};

// Each throws Error (unrecognised) with line and byte for anything that is not such a list. A
// sector of which only a part is bad is bad.

/// A ddrescue mapfile: what has the status `-`.
BadList read_ddrescue_map(std::streambuf& in, const std::string& name);

/// The output of badblocks(8): a number per line, in blocks of `block_size` bytes, which the list
/// itself does not say. Must be a multiple of 512.
BadList read_badblocks(std::streambuf& in, const std::string& name, std::uint64_t block_size);

/// The kernel's bad_blocks files of MD: "SECTOR COUNT" per line.
BadList read_md_bad_blocks(std::streambuf& in, const std::string& name);

}  // namespace remap
