// SPDX-License-Identifier: GPL-2.0-or-later
//
// What can still be known of a structure when none of its copies is whole. Nothing here writes.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "libremap/metadata.hpp"

namespace remap {

/// A table block that was put together from the sectors of damaged copies: its checksum is right.
struct RecombinedBlock {
    std::uint64_t index = 0;
    std::uint64_t generation = 0;
    std::vector<Entry> entries;  ///< 252
};

/// Copies are rarely damaged in the same sectors. Tries which of their sectors make up a block
/// whose checksum is right. Checksum and generation come from live copies only; a dead copy, whose
/// content may be old, can lend sectors, since the checksum tells whether they belong there. What
/// is taken also counts its entries rightly and has only possible ones. Nothing if no combination
/// does, or if two that differ do. Damage in a header's fixed fields is made good. At most 2^24
/// combinations.
std::optional<RecombinedBlock> recombine_table_block(BlockIo& spare, const Superblock& superblock,
                                                     std::uint64_t index);

/// A superblock that was put together in the same way.
struct RecombinedSuperblock {
    Superblock superblock;
    SuperblockBytes bytes{};  ///< of the copy superblock.head.copy
};

/// Is the damaged copy `copy` of table block `index` half of one write and half of another? The
/// valid block of `generation` with `entries` (252) is one of the two. True only if some sectors
/// are that block's, and all others hold possible entries that are all newer, or all older, than
/// its.
bool table_copy_torn(BlockIo& spare, const Superblock& superblock, std::uint64_t index,
                     unsigned int copy, std::uint64_t generation, std::span<const Entry> entries);

/// The same of a damaged superblock copy, beside the valid ones in `scan`.
bool superblock_copy_torn(const SuperblockScan& scan, const SuperblockCopy& copy);

/// The newest superblock that sectors of the copies in `scan`, none of which is valid, make up.
std::optional<RecombinedSuperblock> recombine_superblock(BlockIo& spare,
                                                         const SuperblockScan& scan);

/// What is known of a table block that cannot be put together.
struct SalvagedBlock {
    std::uint64_t index = 0;
    std::vector<Entry> entries;           ///< 252; those not proved are free
    std::vector<std::uint64_t> unproved;  ///< slots, ascending
    std::vector<std::pair<std::uint64_t, Entry>>
        named;  ///< slot, and a live entry that some copy has
};

/// Sorts the entries of table block `index`. One is proved if a live copy has it, another copy has
/// it too, and it is possible; an empty one in a sector of zeroes, as a wiped sector is, only if
/// the count of entries in use, itself in two copies, is reached without it.
SalvagedBlock salvage_table_block(BlockIo& spare, const Superblock& superblock,
                                  std::uint64_t index);

/// The same for a block whose checksum is right: its possible entries are proved, but for those of
/// the slots in `undecided`, of which nobody can tell which is the newest for its block.
SalvagedBlock salvage_valid_block(const Superblock& superblock, std::uint64_t index,
                                  std::span<const Entry> entries,
                                  const std::set<std::uint64_t>& undecided);

/// How a table is made consistent when entries of it cannot be proved.
struct Loss {
    std::vector<std::uint64_t> slots;     ///< not proved: never used again, unless they hold a mark
    std::vector<std::uint64_t> blocks;    ///< of the main, marked lost: they read as errors
    std::vector<std::uint64_t> unmarked;  ///< of the main, named as well, but no slot is left
    std::vector<std::pair<std::uint64_t, std::vector<Entry>>> changed;  ///< blocks, marks first
};

/// A main block that an entry names which is not proved is marked lost, unless a proved entry is
/// newer. Which other blocks the slots stood for nobody knows: these may read old data.
Loss settle_loss(const Superblock& superblock, const Table& table,
                 const std::vector<SalvagedBlock>& blocks);

}  // namespace remap
