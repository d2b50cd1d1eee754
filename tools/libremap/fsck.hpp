// SPDX-License-Identifier: GPL-2.0-or-later
//
// The whole of remap-fsck behind its command line.
#pragma once

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>

#include "libremap/check.hpp"

namespace remap {

enum class FsckMode {
    check,        ///< -n: report, change nothing
    preen,        ///< -p, -a: what loses nothing, without questions
    yes,          ///< -y: everything that can be repaired
    interactive,  ///< ask for each finding
};

struct FsckOptions {
    std::string spare;
    std::optional<std::string> main;
    FsckMode mode = FsckMode::check;
    /// Makes a set writable again that a repair left read-only, and nothing else.
    bool confirm_loss = false;
    bool json = false;
    /// Where the undo file goes; not given: to a state directory, if there is one.
    std::optional<std::string> undo_file;
    /// A new image that gets the repaired spare; nothing is written to the devices then, nor to an
    /// undo file.
    std::optional<std::string> out;
    /// Above 0: lines "pass done total device" go there, as fsck(8) wants them; pass 1 checks, 2
    /// repairs, 3 copies.
    int progress_fd = -1;
};

/// Where a run of fsck says what it does, and whom it asks.
struct FsckFrontend {
    std::ostream& out;  ///< findings
    std::ostream& err;  ///< trouble
    /// A question; true: yes. Called in mode `interactive` only.
    std::function<bool(const std::string&)> ask;
    /// Shall the run end? Asked between the steps of check and repair. May be empty: never.
    std::function<bool()> cancelled = {};
    /// Told now and then what is being done and how much of it is, in parts of `total`; at its end
    /// both are the same. May be empty.
    std::function<void(const std::string& what, std::uint64_t done, std::uint64_t total)> progress =
        {};
};

/// Checks, repairs as the mode says, and reports. Devices are opened for writing only when a
/// repair is about to be made; what is repaired was then found again under that lock, and what it
/// writes over is in an undo file by then. When it shall end it does so between two steps, reports
/// what was found and done, and adds fsck::cancelled. Returns fsck(8) exit bits. Throws nothing.
int run_fsck(const FsckOptions& options, FsckFrontend& frontend);

struct UndoOptions {
    std::string file;
    std::string spare;
    std::optional<std::string> main;
    bool only_check = false;  ///< say what would be done
};

/// `remap-fsck --undo`: takes a repair back. Returns fsck::ok, fsck::operational when it is refused
/// or a device fails, or fsck::usage. Throws nothing.
int run_undo(const UndoOptions& options, FsckFrontend& frontend);

}  // namespace remap
