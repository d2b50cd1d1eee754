// SPDX-License-Identifier: GPL-2.0-or-later
//
// What check_entry wants, for going through millions of entries.
#pragma once

#include <cstdint>

#include "libremap/format.hpp"

namespace remap {

class EntryRules {
  public:
    /// `superblock` must outlive this.
    explicit EntryRules(const Superblock& superblock)
        : superblock_(superblock),
          main_blocks_(superblock.main_blocks()),
          slots_(superblock.segment().nr_slots) {
        const std::uint64_t start = superblock.segment().data_start;
        for (const std::uint64_t place : superblock.sb_sector) {
            // Every sector of it, since a slot may be as small as one.
            for (std::uint64_t at = place; at < place + REMAP_SB_SECTORS; at++) {
                if (at >= start)
                    maybe_reserved_ |= bit((at - start) / superblock.block_sectors());
            }
        }
    }

    /// Has check_entry nothing to say?
    bool accept(std::uint64_t slot, const Entry& entry) const {
        if (entry.lo == 0 && entry.hi == 0)
            return true;
        if (entry.is_free() || entry.state() > REMAP_ENTRY_BAD || slot >= slots_ ||
            entry.block() >= main_blocks_)
            return false;
        return (maybe_reserved_ & bit(slot)) == 0 || !check_entry(superblock_, slot, entry);
    }

  private:
    /// Few slots are reserved: most are told by the last bits of their number.
    static std::uint64_t bit(std::uint64_t slot) { return std::uint64_t{1} << (slot % 64); }

    const Superblock& superblock_;
    std::uint64_t main_blocks_;
    std::uint64_t slots_;
    std::uint64_t maybe_reserved_ = 0;
};

}  // namespace remap
