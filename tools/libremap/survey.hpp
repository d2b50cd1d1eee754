// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a check wants to know of every entry. To go through a large table once more takes longer
// than all that is asked of it, so all of it is asked while a block is being loaded.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "libremap/duplicates.hpp"
#include "libremap/entry_rules.hpp"
#include "libremap/format.hpp"

namespace remap {

/// Which of the hidden blocks have an entry. The extents are short and few.
class HiddenBlocks {
  public:
    /// `extents` must outlive this.
    explicit HiddenBlocks(const std::vector<Hidden>& extents);

    void see(const Entry& entry) {
        if ((maybe_ & bit(entry.block())) != 0 && entry.is_live())
            note(entry.block());
    }

    /// By extent and block in it.
    const std::vector<std::vector<bool>>& seen() const { return seen_; }

  private:
    /// Most blocks are told not to be hidden by six bits of their number.
    static std::uint64_t bit(std::uint64_t block) { return std::uint64_t{1} << (block / 32 % 64); }
    void note(std::uint64_t block);

    const std::vector<Hidden>& extents_;
    std::vector<std::vector<bool>> seen_;
    std::uint64_t maybe_ = 0;
};

class Survey {
  public:
    /// `superblock` must outlive this.
    explicit Survey(const Superblock& superblock);

    /// Looks at all entries of table block `index`.
    void add(std::uint64_t index, std::span<const Entry> entries);

    std::uint64_t slots_used() const { return used_; }
    std::uint64_t slots_lost() const { return lost_; }
    /// Table blocks with entries that check_entry does not accept.
    const std::vector<std::uint64_t>& implausible() const { return implausible_; }
    const HiddenBlocks& hidden() const { return hidden_; }
    /// As DuplicateFinder's; once, at the end.
    std::vector<Duplicate> duplicates(const Table& table) { return duplicates_.find(table); }

  private:
    EntryRules rules_;
    HiddenBlocks hidden_;
    DuplicateFinder duplicates_;
    std::vector<std::uint64_t> implausible_;
    std::uint64_t used_ = 0;
    std::uint64_t lost_ = 0;
};

}  // namespace remap
