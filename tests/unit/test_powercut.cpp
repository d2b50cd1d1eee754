// SPDX-License-Identifier: GPL-2.0-or-later
//
// Any instant may be the last, also for remap-fsck: each class of repair, and the undo of each, is
// cut at every write, with torn writes and with those of one flush window in any order.
#include <functional>
#include <map>
#include <string>

#include "catch.hpp"
#include "libremap/rehearsal.hpp"
#include "replay.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;
using fixture::Pair;

namespace {

struct Case {
    const char* name;
    std::function<void(SampleSet&)> damage;
    Repair most = Repair::preen;  ///< what may be repaired, as with -p, -y, --confirm-loss
};

/// A set of three table blocks, with room behind them.
SampleSet sample() {
    return SampleSet(SampleOptions{2048, 2048, 9, 8, 600, 3});
}

void flip_entry(SampleSet& s, std::uint64_t index, unsigned int copy, std::uint64_t at) {
    flip(s.spare, s.superblock.table_sector(index, copy), (64 + at * 16) * 8 + 3);
}

void lose_superblocks(SampleSet& s) {
    for (const std::uint64_t sector : s.superblock.sb_sector)
        scribble(s.spare, sector, 8);
}

const std::vector<Case>& cases() {
    static const std::vector<Case> all = {
        {"four superblocks",
         [](SampleSet& s) {
             for (unsigned int i = 0; i < 4; i++)
                 scribble(s.spare, s.superblock.sb_sector.at(i), 8);
         }},
        {"superblocks damaged in different sectors",
         [](SampleSet& s) {
             for (unsigned int i = 0; i < REMAP_SB_COPIES; i++)
                 flip(s.spare, s.superblock.sb_sector.at(i), i % 2 != 0 ? 100 : 5000);
         }},
        {"a superblock of another set",
         [](SampleSet& s) {
             const SampleSet other(SampleOptions{2048, 2048, 9, 8, 20, 77});
             write_superblock_copy(s.spare, other.superblock, 2);
         },
         Repair::confirmed},
        {"no superblock at all", lose_superblocks, Repair::confirmed},
        {"an old and a misplaced superblock",
         [](SampleSet& s) {
             const auto old = s.spare.BlockIo::read(s.superblock.sb_sector[4], 8);
             s.write_all();
             s.spare.write(s.superblock.sb_sector[0], old);
             s.spare.write(s.superblock.sb_sector[3], old);
         }},
        {"one whole table copy",
         [](SampleSet& s) {
             scribble(s.spare, s.superblock.segment().table_start[0],
                      s.superblock.table_length * 8);
         }},
        {"parts of both table copies",
         [](SampleSet& s) {
             flip_entry(s, 0, 0, 7);
             flip_entry(s, 1, 1, 9);
             scribble(s.spare, s.superblock.sb_sector[4], 1);
         }},
        {"table copies damaged in different sectors",
         [](SampleSet& s) {
             flip_entry(s, 1, 0, 3);
             flip_entry(s, 1, 1, 200);
         }},
        {"entries that nobody can prove",
         [](SampleSet& s) {
             flip_entry(s, 1, 0, 40);
             flip_entry(s, 1, 1, 41);
             flip_entry(s, 2, 0, 7);
         },
         Repair::confirmed},
        {"a loss that is confirmed",
         [](SampleSet& s) {
             s.superblock.head.flags |= REMAP_FLAG_READ_ONLY;
             s.superblock.head.generation++;
             write_superblock(s.spare, s.superblock);
         },
         Repair::on_request},
        {"a dead table copy",
         [](SampleSet& s) {
             s.superblock.live_copies = 1;
             s.superblock.head.generation++;
             write_superblock(s.spare, s.superblock);
             scribble(s.spare, s.superblock.segment().table_start[1], 24);
         }},
        {"a dead first copy and damaged superblocks",
         [](SampleSet& s) {
             s.superblock.live_copies = 2;
             s.superblock.head.generation++;
             write_superblock(s.spare, s.superblock);
             scribble(s.spare, s.superblock.sb_sector[2], 8);
         }},
        {"used table blocks after the length",
         [](SampleSet& s) {
             write_table_block(
                 s.spare, s.superblock, s.superblock.table_length, s.generation + 1,
                 std::vector{Entry::make(REMAP_ENTRY_MAPPED, 1999, REMAP_CAUSE_WRITE, 5, 999, 1)});
         },
         Repair::confirmed},
        {"labels and filler",
         [](SampleSet& s) {
             flip(s.main, 0, 1000);
             scribble(s.main, 2, 3);
             scribble(s.main, s.superblock.label_sector[1], 1);
         },
         Repair::confirmed},
    };
    return all;
}

Wanted wanted(const Case& c) {
    return [&c](const Finding& f) {
        return f.problem->repair == Repair::preen || f.problem->repair == c.most;
    };
}

fixture::Job repair_of(const Case& c) {
    return [&c](BlockIo& main, BlockIo& spare) {
        CheckResult result = check_set(spare, &main);
        apply_plan(result, spare, &main, wanted(c));
    };
}

Pair damaged(const Case& c) {
    SampleSet set = sample();
    c.damage(set);
    return {set.main.content(), set.spare.content(), 512};
}

bool read_only(const Pair& pair) {
    MemoryIo spare("spare", pair.spare);
    return (load_superblock(spare).head.flags & REMAP_FLAG_READ_ONLY) != 0;
}

/// Each block as before or as after; a set that opened goes on to; what lost something is not
/// written to.
fixture::Holds one_or_the_other(const Pair& before, const Pair& after) {
    const auto old = fixture::meaning(before);
    const auto repaired = fixture::meaning(after);
    REQUIRE(repaired);
    const bool lossy = old != repaired && read_only(after);
    return [old, repaired, lossy](const Pair& state) {
        const auto now = fixture::meaning(state);
        if (!now)
            return !old;
        return fixture::between(*now, old.value_or(*repaired), *repaired) &&
               (!lossy || read_only(state));
    };
}

fixture::LoggedRun logged(const Pair& before, const Case& c) {
    fixture::LoggedRun made;
    MemoryIo spare("spare", before.spare);
    MemoryIo main("main", before.main);
    CheckResult result = check_set(spare, &main);
    const Rehearsal rehearsal = rehearse(result, spare, &main, wanted(c));
    const UndoHeader header = undo_header(*result.superblock, rehearsal);
    MemorySink sink;
    write_undo(sink, header, rehearsal.journal, spare, &main);
    fixture::LoggedIo on_spare(spare, false, made.log);
    fixture::LoggedIo on_main(main, true, made.log);
    made.refused =
        apply_rehearsed(result, rehearsal, on_spare, &on_main, wanted(c), sink, header.id);
    made.after = {main.content(), spare.content(), 512};
    made.undo = parse_undo(sink.bytes, "undo");
    return made;
}

}  // namespace

TEST_CASE("a power cut in any repair leaves what was there or what the repair makes of it",
          "[fsck][crash][long]") {
    for (const Case& c : cases()) {
        const Pair before = damaged(c);
        const auto log = fixture::record(before, repair_of(c));
        const Pair after = fixture::run(before, repair_of(c));
        const auto means = fixture::meaning(after);
        const auto finished = [&](const Pair& state) { return fixture::meaning(state) == means; };
        const auto found =
            fixture::replay(before, log, repair_of(c), one_or_the_other(before, after), finished);
        INFO(c.name << ": " << log.size() << " events, " << found.states << " states, "
                    << found.wrong << " wrong, " << found.unfinished << " not repaired");
        CHECK_FALSE(log.empty());
        CHECK(found.good());
    }
}

TEST_CASE("a power cut in a repair or in its undo keeps no undo from giving back identical bytes",
          "[undo][crash][long]") {
    for (const Case& c : cases()) {
        const Pair before = damaged(c);
        const fixture::LoggedRun made = logged(before, c);
        const auto found = fixture::replay_undo(before, made, one_or_the_other(before, made.after));
        INFO(c.name << ": " << found.states << " states, " << found.wrong << " wrong, "
                    << found.unfinished << " not given back");
        CHECK(made.refused == 0);
        CHECK(found.good());
    }
}

TEST_CASE("no repair writes to a good copy before the bad one is repaired") {
    for (const Case& c : cases()) {
        SampleSet set = sample();
        c.damage(set);
        const CheckResult before = check_set(set.spare, &set.main);
        RecordingIo log(set.spare);
        INFO(c.name);

        repair(log, &set.main);
        if (log.events().empty())
            continue;
        // The first write goes to a copy that the check did not call current.
        const std::uint64_t first = log.events().front().sector;
        for (const SuperblockCopy& copy : before.scan.copies) {
            if (copy.sector == first)
                CHECK(copy.verdict != Verdict::current);
        }
    }
}

TEST_CASE("every write of a repair is flushed before the next") {
    SampleSet set = sample();

    for (unsigned int i = 0; i < 3; i++)
        scribble(set.spare, set.superblock.sb_sector.at(i), 8);
    RecordingIo log(set.spare);
    repair(log);
    REQUIRE(log.writes() == 3);
    REQUIRE(log.events().size() == 6);
    for (std::size_t i = 0; i < 6; i++)
        CHECK(log.events()[i].flush == (i % 2 == 1));
}

TEST_CASE("a power cut in the library's own writers leaves old or new") {
    SampleSet set = sample();
    SampleSet next = set;

    next.superblock.updated++;
    next.superblock.head.generation++;
    for (std::int64_t writes = 0; writes <= REMAP_SB_COPIES; writes++) {
        for (const std::uint64_t torn : {0U, 1U, 7U}) {
            MemoryIo spare = set.spare;
            FaultIo fault(spare);
            fault.power_cut_after = writes;
            fault.torn_sectors = torn;
            try {
                write_superblock(fault, next.superblock);
                CHECK(writes == REMAP_SB_COPIES);
            } catch (const FaultIo::PowerCut&) {
                CHECK(writes < REMAP_SB_COPIES);
            }
            const Superblock found = load_superblock(spare);
            CHECK((found.updated == set.superblock.updated ||
                   found.updated == next.superblock.updated));
            if (writes >= 1)
                CHECK(found.updated == next.superblock.updated);
        }
    }
}
