// SPDX-License-Identifier: GPL-2.0-or-later
//
// A repair that can be taken back: rehearsed in memory, logged, then carried out.
#pragma once

#include <cstdint>
#include <string>

#include "libremap/check.hpp"
#include "libremap/overlay_io.hpp"
#include "libremap/undo.hpp"

namespace remap {

/// What a repair is going to do.
struct Rehearsal {
    WriteJournal journal;
    std::uint32_t epoch_limit = 0;  ///< highest epoch that a superblock has before or after
    std::uint64_t generation_limit = 0;
};

/// Carries out the plan in memory. Writes nothing to the devices and leaves `result` alone.
/// `main` is null if it shall not be written to.
Rehearsal rehearse(const CheckResult& result, BlockIo& spare, BlockIo* main, const Wanted& wanted);

/// What an undo file says of the set, with a new id and the present time.
UndoHeader undo_header(const Superblock& superblock, const Rehearsal& rehearsal);

/// Carries out the plan as apply_plan does, and lets it write only where the rehearsal did. What
/// differs from the rehearsal goes to `sink` before it is written. Returns how many writes were
/// refused: none, unless the plan does not do the same twice.
unsigned int apply_rehearsed(CheckResult& result, const Rehearsal& rehearsal, BlockIo& spare,
                             BlockIo* main, const Wanted& wanted, UndoSink& sink, std::uint64_t id);

}  // namespace remap
