// SPDX-License-Identifier: GPL-2.0-or-later
//
// Where undo files are kept when nobody names one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/undo.hpp"
#include "libremap/uuid.hpp"

namespace remap {

/// Undo files of one set that are kept in a state directory, and of all sets.
constexpr std::size_t kept_of_set = 8;
constexpr std::size_t kept_of_all = 64;

/// The state directories to try, the best first: what REMAP_STATE_DIR names, else in an initramfs
/// /run/dm-remap, which the root file system will have as well, else /var/lib/dm-remap and, where
/// that cannot be written yet, /run/dm-remap.
std::vector<std::string> state_directories();

/// Where a new undo file of the set goes: FOLDER/fsck-UUID-TIME.undo, or with a number if that is
/// there already.
std::string new_undo_path(const std::string& folder, const Uuid& set, std::uint64_t time);

/// Makes the state directory if need be, and a file in it that can take `bytes` bytes. Throws
/// Error.
std::unique_ptr<UndoFileSink> make_default_undo(const std::string& folder, const Uuid& set,
                                                std::uint64_t time, std::uint64_t bytes);

/// Removes the oldest undo files of the set, and of all sets, beyond those that are kept; never
/// `newest`, for early at boot the clock may be wrong. Failures do not matter.
void prune_undo_files(const std::string& folder, const Uuid& set, const std::string& newest);

}  // namespace remap
