// SPDX-License-Identifier: GPL-2.0-or-later
//
// Making a spare's metadata again from a dump. The data in the slots is not in a dump.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/observer.hpp"
#include "libremap/set_visitor.hpp"
#include "libremap/undo_place.hpp"

namespace remap {

/// Where the data is that the dump's entries stand for.
enum class SlotData {
    unknown,   ///< nobody said
    in_place,  ///< in the slots of the target
    lost,      ///< nowhere: every mapped entry becomes lost
};

/// What a target holds of the set that a dump describes.
struct RestoreTarget {
    /// Superblocks or table blocks of this set and life, written for these places, were found: its
    /// slots are this set's.
    bool same_spare = false;
    /// Every copy of everything is there and says what the dump says.
    bool identical = false;
    /// The newest that was found, and where.
    std::uint64_t newest_generation = 0;
    std::uint64_t newest_sector = 0;
    std::vector<std::string> trouble;  ///< sectors that could not be read
};

/// Reads the places of the set's superblocks and table. Writes nothing.
RestoreTarget look_at_target(BlockIo& target, const StagedSet& set);

/// Throws Error (unrecognised) if something newer than the dump is on the target or the set does
/// not fit on it.
void require_restorable(BlockIo& target, const StagedSet& set, const RestoreTarget& found);

/// Every mapped entry becomes lost, under new generations.
void lose_slots(StagedSet& set);

/// Writes superblocks and table so that a power cut leaves the former set, none, or the new one:
/// old superblocks are wiped, then the table is written, copy after copy, then the superblocks.
/// Table blocks of the same life which the set does not have are wiped, because they would verify.
/// Throws IoError.
void write_set(BlockIo& target, const StagedSet& set, Observer& observer);

struct RestoreOptions {
    std::string dump;  ///< path, or "-"
    std::string target;
    std::optional<std::string> main;  ///< compare with its label
    SlotData slots = SlotData::unknown;
    bool force = false;
    UndoWish undo;  ///< without a file of its own only where something is overwritten
};

/// One restore: made (everything checked), asked about, run.
class RestoreJob {
  public:
    /// Reads and checks the whole dump, opens the target exclusively and checks all that must be
    /// refused. Writes nothing. Throws Error with what was seen.
    explicit RestoreJob(RestoreOptions options);

    /// What will be lost, and what is not in the dump, for the question to the user.
    std::string consequences() const;

    const StagedSet& set() const { return set_; }

    /// Does it. Throws Error.
    void run(Observer& observer);

  private:
    void inspect_target();
    void inspect_main();
    void decide_slots();

    RestoreOptions options_;
    StagedSet set_;
    std::unique_ptr<BlockIo> target_;
    RestoreTarget found_;
    std::string replaced_;  ///< what the target holds now
};

}  // namespace remap
