// SPDX-License-Identifier: GPL-2.0-or-later
//
// What reads a device before dm-remap can be there: firmware, the boot loader, the kernel that
// resumes; and whether the initramfs could open a set that root lies on. Everything here only
// reads.
#pragma once

#include <string>
#include <vector>

#include "libremap/references.hpp"

namespace remap {

/// Why the main should not be adopted as far as booting goes: it is a partition that firmware
/// reads, it holds /boot, the machine hibernates to it; or root lies on it and an initramfs lacks
/// what is needed. Each says what was seen, and what to do instead.
std::vector<std::string> objections_to_boot(const MainNames& names, const Host& host);

/// Does the root file system of that machine lie on the main, as fstab has it or as it is mounted?
bool holds_root(const MainNames& names, const Host& host);

/// For each installed kernel whose initramfs could not open a set: what it lacks, and the command
/// that mends it.
std::vector<std::string> objections_to_initramfs(const Host& host);

}  // namespace remap
