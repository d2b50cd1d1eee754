// SPDX-License-Identifier: GPL-2.0-or-later
//
// Who uses a device or an image besides those whom its own lock would show.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <string>

namespace remap {

/// The device that this one is a partition of; itself if it is none.
dev_t whole_disk(dev_t device);

/// Names of the devices that sit on this block device or on its partitions, for a message; empty
/// if there are none.
std::string holders_of(dev_t device);

/// A loop device over the image or block device, over a partition of it, or over the disk that it
/// is a partition of; empty if there is none. The kernel lets a loop device sit on a block device
/// without holding it. What a loop device lies over is asked of itself; where that cannot be had,
/// one whose file has the same name counts.
std::string loop_over(const std::string& path, const struct stat& status);

/// Does the file system that holds `path` (or would: its folder counts if it does not exist) lie on
/// that block device or image, through whatever device-mapper, MD, loop devices and partitions are
/// between? False where it cannot be told.
bool lies_on(const std::string& path, const struct stat& device);

}  // namespace remap
