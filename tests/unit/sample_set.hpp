// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "libremap/check.hpp"
#include "libremap/io_doubles.hpp"
#include "libremap/metadata.hpp"

namespace remap::test {

struct SampleOptions {
    std::uint64_t main_size = 4096;   ///< sectors
    std::uint64_t spare_size = 4096;  ///< sectors
    std::uint8_t block_shift = 9;
    std::uint64_t hidden_each_end = 8;  ///< blocks; 0: a bare set
    std::uint64_t remaps = 20;          ///< besides the hidden blocks
    std::uint32_t seed = 1;
};

/// A complete set in memory: labels and filler on the main, superblocks, table and slots on the
/// spare, as format and some remaps leave it.
struct SampleSet {
    MemoryIo main;
    MemoryIo spare;
    Superblock superblock;
    std::vector<Entry> entries;

    explicit SampleSet(const SampleOptions& options = {});

    std::vector<std::uint8_t> spare_bytes() const { return spare.content(); }

    /// Entries and superblock to the spare, with the next generation.
    void write_all();
    /// The same content once more, under the same generation.
    void write_all_as_is();
    /// As write_all, but raises the epoch first, on spare and labels.
    void new_epoch();
    /// Writes the labels and filler to the main.
    void write_main();

    std::uint64_t generation = 0;
};

/// Flips bit `bit` (counted from `sector`).
void flip(MemoryIo& io, std::uint64_t sector, std::uint64_t bit);

/// Overwrites sectors with something that is not ours.
void scribble(MemoryIo& io, std::uint64_t sector, std::uint64_t sectors, std::uint8_t value = 0x5a);

/// Makes the checksum of a table block right again.
void reseal_table_block(TableBlockBytes& bytes, std::uint32_t seed);

/// Ids of the findings, sorted, without notes unless asked for.
std::vector<std::string> ids(const CheckResult& result, bool notes = false);

/// Check and repair of everything that `wanted` accepts (default: what -p does).
CheckResult repair(BlockIo& spare, BlockIo* main = nullptr, bool everything = false);

}  // namespace remap::test
