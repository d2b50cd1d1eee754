// SPDX-License-Identifier: GPL-2.0-or-later
//
// Ending a set: everything back to the main, the deciding sector last of all.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"
#include "libremap/identity.hpp"
#include "libremap/observer.hpp"

namespace remap {

struct ReleaseResult {
    std::uint64_t written = 0;        ///< blocks put back
    std::vector<std::uint64_t> lost;  ///< blocks that were lost and are zeroes now
};

/// Releases a complete set. Refused, with a list: lost blocks unless `accept_loss`; blocks that
/// cannot be read from the spare or written to the main, after which the set is complete again.
/// Throws Error; what a power cut leaves adopt_recover() ends.
ReleaseResult release_set(BlockIo& main, BlockIo& spare, bool accept_loss, Observer& observer);

struct ReleaseOptions {
    std::string spare;
    std::optional<std::string> main;  ///< found by its label if not given
    bool accept_loss = false;
    std::optional<std::string> remaptab;  ///< "none": none; not given: by the kind of device
};

/// `remapsetup release`: made (devices found and opened), asked about, run.
class ReleaseJob {
  public:
    /// Finds and opens both members exclusively and verifies that they belong together. Throws
    /// Error.
    explicit ReleaseJob(ReleaseOptions options);

    /// What will happen, for the question to the user.
    std::string consequences() const;

    /// Does it, and takes the set out of remaptab(5). Throws Error.
    ReleaseResult run(Observer& observer);

    const std::string& main_name() const { return main_->name(); }

  private:
    ReleaseOptions options_;
    std::unique_ptr<BlockIo> main_;
    std::unique_ptr<BlockIo> spare_;
    Superblock superblock_;
};

}  // namespace remap
