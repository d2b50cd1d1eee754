// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a search found, shown.
#pragma once

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"
#include "libremap/search.hpp"

namespace remap {

/// Searches the device and shows every structure that was found: kind, copy, index, generation,
/// place, whether it lies where it says. Calls `out.finish()` unless it throws. Returns ok;
/// damage if anything found is not valid in its place, or a part could not be read. Throws Error
/// (unrecognised) if nothing was found at all.
Exit scan_device(BlockIo& device, const SearchOptions& options, Emitter& out);

}  // namespace remap
