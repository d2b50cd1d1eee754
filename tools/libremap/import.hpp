// SPDX-License-Identifier: GPL-2.0-or-later
//
// Entering bad sectors that are known from elsewhere into a set that is not open. Their blocks
// become lost: reads of them fail until they are written, and then the data goes to the spare.
#pragma once

#include <cstdint>
#include <vector>

#include "libremap/bad_list.hpp"
#include "libremap/block_io.hpp"
#include "libremap/metadata.hpp"
#include "libremap/observer.hpp"

namespace remap {

/// Everything that is decided before the first write.
struct ImportPlan {
    Superblock superblock;  ///< as it is on the spare
    Table table;
    std::vector<std::uint64_t> blocks;  ///< of the main, to be entered, ascending
    std::uint64_t known = 0;            ///< blocks of the list that have an entry already
    std::uint64_t skipped = 0;          ///< hidden, or beyond the end, and left out
    std::uint64_t free_slots = 0;       ///< what is left for later remaps
};

/// Reads the set and compares it with the list. A block that has an entry is left as it is. Throws
/// Error: the set is damaged, not complete, has one table copy left, or too few slots; and, unless
/// `skip`, a sector of the list is hidden or beyond the main's end.
ImportPlan plan_import(BlockIo& spare, const BadList& list, bool skip);

/// Carries it out as the kernel commits: new table blocks first, empty, then the table's length,
/// then the entries, one copy after the other; at any moment each block is as before or lost.
/// `now`: unix seconds. Throws Error.
void run_import(BlockIo& spare, ImportPlan plan, std::uint32_t now, Observer& observer);

}  // namespace remap
