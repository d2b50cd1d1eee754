// SPDX-License-Identifier: GPL-2.0-or-later
//
// A job that writes to a spare, other than a repair, and that `remap-fsck --undo` can take back:
// made as a repair is, first in memory, then logged, then for real.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libremap/bad_list.hpp"
#include "libremap/block_io.hpp"
#include "libremap/observer.hpp"
#include "libremap/rehearsal.hpp"
#include "libremap/undo_place.hpp"

namespace remap {

/// Writes to the device it is given. It may be called twice; afterwards a set is there.
using SpareJob = std::function<void(BlockIo& spare, Observer& observer)>;

/// Carries out the job in memory. `reserve`: what it writes only where other writes fail. Throws
/// what the job throws.
struct RehearsedJob {
    RehearsedJob(BlockIo& spare, const std::vector<SectorRun>& reserve, const SpareJob& job);

    Rehearsal rehearsal;
    UndoHeader header;
};

/// Carries out the job with an undo file as `wish` says; `observer` is warned if there is none. The
/// job can write only where the undo file has what was there. Throws Error.
void run_logged(BlockIo& spare, const UndoWish& wish, const std::vector<SectorRun>& reserve,
                const SpareJob& job, Observer& observer);

}  // namespace remap
