// SPDX-License-Identifier: GPL-2.0-or-later
//
// Ending a set: everything back to the main, the deciding sector last of all; or everything to
// another disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/copy_view.hpp"
#include "libremap/format.hpp"
#include "libremap/identity.hpp"
#include "libremap/observer.hpp"
#include "libremap/set_view.hpp"

namespace remap {

struct ReleaseResult {
    std::uint64_t written = 0;        ///< blocks put back, or copied to the other disk
    std::vector<std::uint64_t> lost;  ///< blocks that were lost and are zeroes now
};

/// Releases a complete set. Refused, with a list: lost blocks unless `accept_loss`; blocks that
/// cannot be read from the spare or written to the main, after which the set is complete again.
/// Throws Error; what a power cut leaves adopt_recover() ends.
ReleaseResult release_set(BlockIo& main, BlockIo& spare, bool accept_loss, Observer& observer);

struct ReleaseOptions {
    std::string spare;
    std::optional<std::string> main;  ///< found by its label if not given
    bool no_label = false;  ///< with `to`: `main` is the right one if its labels cannot be read
    bool accept_loss = false;
    std::optional<std::string> to;        ///< copy to this disk instead
    bool force = false;                   ///< overwrite it although it holds something
    std::optional<std::string> remaptab;  ///< "none": none; not given: by the kind of device
};

/// `remapsetup release`: made (devices found and opened), asked about, run.
class ReleaseJob {
  public:
    /// Finds and opens both members exclusively, for a copy only for reading, and verifies that
    /// they belong together, and that the other disk can take the copy. Throws Error.
    explicit ReleaseJob(ReleaseOptions options);

    /// What will happen, for the question to the user.
    std::string consequences() const;

    /// Does it, and takes the set out of remaptab(5). Throws Error.
    ReleaseResult run(Observer& observer);

    /// The device that holds the data afterwards.
    const std::string& data_name() const { return target_ ? target_->name() : main_->name(); }

  private:
    void open_target();
    CopyOptions copy_options() const;
    void unlist(Observer& observer) const;

    ReleaseOptions options_;
    std::unique_ptr<BlockIo> main_;
    std::unique_ptr<BlockIo> spare_;
    std::unique_ptr<BlockIo> target_;  ///< of a copy
    std::optional<SetView> view_;      ///< for a copy
    Superblock superblock_;
};

}  // namespace remap
