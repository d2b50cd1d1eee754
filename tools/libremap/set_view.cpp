// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/set_view.hpp"

#include <algorithm>
#include <cerrno>

#include "libremap/places.hpp"
#include "libremap/text.hpp"

namespace remap {

SetView::SetView(BlockIo& main, BlockIo& spare, Superblock superblock)
    : main_(main),
      spare_(spare),
      superblock_(std::move(superblock)),
      name_(cat("set ", superblock_.head.set_uuid)) {
    for (const Mapping& mapping : live_mappings(load_intact_table(spare, superblock_))) {
        mappings_[mapping.block] = mapping;
        if (mapping.undecidable || mapping.entry.state() != REMAP_ENTRY_MAPPED) {
            lost_.insert(mapping.block);
        }
    }
    for (const std::uint64_t block : hidden_blocks_of(superblock_)) {
        if (mappings_.count(block) == 0) {
            lost_.insert(block);
        }
    }
}

int SetView::read_block(const Mapping& mapping, std::uint64_t skipped, Bytes to) {
    return spare_.try_read(superblock_.slot_sector(mapping.slot) + skipped, to);
}

int SetView::try_read(std::uint64_t sector, Bytes to) {
    const std::uint64_t block_sectors = superblock_.block_sectors();
    const std::uint64_t end = sector + to.size() / sector_size;
    if (end > size()) {
        return EIO;
    }
    while (sector < end) {
        const std::uint64_t block = sector / block_sectors;
        const auto next = mappings_.lower_bound(block);
        const bool mapped = next != mappings_.end() && next->first == block;
        // Up to the end of a mapped block, or up to the next one that is mapped or lost.
        const auto lost = lost_.lower_bound(block);
        if (lost != lost_.end() && *lost == block) {
            return EIO;
        }
        std::uint64_t until = mapped ? (block + 1) * block_sectors : end;
        if (!mapped && next != mappings_.end()) {
            until = std::min(until, next->first * block_sectors);
        }
        if (!mapped && lost != lost_.end()) {
            until = std::min(until, *lost * block_sectors);
        }
        until = std::min(until, end);
        const Bytes part = to.first((until - sector) * sector_size);
        const int error = mapped ? read_block(next->second, sector % block_sectors, part)
                                 : main_.try_read(sector, part);
        if (error != 0) {
            return error;
        }
        to = to.subspan(part.size());
        sector = until;
    }
    return 0;
}

int SetView::try_write(std::uint64_t /*sector*/, ConstBytes /*from*/) {
    return EROFS;
}

}  // namespace remap
