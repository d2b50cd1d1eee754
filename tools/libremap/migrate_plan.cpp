// SPDX-License-Identifier: GPL-2.0-or-later
//
// What each entry of an older table is worth.
#include <algorithm>
#include <array>
#include <map>

#include "libremap/error.hpp"
#include "libremap/migrate.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

using Outcome = OlderVerdict::Outcome;
using SectorBytes = std::array<std::uint8_t, sector_size>;

bool all_zero(ConstBytes bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

/// What becomes of one sector of the main.
struct SectorFate {
    enum { from_spare, lost, on_main } where = on_main;
    std::uint64_t spare = 0;
    std::uint64_t time = 0;
};

class Planner {
  public:
    Planner(BlockIo& old_spare, BlockIo& main, const OlderSpare& older, const MigrateRules& rules)
        : old_(old_spare), main_(main), older_(older), table_(*older.best()), rules_(rules) {}

    MigratePlan plan();

  private:
    std::uint64_t length() const { return rules_.entry_sectors.value_or(1); }
    std::uint64_t reserved() const {
        return older_.kind == OlderKind::dmr4 ? dmr4_reserved : dmremap3_reserved;
    }
    void judge(OlderVerdict& verdict);
    std::string structural_doubt(const OlderEntry& entry) const;
    std::string conflict_of(const OlderEntry& entry) const;
    bool in_all_copies(const OlderEntry& entry) const;
    std::string data_doubt(const OlderEntry& entry, std::uint64_t offset);
    void require_length(const OlderEntry& entry);
    void settle(const OlderVerdict& verdict);
    void decide(std::uint64_t sector, const SectorFate& fate);
    std::vector<MigratedBlock> blocks() const;

    BlockIo& old_;
    BlockIo& main_;
    const OlderSpare& older_;
    const OlderCopy& table_;
    const MigrateRules& rules_;
    std::map<std::uint64_t, std::size_t> last_;  ///< the last entry for each original
    std::map<std::uint64_t, SectorFate> fates_;  ///< by sector of the main
};

bool Planner::in_all_copies(const OlderEntry& entry) const {
    return std::all_of(older_.copies.begin(), older_.copies.end(), [&](const OlderCopy& copy) {
        const bool other = copy.verdict == Verdict::stale || copy.verdict == Verdict::conflict;
        return !other ||
               std::find(copy.entries.begin(), copy.entries.end(), entry) != copy.entries.end();
    });
}

/// Does any other entry lay claim to the same sectors of the spare or of the main?
std::string Planner::conflict_of(const OlderEntry& entry) const {
    const auto overlap = [this](std::uint64_t a, std::uint64_t b) {
        return a < b + length() && b < a + length();
    };

    for (const OlderEntry& other : table_.entries) {
        if (other.original == entry.original)
            continue;
        if (overlap(other.spare, entry.spare))
            return cat("its spare sectors are also those of main sector ", other.original);
        if (overlap(other.original, entry.original))
            return cat("its sectors are also those of the entry for main sector ", other.original);
    }
    return {};
}

/// What speaks against the entry without a look at its data.
std::string Planner::structural_doubt(const OlderEntry& entry) const {
    if (entry.spare < reserved())
        return cat("its spare sector lies in the older metadata, which was written over it");
    if (entry.spare > old_.size() || old_.size() - entry.spare < length())
        return cat("its spare sector lies beyond the end of the old spare, ", old_.size());
    for (const OlderCopy& copy : older_.copies) {
        if (copy.kind == OlderKind::script && copy.sector >= entry.spare &&
            copy.sector < entry.spare + length())
            return cat("the setup script wrote over its spare sector ", copy.sector);
    }
    if (!in_all_copies(entry))
        return "other valid copies of the table do not have it";
    return {};
}

/// What speaks against one sector once it is read.
std::string Planner::data_doubt(const OlderEntry& entry, std::uint64_t offset) {
    SectorBytes spare;
    SectorBytes main;

    if (old_.try_read(entry.spare + offset, spare) != 0)
        return cat("spare sector ", entry.spare + offset, " cannot be read");
    if (!all_zero(spare))
        return {};
    if (main_.try_read(entry.original + offset, main) != 0)
        return "its spare sector holds zeroes, as if it was never written, and its main sector "
               "cannot be read";
    if (!all_zero(main))
        return "its spare sector holds zeroes, as if it was never written, and its main sector "
               "does not";
    return {};
}

/// With no length given an entry stands for one sector, which must not be a guess.
void Planner::require_length(const OlderEntry& entry) {
    SectorBytes spare;
    SectorBytes main;
    const std::uint64_t next = entry.spare + 1;
    const bool claimed = std::any_of(table_.entries.begin(), table_.entries.end(),
                                     [next](const OlderEntry& e) { return e.spare == next; });

    if (rules_.entry_sectors || claimed || next >= old_.size() ||
        entry.original + 1 >= main_.size() || old_.try_read(next, spare) != 0 || all_zero(spare))
        return;
    if (main_.try_read(entry.original + 1, main) == 0 && main == spare)
        return;
    throw Error(Exit::usage,
                cat(old_.name(), ": sector ", next,
                    ": expected nothing behind the spare sector of "
                    "main sector ",
                    entry.original,
                    ", found data: entries may stand for more than one sector, which the older "
                    "format does not record. Say how many with --entry-sectors: 8 where requests "
                    "were 4 KiB, 1 if that data is something else"));
}

void Planner::judge(OlderVerdict& verdict) {
    const OlderEntry& entry = verdict.entry;

    if (older_.kind == OlderKind::dmremap3 && entry.original == 0) {
        verdict.outcome = Outcome::unknown;
        verdict.reason = "the older header was written over its main sector";
    } else if (entry.original >= main_.size() || main_.size() - entry.original < length()) {
        verdict.outcome = Outcome::unknown;
        verdict.reason = cat("the main has only ", main_.size(), " sectors");
    } else if (verdict.reason = conflict_of(entry); !verdict.reason.empty()) {
        verdict.outcome = Outcome::conflict;
    } else if (verdict.reason = structural_doubt(entry); !verdict.reason.empty()) {
        // Nothing there can be the data, whatever the user prefers.
        verdict.outcome = in_all_copies(entry) ? Outcome::conflict : Outcome::doubtful;
    } else {
        require_length(entry);
    }
}

void Planner::decide(std::uint64_t sector, const SectorFate& fate) {
    SectorFate& now = fates_[sector];

    // Where entries contradict each other the worse fate stands.
    if (now.where != SectorFate::lost)
        now = fate;
}

void Planner::settle(const OlderVerdict& verdict) {
    const OlderEntry& entry = verdict.entry;
    const bool all_doubtful =
        verdict.outcome == Outcome::doubtful && !structural_doubt(entry).empty();

    for (std::uint64_t i = 0; i < length(); i++) {
        SectorFate fate{SectorFate::from_spare, entry.spare + i, entry.time};
        const bool conflict = verdict.outcome == Outcome::conflict;
        const bool doubtful =
            verdict.outcome == Outcome::doubtful && (all_doubtful || !data_doubt(entry, i).empty());
        if ((conflict || doubtful) && rules_.doubtful == Doubt::main)
            fate.where = SectorFate::on_main;
        else if (conflict || (doubtful && rules_.doubtful == Doubt::lost))
            fate.where = SectorFate::lost;
        // Whatever is preferred, what cannot be read is not there.
        SectorBytes bytes;
        if (fate.where == SectorFate::from_spare && old_.try_read(fate.spare, bytes) != 0)
            fate.where = SectorFate::lost;
        decide(entry.original + i, fate);
    }
}

std::vector<MigratedBlock> Planner::blocks() const {
    const std::uint64_t unit = rules_.block_size / sector_size;
    std::vector<MigratedBlock> blocks;

    for (const auto& [sector, fate] : fates_) {
        if (fate.where == SectorFate::on_main)
            continue;
        const std::uint64_t block = sector / unit;
        if (blocks.empty() || blocks.back().block != block)
            blocks.push_back({block, false, 0, std::vector<std::optional<std::uint64_t>>(unit)});
        MigratedBlock& to = blocks.back();
        to.lost |= fate.where == SectorFate::lost;
        to.time = std::max(
            to.time, static_cast<std::uint32_t>(std::min<std::uint64_t>(fate.time, 0xffffffffU)));
        if (fate.where == SectorFate::from_spare)
            to.sectors[sector % unit] = fate.spare;
    }
    return blocks;
}

MigratePlan Planner::plan() {
    MigratePlan plan;

    for (std::size_t i = 0; i < table_.entries.size(); i++)
        last_[table_.entries[i].original] = i;
    for (std::size_t i = 0; i < table_.entries.size(); i++) {
        OlderVerdict verdict{table_.entries[i], Outcome::copied, {}};
        const bool superseded = last_[verdict.entry.original] != i;
        if (superseded) {
            verdict.outcome = Outcome::superseded;
            verdict.reason = "a later entry for the same sector counts";
        } else {
            judge(verdict);
        }
        for (std::uint64_t k = 0; verdict.outcome == Outcome::copied && k < length(); k++) {
            verdict.reason = data_doubt(verdict.entry, k);
            if (!verdict.reason.empty())
                verdict.outcome = Outcome::doubtful;
        }
        plan.verdicts.push_back(verdict);
    }
    for (const OlderVerdict& verdict : plan.verdicts) {
        if (verdict.outcome != Outcome::superseded && verdict.outcome != Outcome::unknown)
            settle(verdict);
    }
    plan.blocks = blocks();
    return plan;
}

}  // namespace

const char* outcome_name(Outcome outcome) {
    switch (outcome) {
        case Outcome::copied:
            return "copied";
        case Outcome::superseded:
            return "superseded";
        case Outcome::doubtful:
            return "doubtful";
        case Outcome::conflict:
            return "conflict";
        default:
            return "unknown";
    }
}

bool MigratePlan::doubts() const {
    return std::any_of(verdicts.begin(), verdicts.end(), [](const OlderVerdict& verdict) {
        return verdict.outcome != Outcome::copied && verdict.outcome != Outcome::superseded;
    });
}

MigratePlan plan_migration(BlockIo& old_spare, BlockIo& main, const OlderSpare& older,
                           const MigrateRules& rules) {
    const OlderCopy* best = older.best();

    if (!best) {
        // To say so is to say that the main is right wherever it can be read.
        if (older.kind == OlderKind::script && rules.doubtful == Doubt::main)
            return {};
        throw Error(Exit::unrecognised,
                    cat(old_spare.name(), ": expected a table of the older project, found ",
                        older.kind == OlderKind::script
                            ? "only headers of its setup script, which have none; with --doubtful "
                              "main everything is taken from the main"
                            : "no copy that can be verified"));
    }
    if (best->main_size != 0 && best->main_size != main.size())
        throw Error(Exit::unrecognised,
                    cat(main.name(), ": is not the main of this spare: expected ", best->main_size,
                        " sectors, found ", main.size()));
    // What only an older copy has may be what is true: the sequence does not tell which is newer.
    if (older.disagree)
        throw Error(Exit::unrecognised,
                    cat(old_spare.name(),
                        ": expected valid copies with the same entries, found "
                        "different ones; which are the newest is not recorded"));
    return Planner(old_spare, main, older, rules).plan();
}

}  // namespace remap
