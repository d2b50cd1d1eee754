// SPDX-License-Identifier: GPL-2.0-or-later
//
// A device on which new metadata is to be written: may it be overwritten?
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "libremap/block_io.hpp"
#include "libremap/uuid.hpp"

namespace remap {

/// Opens it for writing. Throws BusyError, naming the user, if it is in use.
std::unique_ptr<BlockIo> open_spare_target(const std::string& path);

struct TargetContent {
    bool anything = false;    ///< something that somebody may miss
    bool usable = false;      ///< a set's spare whose superblock can be chosen
    bool is_main = false;     ///< the main of a set
    std::optional<Uuid> set;  ///< the set that it is a member of
    std::string description;  ///< of all that, for a message; empty if there is nothing
};

/// What a device holds: a member of a set, the older project's metadata, what libblkid knows.
/// Reads only. Throws Error if libblkid fails.
TargetContent content_of_target(BlockIo& target);

/// Throws Error (usage): "DEVICE: is WHAT; --force overwrites it".
[[noreturn]] void refuse_without_force(const std::string& device, const std::string& what);

/// Are these the same device or file?
bool same_device(const std::string& a, const std::string& b);

}  // namespace remap
