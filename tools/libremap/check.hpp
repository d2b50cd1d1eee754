// SPDX-License-Identifier: GPL-2.0-or-later
//
// Check and repair of a set's metadata. A check reads and makes findings and a plan; only
// apply_plan writes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/metadata.hpp"
#include "libremap/salvage.hpp"

namespace remap {

/// fsck(8)'s exit bits.
namespace fsck {
constexpr int ok = 0;
constexpr int corrected = 1;
constexpr int uncorrected = 4;
constexpr int operational = 8;
constexpr int usage = 16;
constexpr int cancelled = 32;
}  // namespace fsck

enum class Severity {
    note,     ///< not damage: exit 0
    warning,  ///< damage that costs redundancy, or will
    error,    ///< damage that costs data, or keeps the set from opening
};

const char* severity_name(Severity severity);

/// Who may repair a finding.
enum class Repair {
    none,       ///< nothing is wrong, or nothing can be done
    preen,      ///< loses nothing: -p does it
    confirmed,  ///< a decision: -y, or an answer
    on_request  ///< only what asks for exactly this, never -y
};

/// One row of the table of problems.
struct Problem {
    const char* id;  ///< "RMF-0101", never reused
    Severity severity;
    Repair repair;
    const char* text;  ///< what is wrong
    const char* fix;   ///< what a repair does, or nullptr
};

/// The whole table, by id.
const std::vector<Problem>& problem_table();

/// The row with that id. Throws std::logic_error if there is none.
const Problem& problem(const std::string& id);

struct Finding {
    const Problem* problem = nullptr;
    std::string device;
    std::string structure;                ///< "superblock", "table block", "slot", "label", …
    std::optional<std::uint64_t> index;   ///< table block, slot or main block
    std::uint64_t count = 1;              ///< so many from `index` on
    std::optional<std::uint64_t> copy;    ///< number of the copy
    std::optional<std::uint64_t> sector;  ///< where on the device
    std::string verdict;                  ///< verdict_name() of a copy, or empty
    std::string field;
    std::string expected;
    std::string found;
    bool repairable = false;   ///< a repair is planned
    bool repaired = false;     ///< and was carried out
    std::string repair_error;  ///< why a repair that was tried failed
};

/// The finding as one line: id, device, structure, copy, place, what, expected, found.
std::string describe(const Finding& finding);

/// One step of a repair. What and where is decided before the first byte is written; the bytes
/// follow from the superblock and the table that were checked.
struct PlannedWrite {
    enum class Kind {
        superblock_copy,  ///< copy `copy` from the winner
        superblock,       ///< all superblock copies
        table_copy,       ///< `count` blocks from `index` on of copy `copy` from the winner
        table_block,      ///< `count` blocks from `index` on of all live copies
        rebuild_copy,     ///< all of dead table copy `copy`, then the superblocks
        extend_table,     ///< table length `index`, on the superblocks
        salvage,          ///< CheckResult::loss: superblocks read-only first, then table blocks
        confirm_loss,     ///< superblocks no longer read-only
        label,            ///< label number `copy` on the main
        filler,           ///< in block `index` of the main
        recover,          ///< finish or roll back an adoption or release
    };
    Kind kind = Kind::superblock_copy;
    std::size_t finding = 0;  ///< index of the finding that it repairs
    unsigned int copy = 0;
    std::uint64_t index = 0;
    std::uint64_t count = 1;

    bool on_main() const {
        return kind == Kind::label || kind == Kind::filler || kind == Kind::recover;
    }
};

/// What lies at the places of one copy of a structure, or of `count` of them in a row.
struct CopyVerdict {
    std::string device;
    std::string structure;  ///< "superblock", "table block", "label" or "filler"
    std::optional<unsigned int> copy;
    std::optional<std::uint64_t> index;  ///< table block, or block of the main
    std::uint64_t count = 1;
    std::uint64_t sector = 0;  ///< of the first
    Verdict verdict = Verdict::absent;
    std::optional<std::uint64_t> generation;  ///< of a valid superblock or label
    int error = 0;                            ///< errno, when unreadable
};

struct CheckResult {
    std::vector<Finding> findings;
    std::vector<CopyVerdict> copies;  ///< every copy of every structure that was looked at
    std::vector<PlannedWrite> plan;
    SuperblockScan scan;
    std::optional<Superblock> superblock;  ///< the winner
    SuperblockBytes superblock_bytes{};    ///< one copy of it
    Table table;                           ///< empty without a winner
    Loss loss;                             ///< what RMF-0216 stands for
    std::optional<Label> label;            ///< the newest of the main, if one was given
    std::uint64_t slots_used = 0;
    std::uint64_t slots_total = 0;  ///< without the reserved ones
    /// Why nothing may be written whatever the findings say (newer format, unknown features, a
    /// device cut short, superblocks of two sets), or empty.
    std::string refused;
    /// There is nothing of ours, or it is of a newer format: fsck::operational.
    bool unknown = false;
    /// The check was ended by Cancelled: there may be more to find, and nothing is planned.
    bool cancelled = false;

    /// Is there anything above a note?
    bool damaged() const;
    /// fsck(8) exit bits for what was found and done. With `preened`, a loss of redundancy that
    /// could not be repaired (the sector cannot be written any more) does not count as uncorrected,
    /// nor does a label or filler that somebody overwrote, which -p does not write again: the set
    /// is safe to open, and a boot must not stop for it for ever.
    int exit_bits(bool preened = false) const;
};

/// Thrown by a Progress that wants the check to end.
struct Cancelled {};

/// Called with table blocks done and in all.
using Progress = std::function<void(std::uint64_t, std::uint64_t)>;

/// Checks the metadata on `spare` and, if `main` is not null, label, epoch and hidden blocks of
/// the main. Writes nothing. Never throws for what it finds.
CheckResult check_set(BlockIo& spare, BlockIo* main, const Progress& progress = {});

/// Which findings a repair may touch.
using Wanted = std::function<bool(const Finding&)>;

/// Carries out those steps of the plan whose finding is `wanted`, in order, with a flush after each
/// write, and marks the findings. A step that fails is noted in its finding and the rest goes on.
void apply_plan(CheckResult& result, BlockIo& spare, BlockIo* main, const Wanted& wanted);

/// What a boot does: checks and, only if there is damage, makes the repairs that lose nothing, as
/// `remap-fsck -p`. Devices are opened for writing only then. What is found and done goes to
/// `message`, line by line. Returns fsck(8) exit bits: go on only on 0 or 1. Throws nothing:
/// trouble with the devices is a message and fsck::operational.
int preen(const std::string& spare, const std::optional<std::string>& main,
          const std::function<void(const std::string&)>& message);

/// What is done before a set is opened for reading only: as preen, but nothing is written, and only
/// findings of severity error count. Returns fsck::ok, fsck::uncorrected or fsck::operational.
/// Throws nothing.
int inspect(const std::string& spare, const std::optional<std::string>& main,
            const std::function<void(const std::string&)>& message);

}  // namespace remap
