// SPDX-License-Identifier: GPL-2.0-or-later
//
// Sets that were closed by hand. udev tells of a member whenever something has written to it, as
// remap-fsck does; such an event must not open a set that somebody has just closed. Kept until the
// set is opened, or the machine restarts; where /run cannot be written, not at all.
#pragma once

#include "libremap/uuid.hpp"

namespace remap {

void remember_closed(const Uuid& set);
void forget_closed(const Uuid& set);
bool was_closed(const Uuid& set);

}  // namespace remap
