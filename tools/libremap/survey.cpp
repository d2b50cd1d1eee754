// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/survey.hpp"

#include <algorithm>

namespace remap {

HiddenBlocks::HiddenBlocks(const std::vector<Hidden>& extents) : extents_(extents) {
    for (const Hidden& h : extents) {
        seen_.emplace_back(h.count);
        for (std::uint64_t block = h.start; block < h.start + h.count; block++)
            maybe_ |= bit(block);
    }
}

void HiddenBlocks::note(std::uint64_t block) {
    const auto after =
        std::upper_bound(extents_.begin(), extents_.end(), block,
                         [](std::uint64_t b, const Hidden& h) { return b < h.start; });

    if (after == extents_.begin())
        return;
    const auto extent = static_cast<std::size_t>(after - extents_.begin()) - 1;
    if (block - extents_[extent].start < extents_[extent].count)
        seen_[extent][block - extents_[extent].start] = true;
}

Survey::Survey(const Superblock& superblock)
    : rules_(superblock),
      hidden_(superblock.hidden),
      duplicates_(superblock.table_length * REMAP_ENTRIES_PER_BLOCK) {}

void Survey::add(std::uint64_t index, std::span<const Entry> entries) {
    std::uint64_t slot = index * REMAP_ENTRIES_PER_BLOCK;
    bool good = true;

    for (const Entry& entry : entries) {
        good = rules_.accept(slot++, entry) && good;
        used_ += !entry.is_free();
        lost_ += entry.state() == REMAP_ENTRY_LOST;
        hidden_.see(entry);
    }
    duplicates_.add(entries);
    if (!good)
        implausible_.push_back(index);
}

}  // namespace remap
