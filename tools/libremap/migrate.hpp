// SPDX-License-Identifier: GPL-2.0-or-later
//
// From a spare of the older project to a bare set on a second spare. The older formats do not say
// all that one would have to know; docs/migration.md tells what follows from that.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libremap/adopt.hpp"
#include "libremap/bad_list.hpp"
#include "libremap/block_io.hpp"
#include "libremap/observer.hpp"
#include "libremap/older_format.hpp"
#include "libremap/report.hpp"
#include "libremap/undo_place.hpp"

namespace remap {

/// What becomes of sectors of which the older format does not tell where their data is.
enum class Doubt {
    lost,   ///< they read as an error until they are written
    main,   ///< what is on the main counts
    spare,  ///< what is on the old spare counts, where nothing else speaks against it
};

/// What is made of one entry of the older table.
struct OlderVerdict {
    OlderEntry entry;
    enum class Outcome {
        copied,      ///< its data comes from the old spare
        superseded,  ///< a later entry for the same sector counts
        doubtful,    ///< see Doubt
        conflict,    ///< the entries contradict each other: never taken from the spare
        unknown,     ///< not known which sector it stands for, or one that the main does not have
    } outcome = Outcome::copied;
    std::string reason;  ///< empty when copied
};

const char* outcome_name(OlderVerdict::Outcome outcome);

/// A block of the main that gets an entry.
struct MigratedBlock {
    std::uint64_t block = 0;
    bool lost = false;
    std::uint32_t time = 0;
    /// Where each of its sectors comes from: a sector of the old spare, or the main.
    std::vector<std::optional<std::uint64_t>> sectors;
};

struct MigrateRules {
    std::uint32_t block_size = sector_size;  ///< bytes: 512 or 4096
    /// Sectors that an entry stands for; not given: one, and refused where more may be live.
    std::optional<std::uint32_t> entry_sectors;
    Doubt doubtful = Doubt::lost;
};

struct MigratePlan {
    std::vector<OlderVerdict> verdicts;  ///< in the order of the older table
    std::vector<MigratedBlock> blocks;   ///< ascending

    /// Is there anything but entries that were copied or superseded?
    bool doubts() const;
};

/// Decides about every entry. Reads the old spare and the main, writes nothing. Throws Error: no
/// copy of the table can be verified, the main has another size than recorded, or (usage) entries
/// seem to stand for more sectors than one.
MigratePlan plan_migration(BlockIo& old_spare, BlockIo& main, const OlderSpare& older,
                           const MigrateRules& rules);

/// Writes the bare set that `adopt` describes, with these blocks in it, to the new spare: slots,
/// read back and compared, then the table, then the superblocks, so that a power cut leaves no set
/// or the whole one. Slots that fail become bad. Throws Error.
Superblock write_migrated(BlockIo& old_spare, BlockIo& main, BlockIo& new_spare,
                          const AdoptPlan& adopt, const MigratePlan& plan, Observer& observer);

/// Sectors of the new spare that write_migrated() writes only if slots fail, for as many as may
/// fail while there is an undo file.
std::vector<SectorRun> migration_reserve(const AdoptPlan& adopt, const MigratePlan& plan);

struct MigrateOptions {
    std::string old_spare;
    std::string new_spare;
    std::string main;
    std::string label;
    std::uint32_t block_size = 0;  ///< bytes, image files only; 0: the main's own
    std::optional<std::uint32_t> entry_sectors;
    Doubt doubtful = Doubt::lost;
    bool force = false;
    UndoWish undo;  ///< without a file of its own only where something is overwritten
};

/// One migration: made (everything checked and decided), shown, asked about, run.
class MigrateJob {
  public:
    /// Opens the old spare and the main for reading, the new spare exclusively, and plans. Writes
    /// nothing. Throws Error with what was seen.
    explicit MigrateJob(MigrateOptions options);

    /// What was decided, entry by entry, and what cannot be known.
    void show(Emitter& out) const;
    std::string consequences() const;
    /// damage, if anything is doubtful.
    Exit exit() const;

    /// Does it. Throws Error.
    Superblock run(Observer& observer);

  private:
    void open_devices();
    void choose_block_size();

    MigrateOptions options_;
    std::unique_ptr<BlockIo> old_;
    std::unique_ptr<BlockIo> main_;
    std::unique_ptr<BlockIo> new_;
    OlderSpare older_;
    MigrateRules rules_;
    MigratePlan plan_;
    AdoptPlan adopt_;
    std::string replaced_;  ///< what the new spare holds now
};

}  // namespace remap
