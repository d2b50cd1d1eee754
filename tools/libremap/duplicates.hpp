// SPDX-License-Identifier: GPL-2.0-or-later
//
// Main blocks that have more than one live entry, found without sorting a table of millions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "libremap/format.hpp"
#include "libremap/metadata.hpp"

namespace remap {

/// A hash parts the numbers of the main blocks into groups small enough for the processor's cache;
/// what is left of it tells them apart within a group, in a table of its own. The hash keeps
/// numbers of 40 bits apart; larger ones may be taken for equal, which a second look at the table
/// settles. Four bytes of memory for each live entry.
class DuplicateFinder {
  public:
    /// For a table of at most so many entries.
    explicit DuplicateFinder(std::size_t at_most);

    /// Takes the live ones of these entries, in any order, while they are at hand.
    void add(std::span<const Entry> entries) {
        for (const Entry& entry : entries) {
            if (entry.is_live())
                add(entry.block());
        }
    }

    /// All duplicates, by block, once every entry of `table` was added. Nothing can be added any
    /// more.
    std::vector<Duplicate> find(const Table& table);

  private:
    static constexpr int bits = 40;
    static constexpr std::size_t chunk = 256;  ///< marks of one group that lie side by side

    struct Group {
        std::size_t end = 0;   ///< of its marks, in the chunk that it fills now
        std::size_t size = 0;  ///< marks in all
    };

    /// Reversible for values of 40 bits.
    static std::uint64_t hash(std::uint64_t value) {
        value = value * 0x9e3779b97f & ((std::uint64_t{1} << bits) - 1);
        return value ^ value >> bits / 2;
    }
    std::size_t group(std::uint64_t h) const { return h >> shift_; }
    /// Never 0, which is an empty place of the table.
    std::uint32_t mark(std::uint64_t h) const {
        return std::max(static_cast<std::uint32_t>(h & ((std::uint64_t{1} << shift_) - 1)), 1U);
    }
    static std::uint64_t key(std::size_t group, std::uint32_t mark) {
        return static_cast<std::uint64_t>(group) << 32 | mark;
    }

    void add(std::uint64_t block) {
        const std::uint64_t h = hash(block);
        Group& to = groups_[group(h)];
        if (to.end % chunk == 0)
            begin_chunk(to);
        marks_[to.end++] = mark(h);
        to.size++;
    }
    void begin_chunk(Group& group);
    template <typename Each>
    void for_each_mark(const Group& group, const Each& each) const;
    void find_in(std::size_t number);
    void sort_in(std::size_t number);
    bool maybe(std::uint64_t block) const;

    int shift_;
    std::vector<Group> groups_;
    std::vector<std::uint32_t> marks_;
    std::vector<std::size_t> before_;      ///< by chunk: the end of the same group's chunk before
    std::vector<std::uint32_t> table_;     ///< of the group that is looked at
    std::vector<std::uint64_t> repeated_;  ///< keys, ascending
};

}  // namespace remap
