// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"

namespace remap {

/// Shows when and why blocks were remapped: the entries of a spare by time, neighbouring blocks
/// with the same time, cause, state and errno as one, and their number by cause. Times are what
/// the clock said then. Calls `out.finish()`. Returns ok, or damage if any copy is not as it should
/// be. Throws Error if no superblock can be chosen.
Exit show_timeline(BlockIo& spare, Emitter& out);

}  // namespace remap
