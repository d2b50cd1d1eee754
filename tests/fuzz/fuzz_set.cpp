// SPDX-License-Identifier: GPL-2.0-or-later
//
// A whole set through dump, check and repair. Input: flags, then hostile_set.hpp's. What is
// promised whatever lies on the disks: readers do not write; a repair that is said to lose nothing
// loses nothing; a second repair finds nothing to do (a third, where the superblock was made anew);
// what fsck calls sound can be opened.
#include <algorithm>
#include <map>
#include <sstream>
#include <string_view>

#include "hostile_set.hpp"
#include "libremap/check.hpp"
#include "libremap/dump.hpp"
#include "libremap/error.hpp"
#include "libremap/text.hpp"

using namespace remap;
using namespace std::string_view_literals;

namespace {

template <typename EmitterType>
std::string dumped(BlockIo& io) {
    std::ostringstream out;
    EmitterType emitter(out);
    try {
        dump_device(io, emitter);
    } catch (const Error&) {
        return {};
    }
    return out.str();
}

void dump(BlockIo& io) {
    const std::string json = dumped<JsonEmitter>(io);
    if (!json.empty()) {
        fuzz::check_json(json);
    }
    fuzz::check_text(dumped<TextEmitter>(io));
}

/// What a program that only reads would make of the table: block, slot and state of each entry
/// that stands for its block.
struct Meaning {
    std::map<std::uint64_t, Mapping> by_block;

    explicit Meaning(const CheckResult& result) {
        for (const Mapping& mapping : live_mappings(result.table)) {
            by_block.emplace(mapping.block, mapping);
        }
    }

    /// Is everything that was certain in `before` as it was?
    bool keeps(const Meaning& before) const {
        return std::all_of(before.by_block.begin(), before.by_block.end(), [&](const auto& entry) {
            const Mapping& old = entry.second;
            const auto now = by_block.find(entry.first);
            return old.undecidable ||
                   (now != by_block.end() && !now->second.undecidable &&
                    now->second.slot == old.slot && now->second.entry.state() == old.entry.state());
        });
    }
};

bool complete(const CheckResult& result) {
    return result.superblock && result.superblock->head.state == REMAP_STATE_COMPLETE;
}

/// Was the superblock made anew? What follows from it is planned once it is accepted.
bool made_anew(const CheckResult& result) {
    return std::any_of(result.findings.begin(), result.findings.end(),
                       [](const Finding& finding) { return finding.problem->id == "RMF-0119"sv; });
}

void check_findings(const CheckResult& result) {
    for (const Finding& finding : result.findings) {
        fuzz::promise(finding.problem != nullptr && !describe(finding).empty(),
                      "a finding of nothing");
    }
    for (const PlannedWrite& write : result.plan) {
        fuzz::promise(write.finding < result.findings.size(), "a step that repairs no finding");
    }
}

/// What can be opened after fsck said that all is well.
void check_opens(const CheckResult& result, BlockIo& spare) {
    if (result.exit_bits() != fsck::ok || !complete(result)) {
        return;
    }
    try {
        const Superblock superblock = load_superblock(spare);
        static_cast<void>(load_intact_table(spare, superblock));
    } catch (const Error& error) {
        fuzz::promise(false, cat("called sound, but: ", error.what()));
    }
}

void check_and_repair(fuzz::HostileSet& set, bool with_main, bool everything) {
    BlockIo* main = with_main ? &set.main : nullptr;
    const auto wanted = [everything](const Finding& finding) {
        const Repair repair = finding.problem->repair;
        return repair == Repair::preen || (everything && repair == Repair::confirmed);
    };
    set.freeze("a check only reads");
    CheckResult before = check_set(set.spare, main);
    check_findings(before);
    check_opens(before, set.spare);
    if (!before.refused.empty()) {
        return;
    }
    set.thaw();
    const Meaning meaning(before);
    const bool was_complete = complete(before);
    apply_plan(before, set.spare, main, wanted);

    set.freeze("a check only reads");
    CheckResult after = check_set(set.spare, main);
    check_findings(after);
    check_opens(after, set.spare);
    set.thaw();
    if (was_complete && !everything) {
        fuzz::promise(after.superblock.has_value(), "a repair without loss lost the superblock");
        fuzz::promise(Meaning(after).keeps(meaning), "a repair without loss changed a mapping");
    }
    const bool faults = !set.spare.bad_reads.empty() || !set.spare.bad_writes.empty() ||
                        !set.main.bad_writes.empty();
    if (faults || !after.refused.empty()) {
        return;
    }
    if (made_anew(before)) {
        apply_plan(after, set.spare, main, wanted);
        after = check_set(set.spare, main);
    }
    set.freeze("the second repair has nothing left to do");
    apply_plan(after, set.spare, main, wanted);
    set.thaw();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const std::uint8_t flags = input.byte();
    fuzz::HostileSet set(input);
    if ((flags & 4) != 0) {
        set.freeze("a dump only reads");
        dump(set.spare);
        dump(set.main);
        set.thaw();
    }
    check_and_repair(set, (flags & 1) != 0, (flags & 2) != 0);
    return 0;
}
