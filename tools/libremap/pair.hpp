// SPDX-License-Identifier: GPL-2.0-or-later
//
// Do these two devices belong together? The same questions that the kernel asks, so that the
// answer can name what was seen.
#pragma once

#include <string>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"
#include "libremap/identity.hpp"

namespace remap {

/// The hardware identity that a superblock records for a member.
Identity recorded_identity(const Member& member);

/// The spare's superblock, if the set may be opened at all: right size, complete, and for writing
/// no feature that allows only reading. Throws Error (unrecognised, operational).
Superblock require_openable(BlockIo& spare, bool read_only);

/// Throws Error (unrecognised) unless `main` is the main of this set and neither of the two is an
/// old copy. `identity` is what is known about the hardware of `main`; it counts for bare sets,
/// which have no label. With `no_label` a main of which no label can be read is accepted if it is
/// on the recorded hardware; that it is no old copy nothing shows then.
void require_pair(BlockIo& main, const std::string& spare, const Superblock& superblock,
                  const Identity& identity, bool no_label = false);

/// Records on which hardware the main is now, if that is not what the superblock says; true if it
/// was written. Hardware that is not known is not recorded. Throws Error.
bool record_main_identity(BlockIo& spare, const Identity& identity);

}  // namespace remap
