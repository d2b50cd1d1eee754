// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstdint>

#include "libremap/format.hpp"

namespace remap {

struct LayoutRequest {
    std::uint64_t spare_size = 0;     ///< sectors
    std::uint64_t main_size = 0;      ///< sectors
    std::uint32_t block_sectors = 1;  ///< 1 or 8
    std::uint64_t hidden_blocks = 0;  ///< main blocks that get a slot at once
    std::uint64_t max_slots = 0;      ///< 0: the default, 16 Mi
};

struct Layout {
    std::array<std::uint64_t, REMAP_SB_COPIES> sb_sector{};
    Segment segment;
    std::uint64_t table_length = 0;  ///< table blocks to initialise
    std::uint64_t usable_slots = 0;  ///< without the reserved ones
};

/// Where superblocks, table copies and slots lie on a new spare. Throws Error (usage) when the
/// spare is too small for superblocks, table and the hidden blocks.
Layout plan_layout(const LayoutRequest& request);

}  // namespace remap
