// SPDX-License-Identifier: GPL-2.0-or-later
//
// The hidden places of a main: what belongs there, what is there, and putting label and filler
// over it. Adoption, release and recovery are built from these steps.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"
#include "libremap/observer.hpp"
#include "libremap/probe.hpp"

namespace remap {

/// A run of neighbouring blocks of the main.
struct BlockRun {
    std::uint64_t start = 0;  ///< block
    std::uint64_t count = 0;  ///< blocks
};

/// Joins ascending block numbers into runs of at most `limit` blocks.
std::vector<BlockRun> runs_of(const std::set<std::uint64_t>& blocks, std::uint64_t limit);

/// "3, 7-9 (4 in all)". All of them: who decides about a loss has to know what is lost.
std::string block_list(const std::set<std::uint64_t>& blocks);

/// Adds the blocks that hold [offset, offset + length), as far as the main reaches.
void hide_bytes(const Superblock& superblock, std::set<std::uint64_t>& blocks, ByteRange range);

/// The blocks that are hidden whatever the main holds: both ends, and LUKS2's second headers.
std::set<std::uint64_t> standard_places(const Superblock& superblock);

/// The blocks where a pool of ZFS would show if it were made later: more than 1 MiB, which no other
/// payload should have to find on the spare alone. For a main of at least smallest_zfs.
std::set<std::uint64_t> zfs_places(const Superblock& superblock);

/// Bytes of the smallest device that ZFS takes, and libblkid takes for one of ZFS.
constexpr std::uint64_t smallest_zfs = 64U << 20;

/// Bytes of a label of ZFS.
constexpr std::uint64_t zfs_label = 256U << 10;

/// The four labels of ZFS, in their order, on a device of `size` bytes (at least four labels).
std::vector<ByteRange> zfs_labels(std::uint64_t size);

/// The blocks as extents. Throws Error (unrecognised) if they are too many for a superblock.
std::vector<Hidden> extents_of(const std::set<std::uint64_t>& blocks);

/// All hidden blocks of a set, ascending.
std::set<std::uint64_t> hidden_blocks_of(const Superblock& superblock);

/// The block that holds the deciding sector.
std::uint64_t deciding_block(const Superblock& superblock);

/// Access to a main in blocks of the set, which may be larger than the device's.
class MainBlocks {
  public:
    MainBlocks(BlockIo& io, std::uint32_t block_sectors) : io_(io), sectors_(block_sectors) {}

    BlockIo& io() { return io_; }
    std::uint64_t sector(std::uint64_t block) const { return block * sectors_; }
    std::size_t bytes() const { return sectors_ * static_cast<std::size_t>(sector_size); }
    /// Blocks that one request carries at most: 128 KiB.
    std::uint64_t chunk() const { return 256 / sectors_; }

    int try_read(std::uint64_t block, Bytes to) { return io_.try_read(sector(block), to); }
    int try_write(std::uint64_t block, ConstBytes from) {
        return io_.try_write(sector(block), from);
    }

  private:
    BlockIo& io_;
    std::uint32_t sectors_;
};

/// The contents of the hidden blocks, taken before anything is written over them.
struct HiddenContent {
    std::size_t block_bytes = 0;
    std::vector<std::uint64_t> blocks;  ///< ascending
    std::vector<std::uint8_t> bytes;    ///< block after block
    std::set<std::uint64_t> lost;       ///< could not be read; zeroes in `bytes`

    /// The bytes of the i-th block.
    ConstBytes at(std::size_t i) const {
        return ConstBytes(bytes).subspan(i * block_bytes, block_bytes);
    }
};

/// Reads the hidden blocks, one by one where a larger read fails.
HiddenContent read_hidden(MainBlocks& main, const Superblock& superblock);

/// Writes the contents over themselves, flushes and reads them back; the blocks that failed in any
/// of these steps. Lost blocks are left alone.
std::set<std::uint64_t> rewrite_hidden(MainBlocks& main, const HiddenContent& content,
                                       Observer& observer);

/// The bytes that stand at a hidden block of a complete set: a label or filler.
std::vector<std::uint8_t> place_bytes(const Superblock& superblock, std::uint64_t block);

enum class Place {
    ours,        ///< label or filler of this set and format
    foreign,     ///< label or filler of another set, or of this set's earlier life
    other,       ///< anything else
    unreadable,  ///< an I/O error
};

/// What a hidden block holds.
Place look_at_place(MainBlocks& main, const Superblock& superblock, std::uint64_t block);

/// The blocks whose label is of this set and has the highest epoch of all that are. While one of
/// them is written over, the set is known by another, or not at all.
std::set<std::uint64_t> newest_labels(MainBlocks& main, const Superblock& superblock);

/// Writes one block's label or filler. Returns 0 or an errno value.
int conceal_block(MainBlocks& main, const Superblock& superblock, std::uint64_t block);

/// Writes label or filler to all `blocks`, block by block where a larger write fails, without a
/// flush. Failures show when the places are verified.
void conceal(MainBlocks& main, const Superblock& superblock, const std::set<std::uint64_t>& blocks,
             Observer& observer);

/// The hidden blocks that do not hold exactly what belongs there.
std::set<std::uint64_t> unconcealed(MainBlocks& main, const Superblock& superblock);

/// Sets REMAP_HIDDEN_EXPOSED on the extents that hold one of `blocks` and clears it on the others.
void mark_exposed(Superblock& superblock, const std::set<std::uint64_t>& blocks);

}  // namespace remap
