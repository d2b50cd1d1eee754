// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <string>

#include "libremap/file_util.hpp"

namespace remap {

/// Tells that udev has dealt with a block device, by its database changing. What happened since
/// this was made is told by the first wait, so make it before looking at the devices.
class DeviceEvents {
  public:
    /// `udev_db`: where udev keeps it. Without one, waiting just takes its time.
    explicit DeviceEvents(const std::string& udev_db);

    /// Waits until something has happened, but not longer than `patience`; true if it has.
    bool wait(std::chrono::milliseconds patience);

  private:
    /// Takes all events; true if one concerns a block device.
    bool drain();

    FileHandle fd_;
};

}  // namespace remap
