// SPDX-License-Identifier: GPL-2.0-or-later
//
// When the spare is gone for good: the hidden blocks go back to the main from the rescue file, as
// they were when it was written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libremap/backups.hpp"
#include "libremap/block_io.hpp"
#include "libremap/identity.hpp"
#include "libremap/observer.hpp"
#include "libremap/rescue_file.hpp"

namespace remap {

/// What stands at the hidden places of a main, held against a rescue file.
struct RescuePlan {
    std::set<std::uint64_t> to_restore;  ///< label, filler or unreadable
    std::set<std::uint64_t> same;        ///< hold what the file has already
    std::set<std::uint64_t> other;       ///< hold something else: left alone
};

/// Compares. Throws Error (unrecognised) if the file is not of the set whose label the main
/// carries, if the main is too small, or if something else has been written over the deciding
/// sector.
RescuePlan plan_rescue(BlockIo& main, const RescueFile& file);

/// Restores the places of the plan: replicas of the payload's signature last, before them the block
/// that decides, before that everything else; each step flushed and read back. A power cut leaves a
/// main that shows nothing of the payload, to which this can be done again, or the payload. Returns
/// the blocks that could not be written. Throws Error if the deciding one could not: it shows
/// nothing then.
std::set<std::uint64_t> restore_hidden(BlockIo& main, const RescueFile& file,
                                       const RescuePlan& plan, Observer& observer);

struct RescueOptions {
    std::string main;
    std::optional<std::string> rescue_file;
    bool write = false;  ///< restore; else only say what would be done
    MachineRoot machine;
    std::string host_root;  ///< put before "/etc/lvm/backup"
};

struct RescueResult {
    std::set<std::uint64_t> failed;
    std::vector<std::string> commands;  ///< what the user should run next
};

/// `remapsetup rescue`: made (everything looked at), told, run.
class RescueJob {
  public:
    /// Opens the main, exclusively if it is to be written to. Throws Error if it is not the main of
    /// a set, if its spare is there, or if the file does not fit.
    explicit RescueJob(RescueOptions options);

    /// What was found and what would be done.
    const std::string& report() const { return report_; }
    /// Is there a rescue file to restore from?
    bool can_restore() const { return file_.has_value(); }

    /// Restores; only with `write`. Throws Error.
    RescueResult run(Observer& observer);

  private:
    void refuse_if_spare_is_there(const Uuid& set) const;
    void describe_restoring();
    void describe_backups();

    RescueOptions options_;
    std::unique_ptr<BlockIo> main_;
    std::optional<RescueFile> file_;
    RescuePlan plan_;
    std::string report_;
    std::vector<std::string> commands_;
};

}  // namespace remap
