// SPDX-License-Identifier: GPL-2.0-or-later
//
// Moving what a set shows to a disk that needs no dm-remap: `remapsetup release --to`.
#pragma once

#include <cstdint>
#include <set>

#include "libremap/block_io.hpp"
#include "libremap/observer.hpp"
#include "libremap/set_view.hpp"

namespace remap {

struct CopyOptions {
    bool accept_loss = false;  ///< blocks that nobody can read become zeroes
    bool force = false;        ///< overwrite a target that holds something
};

/// Refuses a target that is too small, has blocks larger than the set's, or holds something; and a
/// set with lost blocks. Reads both, writes nothing. Throws Error with what was seen.
void require_copyable(SetView& view, BlockIo& target, const CopyOptions& options);

/// Copies everything that the set shows to `target` and reads it back. Nothing is written to the
/// set. The places by which the payload is recognised are written last, and the one that decides
/// after the others: until then the target shows nothing, so that a copy that was cut short is
/// never taken for the payload. Returns the blocks that are zeroes now because nobody could read
/// them. Throws Error: what require_copyable() refuses; blocks that cannot be read (a list) unless
/// accepted, and what cannot be written or reads back otherwise. The target shows nothing then.
std::set<std::uint64_t> copy_view(SetView& view, BlockIo& target, const CopyOptions& options,
                                  Observer& observer);

}  // namespace remap
