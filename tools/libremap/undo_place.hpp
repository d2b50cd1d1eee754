// SPDX-License-Identifier: GPL-2.0-or-later
//
// Where undo files are kept when nobody names one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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

/// The undo file that a job shall have.
struct UndoWish {
    /// A new file; not given: one in the first state directory that takes it, if any does.
    std::optional<std::string> file;
    /// What is written to: the file must not lie there.
    std::vector<std::string> devices;
    /// Gets the words that tell how to take it back, before the first write. May be empty.
    std::function<void(const std::string&)> told = {};
};

/// Writes the undo file of what `journal` is going to write; durable when it returns. Null if none
/// was asked for and no state directory takes one: `warn` is told why. Throws Error if the file
/// that was asked for cannot be made.
std::unique_ptr<UndoFileSink> keep_undo(const UndoWish& wish, const UndoHeader& header,
                                        const WriteJournal& journal, BlockIo& spare, BlockIo* main,
                                        const std::function<void(const std::string&)>& warn);

/// Removes the oldest undo files of the set, and of all sets, beyond those that are kept; never
/// `newest`, for early at boot the clock may be wrong. Failures do not matter.
void prune_undo_files(const std::string& folder, const Uuid& set, const std::string& newest);

}  // namespace remap
