// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

#include "libremap/identity.hpp"

namespace remap {

/// What a user would read on the disk that the device lies on: model and serial number, as one word
/// of letters, digits and "._-". Empty if nothing is known, or for what is no block device.
std::string hardware_name(const BlockDevice& device, const MachineRoot& root = {});
std::string hardware_name(const std::string& path, const MachineRoot& root = {});

}  // namespace remap
