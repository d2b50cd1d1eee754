// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"

namespace remap {

/// Shows everything that dm-remap has on a device, copy by copy, also when it is damaged: of a
/// spare superblocks, table and entries, of a main labels and filler, of a spare of the older
/// project its copies and entries. Calls `out.finish()` unless
/// it throws. Returns ok, or damage if any copy is not as it should be. Throws Error (unrecognised)
/// if the device holds nothing of ours, (operational) for a newer format.
Exit dump_device(BlockIo& device, Emitter& out);

}  // namespace remap
