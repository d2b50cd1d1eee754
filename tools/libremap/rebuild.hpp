// SPDX-License-Identifier: GPL-2.0-or-later
//
// A superblock made anew when none of its copies can be used. Only reads.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libremap/format.hpp"

namespace remap {

struct RebuiltSuperblock {
    Superblock superblock;             ///< with REMAP_FLAG_READ_ONLY
    std::vector<std::string> proved;   ///< what it says, and by what that is proved
    std::vector<std::string> assumed;  ///< what was chosen because nothing says otherwise
};

/// Puts a superblock together from the labels on the main (UUIDs, nonce, epoch, size), the table
/// blocks on the spare whose checksums follow from these (places, length, generation), the layout
/// that format makes (slots), and the filler on the main (hidden blocks). Nothing, and why, where
/// one of these is missing, contradicts another or does not prove enough. The new superblock is of
/// an epoch that was never used, and read-only, since somebody has to look at it first. Reads all
/// of the spare, and of the main 16 MiB at each end and the blocks that have slots.
std::optional<RebuiltSuperblock> rebuild_superblock(BlockIo& spare, BlockIo& main,
                                                    std::string& why);

}  // namespace remap
