// SPDX-License-Identifier: GPL-2.0-or-later
//
// Power may fail at any write of any repair: what is left is loadable, says the same, and the next
// repair finishes.
#include <functional>
#include <map>
#include <string>

#include "catch.hpp"
#include "libremap/check.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

using Damage = std::function<void(SampleSet&)>;

SampleSet sample() {
    return SampleSet(SampleOptions{8192, 4096, 9, 8, 600, 3});
}

const std::map<std::string, Damage>& damages() {
    static const std::map<std::string, Damage> all = {
        {"four superblocks",
         [](SampleSet& s) {
             for (unsigned int i = 0; i < 4; i++)
                 scribble(s.spare, s.superblock.sb_sector.at(i), 8);
         }},
        {"one whole table copy",
         [](SampleSet& s) {
             scribble(s.spare, s.superblock.segment().table_start[0],
                      s.superblock.table_length * 8);
         }},
        {"superblocks and parts of both table copies",
         [](SampleSet& s) {
             flip(s.spare, s.superblock.sb_sector[0], 5000);
             scribble(s.spare, s.superblock.sb_sector[4], 1);
             flip(s.spare, s.superblock.table_sector(0, 0), 5000);
             flip(s.spare, s.superblock.table_sector(1, 1), 5000);
         }},
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
             scribble(s.spare, s.superblock.sb_sector[3], 8);
         }},
        {"used table blocks after the length",
         [](SampleSet& s) {
             const std::vector<Entry> entries = {
                 Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 999, 1)};
             write_table_block(s.spare, s.superblock, s.superblock.table_length, s.generation + 1,
                               entries);
         }},
        {"labels and filler",
         [](SampleSet& s) {
             flip(s.main, 0, 1000);
             scribble(s.main, 2, 3);
         }},
    };
    return all;
}

/// The state after the power went at any point: usable, and the next repair completes it.
void check_state(const std::vector<std::uint8_t>& spare_bytes,
                 const std::vector<std::uint8_t>& main_bytes, const CheckResult& before) {
    MemoryIo spare("spare.img", spare_bytes);
    MemoryIo main("main.img", main_bytes);
    const CheckResult now = check_set(spare, &main);

    REQUIRE(now.superblock);
    CHECK(now.table.lost.empty());
    const auto end = static_cast<std::ptrdiff_t>(before.table.entries.size());
    CHECK(std::equal(before.table.entries.begin(), before.table.entries.end(),
                     now.table.entries.begin(), now.table.entries.begin() + end));
    repair(spare, &main, true);
    const CheckResult after = check_set(spare, &main);
    CHECK(after.exit_bits() == fsck::ok);
    CHECK(after.table.entries.size() >= now.table.entries.size());
}

}  // namespace

TEST_CASE("power may fail at every write of every repair") {
    for (const auto& [name, damage] : damages()) {
        SampleSet set = sample();
        damage(set);
        const CheckResult before = check_set(set.spare, &set.main);
        REQUIRE_FALSE(before.plan.empty());
        INFO(name);

        MemoryIo spare = set.spare;
        MemoryIo main = set.main;
        RecordingIo spare_log(spare);
        RecordingIo main_log(main);
        repair(spare_log, &main_log, true);
        CHECK(check_set(spare, &main).exit_bits() == fsck::ok);

        for (std::size_t count = 0; count <= spare_log.events().size(); count++) {
            for (const std::uint64_t torn : {0U, 1U, 7U}) {
                auto content = set.spare.content();
                spare_log.replay(content, count, torn);
                check_state(content, set.main.content(), before);
            }
        }
        for (std::size_t count = 0; count <= main_log.events().size(); count++) {
            auto content = set.main.content();
            main_log.replay(content, count);
            check_state(spare.content(), content, before);
        }
    }
}

TEST_CASE("no repair writes to a good copy before the bad one is repaired") {
    for (const auto& [name, damage] : damages()) {
        SampleSet set = sample();
        damage(set);
        const CheckResult before = check_set(set.spare, &set.main);
        RecordingIo log(set.spare);
        INFO(name);

        repair(log, &set.main, true);
        if (log.events().empty())
            continue;
        // The first write goes to a copy that the check did not call current.
        const std::uint64_t first = log.events().front().sector;
        for (const SuperblockCopy& copy : before.scan.copies) {
            if (copy.sector == first && before.superblock->live_copies == 3 &&
                before.findings.front().problem->id != std::string("RMF-0213"))
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
