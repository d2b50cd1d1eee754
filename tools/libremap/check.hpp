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

/// Who may repair a finding.
enum class Repair {
    none,      ///< nothing is wrong, or nothing can be done
    preen,     ///< loses nothing: -p does it
    confirmed  ///< a decision: -y or an answer
};

/// One row of the table of problems.
struct Problem {
    const char* id;  ///< "RMF-0102", never reused
    Severity severity;
    Repair repair;
    const char* text;  ///< what is wrong
    const char* fix;   ///< what a repair does, or nullptr
};

/// The whole table, for documentation and tests.
const std::vector<Problem>& problem_table();

struct Finding {
    const Problem* problem = nullptr;
    std::string device;
    std::string structure;                ///< "superblock", "table block", "entry", "label", ...
    std::optional<std::uint64_t> copy;    ///< number of the copy
    std::optional<std::uint64_t> index;   ///< table block, slot or main block
    std::optional<std::uint64_t> sector;  ///< where on the device
    std::string verdict;
    std::string expected;
    std::string found;
    bool repaired = false;
    std::string repair_error;  ///< why a repair that was tried failed
};

/// The finding as one line: id, device, structure, copy, place, what, expected, found.
std::string describe(const Finding& finding);

struct CheckOptions {
    /// Called with blocks done and blocks in all, now and then.
    std::function<void(std::uint64_t, std::uint64_t)> progress;
};

/// One write of a repair: what and where is decided before the first byte is written.
struct PlannedWrite {
    std::size_t finding = 0;  ///< index of the finding it repairs
    bool on_main = false;
    std::uint64_t sector = 0;
    std::vector<std::uint8_t> data;  ///< empty for a whole table copy
    /// For the rebuilding of a dead table copy: its number, else -1.
    int rebuild_copy = -1;
};

struct CheckResult {
    std::vector<Finding> findings;
    std::vector<PlannedWrite> plan;
    SuperblockScan scan;
    std::optional<Superblock> superblock;  ///< the winner
    std::uint64_t slots_used = 0;
    std::uint64_t slots_total = 0;
    /// Set when nothing may be written whatever the findings say, with the reason: newer format,
    /// unknown features.
    std::string refused;
    /// No superblock of ours at all.
    bool unrecognised = false;

    /// Is there anything above a note?
    bool damaged() const;
    /// fsck(8) exit bits for what was found and done.
    int exit_bits() const;
};

/// Checks the metadata on `spare` and, if `main` is not null, label, epoch and hidden blocks of
/// the main. Writes nothing. Throws only for what is not a finding (out of memory).
CheckResult check_set(BlockIo& spare, BlockIo* main, const CheckOptions& options = {});

/// Carries out those writes of the plan whose finding `wanted` accepts, in order, a flush after
/// each, and marks the findings. A write that fails is noted in its finding and the rest goes on.
void apply_plan(CheckResult& result, BlockIo& spare, BlockIo* main,
                const std::function<bool(const Finding&)>& wanted);

/// What a boot does: checks and, only if there is damage, makes the repairs that lose nothing, as
/// `remap-fsck -p`. The devices are opened for writing only then. Messages about damage go to
/// `message`. Returns fsck(8) exit bits; go on only on 0 or 1. Throws nothing: trouble with the
/// devices is a message and fsck::operational.
int preen(const std::string& spare, const std::optional<std::string>& main,
          const std::function<void(const std::string&)>& message);

}  // namespace remap
