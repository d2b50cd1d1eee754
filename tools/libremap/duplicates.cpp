// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/duplicates.hpp"

#include <algorithm>
#include <bit>
#include <optional>

#include "libremap/large_memory.hpp"

namespace remap {
namespace {

constexpr std::size_t group_size = 4096;
constexpr std::size_t most_groups = 4096;
constexpr unsigned int most_steps = 64;

struct BlockSlot {
    std::uint64_t block;
    std::uint64_t slot;

    friend bool operator<(const BlockSlot& a, const BlockSlot& b) {
        return a.block != b.block ? a.block < b.block : a.slot < b.slot;
    }
};

/// Sequences are not ordered as a whole: the newest must be newer than each of the others.
std::optional<std::uint64_t> newest(const Table& table, std::span<const std::uint64_t> slots) {
    const auto newer = [&table](std::uint64_t a, std::uint64_t b) {
        return remap_seq_newer(table.entries[a].sequence(), table.entries[b].sequence()) != 0;
    };
    std::uint64_t best = slots.front();

    for (const std::uint64_t slot : slots) {
        if (newer(slot, best))
            best = slot;
    }
    const bool wins = std::all_of(slots.begin(), slots.end(), [&](std::uint64_t slot) {
        return slot == best || newer(best, slot);
    });
    return wins ? std::optional(best) : std::nullopt;
}

/// Of entries that may be duplicates, those that are.
std::vector<Duplicate> settle(const Table& table, std::vector<BlockSlot> suspects) {
    std::vector<Duplicate> duplicates;

    std::sort(suspects.begin(), suspects.end());
    for (std::size_t i = 0; i < suspects.size();) {
        std::size_t end = i + 1;
        while (end < suspects.size() && suspects[end].block == suspects[i].block)
            end++;
        if (end - i > 1) {
            Duplicate& duplicate = duplicates.emplace_back();
            duplicate.block = suspects[i].block;
            for (; i < end; i++)
                duplicate.slots.push_back(suspects[i].slot);
            duplicate.winner = newest(table, duplicate.slots);
        }
        i = end;
    }
    return duplicates;
}

}  // namespace

DuplicateFinder::DuplicateFinder(std::size_t at_most) {
    // With as many, what is left of the hash fits the 32 bits of a mark.
    constexpr std::size_t least_groups = std::size_t{1} << (bits - 32);
    const std::size_t groups =
        std::bit_ceil(std::clamp(at_most / group_size, least_groups, most_groups));

    shift_ = bits - std::countr_zero(groups);
    groups_.resize(groups);
    marks_.reserve(at_most + std::min(at_most, groups) * chunk);
    expect_large(marks_.data(), marks_.capacity() * sizeof(marks_.front()));
}

void DuplicateFinder::begin_chunk(Group& group) {
    before_.push_back(group.end);
    group.end = marks_.size();
    marks_.resize(marks_.size() + chunk);
}

template <typename Each>
void DuplicateFinder::for_each_mark(const Group& group, const Each& each) const {
    std::size_t end = group.end;

    for (std::size_t left = group.size; left > 0;) {
        const std::size_t number = (end - 1) / chunk;
        for (std::size_t at = number * chunk; at < end; at++, left--) {
            if (!each(marks_[at]))
                return;
        }
        end = before_[number];
    }
}

void DuplicateFinder::find_in(std::size_t number) {
    const Group& group = groups_[number];
    const std::size_t mask = std::bit_ceil(group.size * 2 + 2) - 1;
    bool crowded = false;

    table_.assign(mask + 1, 0);
    for_each_mark(group, [&](std::uint32_t m) {
        std::size_t at = m & mask;
        unsigned int steps = 0;
        while (table_[at] != 0 && table_[at] != m && steps < most_steps) {
            at = (at + 1) & mask;
            steps++;
        }
        if (table_[at] == m)
            repeated_.push_back(key(number, m));
        // Somebody may have chosen the blocks so that they crowd in one place.
        crowded = table_[at] != 0 && table_[at] != m;
        table_[at] = m;
        return !crowded;
    });
    if (crowded)
        sort_in(number);
}

void DuplicateFinder::sort_in(std::size_t number) {
    std::vector<std::uint32_t> marks;

    for_each_mark(groups_[number], [&](std::uint32_t m) {
        marks.push_back(m);
        return true;
    });
    std::sort(marks.begin(), marks.end());
    for (std::size_t i = 1; i < marks.size(); i++) {
        if (marks[i] == marks[i - 1])
            repeated_.push_back(key(number, marks[i]));
    }
}

bool DuplicateFinder::maybe(std::uint64_t block) const {
    const std::uint64_t h = hash(block);

    return std::binary_search(repeated_.begin(), repeated_.end(), key(group(h), mark(h)));
}

std::vector<Duplicate> DuplicateFinder::find(const Table& table) {
    std::vector<BlockSlot> suspects;

    for (std::size_t number = 0; number < groups_.size(); number++)
        find_in(number);
    marks_ = {};
    std::sort(repeated_.begin(), repeated_.end());
    repeated_.erase(std::unique(repeated_.begin(), repeated_.end()), repeated_.end());
    for (std::uint64_t slot = 0; !repeated_.empty() && slot < table.entries.size(); slot++) {
        const Entry& entry = table.entries[slot];
        if (entry.is_live() && maybe(entry.block()))
            suspects.push_back({entry.block(), slot});
    }
    return settle(table, std::move(suspects));
}

}  // namespace remap
