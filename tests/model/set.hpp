// SPDX-License-Identifier: GPL-2.0-or-later
//
// A set made and read by hand from kmod/dm-remap-format.h, with no code of the tools: what both
// halves of the project get wrong in the same way would not show otherwise.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "image.hpp"
#include "oracle.hpp"
#include "random.hpp"

namespace model {

struct SetOptions {
    bool adopted = true;
    std::uint8_t block_shift = 9;
    std::uint8_t nr_copies = 2;
    std::uint64_t main_blocks = 4096;
    std::uint64_t spare_sectors = 2048;
    std::uint64_t nr_slots = 600;
    std::uint64_t bad_slots = 0;  ///< marked bad at format, to fill the table
    std::uint64_t mapped = 8;     ///< blocks of the window in slots at format
    std::uint64_t lost = 4;       ///< blocks of the window that are lost at format
    std::uint32_t first_sequence = 1;
};

struct SetLayout {
    SetOptions options;
    std::uint64_t main_sectors = 0;
    std::uint64_t table_blocks = 0;
    std::vector<std::uint64_t> table_start;
    std::vector<std::uint64_t> sb_sector;
    std::vector<std::uint64_t> label_sector;
    std::uint64_t data_start = 0;
    Window window;
    std::vector<bool> lost;  ///< by index in the window

    std::uint32_t block_sectors() const { return 1U << (options.block_shift - 9); }
    std::uint64_t slot_sector(std::uint64_t slot) const {
        return data_start + slot * block_sectors();
    }
    std::uint64_t table_sectors() const;
    bool slot_reserved(std::uint64_t slot) const;
    bool hidden(std::uint64_t block) const;
    /// The table copy that the sector of the spare belongs to.
    std::optional<unsigned int> table_copy(std::uint64_t sector) const;
    /// The superblock copy that begins at the sector of the spare.
    std::optional<unsigned int> superblock_copy(std::uint64_t sector) const;
};

/// How many bad slots leave `free` slots in the first block of the table, or a few more if some
/// mapped blocks coincide.
std::uint64_t nearly_full(const SetOptions& options, std::uint64_t free);

SetLayout plan_set(const SetOptions& options, Random& random);

/// Writes a complete set onto both images, and content for every block.
void format_set(const SetLayout& layout, Random& random, Image& main, Image& spare);

/// A live copy of the table without which a load must read the same: no block of it is newer than
/// the newest of the others.
std::optional<unsigned int> old_table_copy(const SetLayout& layout, const Image& spare);

/// Slots of the live (mapped or lost) entries by main block, as the newest valid copies say.
/// Empty if a superblock or a table block has no valid copy.
std::optional<std::map<std::uint64_t, std::vector<std::uint64_t>>> live_entries(
    const SetLayout& layout, const Image& spare);

}  // namespace model
