// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a spare knows, in forms that other programs read.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/observer.hpp"
#include "libremap/set_visitor.hpp"

namespace remap {

/// Walks the current metadata of a spare, table block by table block; memory use does not depend on
/// the table's size. Returns ok, or damage if any copy is not as it should be (what a power cut
/// leaves is no damage); a table block without a valid copy is shown as lost. Throws Error if no
/// superblock can be chosen.
Exit visit_set(BlockIo& spare, bool in_use, SetVisitor& set);

/// What the current metadata of a spare mean for the main.
struct MainView {
    Superblock superblock;
    /// A run of blocks that go to one place.
    struct Run {
        std::uint64_t block = 0;  ///< first block of the main
        std::uint64_t count = 0;  ///< blocks
        enum class Place { main, slot, lost } place = Place::main;
        std::uint64_t slot = 0;  ///< of the first block, when in slots
    };
    /// All blocks of the main, ascending, neighbours joined. Hidden blocks without a valid entry,
    /// lost ones, and those of which it cannot be decided which entry is the newest are `lost`.
    std::vector<Run> runs;
    bool damaged = false;
    std::uint64_t lost_table_blocks = 0;  ///< what they mapped is not known
};

/// Loads superblock and table and turns them into runs. Throws as visit_set.
MainView view_main(BlockIo& spare);

/// A ddrescue mapfile of the main: `-` for what must not be read from it because the data is
/// elsewhere or nowhere (hidden blocks too), `+` for the rest. Unit: bytes.
void write_ddrescue_map(const MainView& view, const std::string& spare, std::ostream& out);

/// A list for badblocks(8), mke2fs -l, e2fsck -l: blocks of `block_size` bytes of which a sector
/// was remapped or lost. Hidden blocks are not bad and not listed. Throws Error (usage) if the
/// main's blocks are not whole sectors of 512 bytes.
void write_badblocks(const MainView& view, std::uint64_t block_size, std::ostream& out);

/// Lines of a table for dmsetup that gives the remap device without its module: linear and error
/// segments, joined where they meet. Lost blocks are error segments.
void write_dm_table(const MainView& view, const std::string& main, const std::string& spare,
                    std::ostream& out);

}  // namespace remap
