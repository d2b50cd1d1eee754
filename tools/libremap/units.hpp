// SPDX-License-Identifier: GPL-2.0-or-later
//
// systemd's units for the sets that a machine knows, as systemd-cryptsetup-generator(8) makes them
// of crypttab. What a unit does is in udev/remap-open@.service; here it is tied to a set.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libremap/remaptab.hpp"

namespace remap {

/// Text as part of a unit's name: what systemd-escape(1) makes of it.
std::string escape_unit(std::string_view text);

/// The service that opens the set of this name.
std::string open_unit(const std::string& name);

/// Writes, below `folder`, what makes systemd open these sets at boot. Throws Error.
void write_units(const std::vector<RemaptabEntry>& sets, const std::string& folder);

}  // namespace remap
