// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a payload keeps of its own beside the places that adoption hides: backup superblocks and
// metadata, by which its own tools bring it back when spare and rescue file are lost. Only reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"

namespace remap {

/// One way back.
struct Backup {
    std::string text;                   ///< what was found and where
    std::vector<std::string> commands;  ///< what to run, in this order
};

/// Looks at the places where ext2/3/4, XFS and Btrfs keep backups, for the JSON area of a LUKS2
/// header of 128 KiB or more, and in LVM's own backups below `host_root` for a physical volume of
/// this size. `device` is what the commands call the main.
std::vector<Backup> find_backups(BlockIo& main, const std::string& device,
                                 const std::string& host_root);

/// What to run on a payload of which the hidden blocks are old: a full check, where there is one.
/// `type` is libblkid's.
std::vector<std::string> checks_after_rescue(const std::string& type, const std::string& device);

}  // namespace remap
