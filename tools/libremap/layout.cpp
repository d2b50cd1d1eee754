// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/layout.hpp"

#include <algorithm>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint64_t default_slots = 16ULL << 20;
constexpr std::uint64_t table_first = 16;  // after the boot block and superblock 0
constexpr std::uint64_t large_spare = 131072;
constexpr std::uint64_t large_alignment = 2048;

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
    return (value + to - 1) / to * to;
}

std::uint64_t table_sectors(std::uint64_t slots) {
    return (slots + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK *
           REMAP_TABLE_BLOCK_SECTORS;
}

struct Space {
    std::uint64_t size;       // sectors, whole 4 KiB
    std::uint64_t alignment;  // of the data area
    std::uint32_t block_sectors;

    std::uint64_t data_start(std::uint64_t slots) const {
        return round_up(table_first + table_sectors(slots), alignment);
    }
    std::uint64_t last_table(std::uint64_t slots) const {
        return size - REMAP_SB_SECTORS - table_sectors(slots);
    }
    bool fits(std::uint64_t slots) const {
        const std::uint64_t used =
            data_start(slots) + slots * block_sectors + table_sectors(slots) + REMAP_SB_SECTORS;
        return used <= size;
    }
};

/// The largest number of slots that fits, up to `most`.
std::uint64_t most_slots(const Space& space, std::uint64_t most) {
    std::uint64_t low = 0;
    std::uint64_t high = std::min(most, space.size / space.block_sectors);

    while (low < high) {
        const std::uint64_t middle = low + (high - low + 1) / 2;
        if (space.fits(middle))
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

std::uint64_t reserved_slots(const Layout& layout, std::uint32_t block_sectors) {
    std::uint64_t reserved = 0;
    const std::uint64_t start = layout.segment.data_start;
    const std::uint64_t end = start + layout.segment.nr_slots * block_sectors;

    for (const std::uint64_t place : layout.sb_sector) {
        const std::uint64_t from = std::clamp(place, start, end);
        const std::uint64_t to = std::clamp(place + REMAP_SB_SECTORS, start, end);
        if (from < to)
            reserved += round_up(to - start, block_sectors) / block_sectors -
                        (from - start) / block_sectors;
    }
    return reserved;
}

}  // namespace

Layout plan_layout(const LayoutRequest& request) {
    const std::uint64_t size = request.spare_size / REMAP_SB_SECTORS * REMAP_SB_SECTORS;
    const std::uint64_t blocks = request.main_size / request.block_sectors;
    const std::uint64_t wanted = request.max_slots ? request.max_slots : default_slots;
    const Space space{size, size >= large_spare ? large_alignment : REMAP_SB_SECTORS,
                      request.block_sectors};
    Layout layout;

    if (size < REMAP_MIN_SPARE_SECTORS)
        throw Error(Exit::usage,
                    cat("the spare is too small: it has ", request.spare_size,
                        " sectors, at least ", REMAP_MIN_SPARE_SECTORS, " are needed"));
    const std::uint64_t slots =
        most_slots(space, std::min(wanted, std::min<std::uint64_t>(blocks, REMAP_MAX_SLOTS)));
    for (unsigned int i = 0; i < REMAP_SB_COPIES; i++)
        layout.sb_sector[i] = remap_sb_place(size, i);
    layout.segment.nr_copies = 2;
    layout.segment.table_start[0] = table_first;
    layout.segment.table_start[1] = space.last_table(slots);
    layout.segment.nr_slots = slots;
    layout.segment.data_start = space.data_start(slots);
    layout.usable_slots = slots - reserved_slots(layout, request.block_sectors);
    if (layout.usable_slots == 0 || layout.usable_slots < request.hidden_blocks)
        throw Error(Exit::usage,
                    cat("the spare is too small: it has room for ", layout.usable_slots,
                        " blocks, at least ", std::max<std::uint64_t>(request.hidden_blocks, 1),
                        " are needed"));

    const std::uint64_t reserved = slots - layout.usable_slots;
    const std::uint64_t first_blocks =
        table_sectors(request.hidden_blocks + reserved) / REMAP_TABLE_BLOCK_SECTORS + 1;
    layout.table_length = std::min(first_blocks, layout.segment.table_blocks());
    return layout;
}

}  // namespace remap
