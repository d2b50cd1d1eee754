// SPDX-License-Identifier: GPL-2.0-or-later
//
// What fsck finds, and that its repairs bring back what was there.
#include <algorithm>
#include <functional>
#include <set>

#include "catch.hpp"
#include "libremap/check.hpp"
#include "long_run.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

using Ids = std::vector<std::string>;
using Damage = std::function<void(SampleSet&)>;

/// One kind of damage, what it is called, and whether -p may repair it.
struct Case {
    const char* name;
    Damage damage;
    Ids expected;
};

std::uint64_t place(const SampleSet& set, unsigned int copy) {
    return set.superblock.sb_sector.at(copy);
}

/// Damages one copy of one structure in one of the ways in which copies are damaged.
std::vector<Case> repairable_cases() {
    std::vector<Case> cases;

    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++) {
        cases.push_back({"superblock: a flipped bit",
                         [copy](SampleSet& s) { flip(s.spare, place(s, copy), 9999); },
                         {"RMF-0101"}});
        cases.push_back({"superblock: overwritten",
                         [copy](SampleSet& s) { scribble(s.spare, place(s, copy), 8); },
                         {"RMF-0105"}});
        cases.push_back({"superblock: end overwritten",
                         [copy](SampleSet& s) { scribble(s.spare, place(s, copy) + 7, 1); },
                         {"RMF-0101"}});
        cases.push_back({"superblock: of another place",
                         [copy](SampleSet& s) {
                             s.spare.write(place(s, copy),
                                           encode_superblock(s.superblock, (copy + 1) % 5));
                         },
                         {"RMF-0104"}});
        cases.push_back({"superblock: an impossible value",
                         [copy](SampleSet& s) {
                             Superblock bad = s.superblock;
                             bad.segments[0].nr_slots = ~0ULL;
                             s.spare.write(place(s, copy), encode_superblock(bad, copy));
                         },
                         {"RMF-0106"}});
        cases.push_back({"superblock: a label",
                         [copy](SampleSet& s) {
                             s.spare.write(place(s, copy), encode_label(make_label(s.superblock), 0,
                                                                        place(s, copy)));
                         },
                         {"RMF-0107"}});
        cases.push_back({"superblock: two epochs old",
                         [copy](SampleSet& s) {
                             const auto old = encode_superblock(s.superblock, copy);
                             s.new_epoch();
                             s.new_epoch();
                             s.spare.write(place(s, copy), old);
                         },
                         {"RMF-0103"}});
    }
    for (unsigned int copy = 0; copy < 2; copy++) {
        for (std::uint64_t index = 0; index < 3; index++) {
            const auto at = [copy, index](const SampleSet& s) {
                return s.superblock.table_sector(index, copy);
            };
            cases.push_back({"table: a flipped bit",
                             [at](SampleSet& s) { flip(s.spare, at(s), 20000); },
                             {"RMF-0201"}});
            cases.push_back({"table: overwritten",
                             [at](SampleSet& s) { scribble(s.spare, at(s), 8, 0); },
                             {"RMF-0205"}});
            cases.push_back({"table: end overwritten",
                             [at](SampleSet& s) { scribble(s.spare, at(s) + 4, 4); },
                             {"RMF-0201"}});
            cases.push_back(
                {"table: another block's",
                 [at, copy, index](SampleSet& s) {
                     s.spare.write(
                         at(s), s.spare.read(s.superblock.table_sector((index + 1) % 3, copy), 8));
                 },
                 {"RMF-0204"}});
            cases.push_back({"table: the other copy's",
                             [at, copy, index](SampleSet& s) {
                                 s.spare.write(
                                     at(s),
                                     s.spare.read(s.superblock.table_sector(index, 1 - copy), 8));
                             },
                             {"RMF-0204"}});
            cases.push_back({"table: of another set",
                             [at](SampleSet& s) {
                                 const SampleSet other(SampleOptions{8192, 4096, 9, 8, 600, 9});
                                 SampleSet copy_of = other;
                                 s.spare.write(at(s), copy_of.spare.read(at(s), 8));
                             },
                             {"RMF-0201"}});
        }
    }
    return cases;
}

SampleSet big_sample() {
    return SampleSet(SampleOptions{8192, 4096, 9, 8, 600, 3});
}

}  // namespace

TEST_CASE("a healthy set has no findings and nothing is planned") {
    for (const SampleOptions& options :
         {SampleOptions{}, SampleOptions{4096, 2048, 9, 8, 5, 2},
          SampleOptions{16384, 8192, 12, 8, 100, 3}, SampleOptions{4096, 4096, 9, 0, 10, 4}}) {
        SampleSet set(options);
        const CheckResult result = check_set(set.spare, &set.main);
        for (const Finding& finding : result.findings)
            CHECK(finding.problem->id == std::string("RMF-0313"));
        CHECK(result.plan.empty());
        CHECK(result.exit_bits() == fsck::ok);
        CHECK(result.slots_used == options.remaps + 2 * options.hidden_each_end);
    }
}

TEST_CASE("preening brings back the identical bytes wherever one good copy is left") {
    for (const Case& test : repairable_cases()) {
        SampleSet set = big_sample();
        INFO(test.name);

        // Some cases move the set on before they damage it; a twin is written anew from what the
        // set is then.
        test.damage(set);
        CheckResult found = check_set(set.spare, nullptr);
        CHECK(ids(found) == test.expected);
        CHECK(found.exit_bits() == fsck::uncorrected);

        const CheckResult repaired = repair(set.spare);
        CHECK(repaired.exit_bits() == fsck::corrected);
        SampleSet twin = set;
        twin.write_all_as_is();
        CHECK((set.spare.content() == twin.spare.content()));

        const auto before = set.spare.content();
        const CheckResult second = repair(set.spare);
        CHECK(second.exit_bits() == fsck::ok);
        CHECK((set.spare.content() == before));
    }
}

TEST_CASE("any two copies may be damaged at once") {
    const auto cases = repairable_cases();

    for (std::size_t i = 0; i < cases.size(); i += 5) {
        for (std::size_t j = i + 3; j < cases.size(); j += 11) {
            SampleSet set = big_sample();
            SampleSet good = set;
            cases[i].damage(set);
            cases[j].damage(set);
            const CheckResult first = check_set(set.spare, nullptr);
            INFO(cases[i].name << " and " << cases[j].name);
            CHECK(first.damaged());
            repair(set.spare);
            const CheckResult second = check_set(set.spare, nullptr);
            // Both copies of one table block may have been hit: then it is lost, and said to be.
            if (first.table.lost.empty())
                CHECK(second.exit_bits() == fsck::ok);
            else
                CHECK(second.exit_bits() == fsck::uncorrected);
        }
    }
}

TEST_CASE("what a power cut leaves is no damage and stays as it is") {
    SampleSet set = big_sample();
    Ids expected;

    SECTION("an epoch raised on a minority of superblocks") {
        set.superblock.epoch++;
        set.superblock.head.generation = next_generation(set.superblock.epoch, set.generation);
        write_superblock_copy(set.spare, set.superblock, 0);
        write_superblock_copy(set.spare, set.superblock, 1);
        expected = {"RMF-0114"};
    }
    SECTION("on all but the last") {
        set.superblock.head.generation++;
        for (unsigned int i = 0; i < 4; i++)
            write_superblock_copy(set.spare, set.superblock, i);
        expected = {"RMF-0114"};
    }
    SECTION("a commit that reached one copy") {
        set.entries[400] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 999, 1);
        write_table_copy(
            set.spare, set.superblock, 0, 1, set.generation + 1,
            std::span(set.entries).subspan(REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK));
        expected = {"RMF-0208"};
    }
    SECTION("empty table blocks after the length") {
        const std::uint64_t next = set.superblock.table_length;
        write_table_copy(set.spare, set.superblock, 0, next, set.generation + 1, {});
        write_table_copy(set.spare, set.superblock, 0, next + 1, set.generation + 1, {});
        write_table_copy(set.spare, set.superblock, 1, next, set.generation + 1, {});
        expected = {"RMF-0212"};
    }
    SECTION("a new entry whose old slot is not yet marked bad") {
        Entry& old = set.entries[20];
        set.entries[700] =
            Entry::make(REMAP_ENTRY_MAPPED, old.block(), REMAP_CAUSE_SLOT, 5, 5000, 1);
        set.write_all();
        expected = {"RMF-0310"};
    }
    const auto before = set.spare.content();
    const CheckResult result = repair(set.spare, nullptr, true);
    Ids found = ids(result, true);
    found.erase(std::remove(found.begin(), found.end(), "RMF-0313"), found.end());
    CHECK(found == expected);
    CHECK(result.exit_bits() == fsck::ok);
    CHECK((set.spare.content() == before));
}

TEST_CASE("an old copy that no power cut explains is repaired") {
    SampleSet set = big_sample();

    SECTION("a superblock before a newer one") {
        set.superblock.head.generation++;
        for (unsigned int i = 1; i < REMAP_SB_COPIES; i++)
            write_superblock_copy(set.spare, set.superblock, i);
        CHECK(ids(check_set(set.spare, nullptr)) == Ids{"RMF-0103"});
    }
    SECTION("a first table copy that is behind the second") {
        write_table_copy(
            set.spare, set.superblock, 1, 1, set.generation + 1,
            std::span(set.entries).subspan(REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK));
        CHECK(ids(check_set(set.spare, nullptr)) == Ids{"RMF-0203"});
    }
    SECTION("a second table copy more than a commit behind") {
        const auto old = set.spare.read(set.superblock.table_sector(1, 1), 8);
        set.entries[600] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 999, 1);
        set.write_all();
        set.generation++;
        write_table_block(set.spare, set.superblock, 0, set.generation,
                          std::span(set.entries).first(REMAP_ENTRIES_PER_BLOCK));
        set.spare.write(set.superblock.table_sector(1, 1), old);
        CHECK(ids(check_set(set.spare, nullptr)) == Ids{"RMF-0203"});
    }
    CHECK(repair(set.spare).exit_bits() == fsck::corrected);
    CHECK(check_set(set.spare, nullptr).exit_bits() == fsck::ok);
}

TEST_CASE("what cannot be repaired without loss is reported and nothing is written for it") {
    SampleSet set = big_sample();
    Ids expected;
    int bits = fsck::uncorrected;

    SECTION("both copies of a table block") {
        flip(set.spare, set.superblock.table_sector(1, 0), 5000);
        scribble(set.spare, set.superblock.table_sector(1, 1), 8);
        expected = {"RMF-0201", "RMF-0205", "RMF-0206", "RMF-0216"};
    }
    SECTION("equal generation, different entries") {
        auto other = set.entries;
        other[2] = Entry::make(REMAP_ENTRY_MAPPED, 5, REMAP_CAUSE_WRITE, 5, 9, 1);
        write_table_copy(set.spare, set.superblock, 1, 0, set.generation,
                         std::span(other).first(REMAP_ENTRIES_PER_BLOCK));
        expected = {"RMF-0207", "RMF-0216"};
    }
    SECTION("equal generation, different superblocks") {
        set.superblock.updated++;
        write_superblock_copy(set.spare, set.superblock, 1);
        expected = {"RMF-0110"};
    }
    SECTION("an entry out of range") {
        set.entries[3] = Entry::make(REMAP_ENTRY_MAPPED, 1 << 20, REMAP_CAUSE_WRITE, 5, 9, 1);
        set.write_all();
        expected = {"RMF-0216", "RMF-0304", "RMF-0312"};
    }
    SECTION("an unknown state") {
        set.entries[300].lo = 9ULL << 48;
        set.write_all();
        expected = {"RMF-0216", "RMF-0303"};
    }
    SECTION("a free entry with something in it") {
        set.entries[700].hi = 1;
        set.write_all();
        expected = {"RMF-0216", "RMF-0301"};
    }
    SECTION("a hidden block without a slot") {
        set.entries[2] = {};
        set.write_all();
        expected = {"RMF-0312"};
    }
    SECTION("two entries of the same age for one block") {
        set.entries[700] = set.entries[30];
        set.write_all();
        expected = {"RMF-0216", "RMF-0311"};
    }
    SECTION("all superblocks damaged") {
        for (const std::uint64_t sector : set.superblock.sb_sector)
            flip(set.spare, sector, 5000);
        expected = {"RMF-0113"};
    }
    SECTION("superblocks of two sets without a majority") {
        SampleSet other(SampleOptions{8192, 4096, 9, 8, 20, 77});
        scribble(set.spare, place(set, 0), 8);
        write_superblock_copy(set.spare, other.superblock, 1);
        write_superblock_copy(set.spare, other.superblock, 2);
        expected = {"RMF-0111"};
    }
    SECTION("nothing of ours") {
        for (const std::uint64_t sector : set.superblock.sb_sector)
            scribble(set.spare, sector, 8);
        expected = {"RMF-0116"};
        bits = fsck::operational;
    }
    SECTION("a newer version") {
        set.superblock.head.version = 2;
        write_superblock(set.spare, set.superblock);
        expected = {"RMF-0112"};
        bits = fsck::operational;
    }
    SECTION("an unknown incompat feature on one copy, damage on another") {
        set.superblock.head.incompat = 1ULL << 63;
        write_superblock_copy(set.spare, set.superblock, 2);
        flip(set.spare, place(set, 4), 5000);
        expected = {"RMF-0112"};
        bits = fsck::operational;
    }
    SECTION("a count of entries that is not theirs") {
        const std::uint64_t sector = set.superblock.table_sector(0, 0);
        for (unsigned int copy = 0; copy < 2; copy++) {
            TableHeader header{static_cast<std::uint8_t>(copy),     0, 0, 0, set.generation,
                               set.superblock.table_sector(0, copy)};
            auto bytes = encode_table_block(set.superblock.seed(), header,
                                            std::span(set.entries).first(REMAP_ENTRIES_PER_BLOCK));
            bytes[14] ^= 1;
            reseal_table_block(bytes, set.superblock.seed());
            set.spare.write(header.position, bytes);
        }
        CHECK(sector > 0);
        expected = {"RMF-0211", "RMF-0216"};
    }
    const auto before = set.spare.content();
    // What needs a decision is not for -p; test_salvage.cpp has what -y makes of it.
    const bool decision = std::count(expected.begin(), expected.end(), "RMF-0216") > 0;
    const CheckResult result = repair(set.spare, nullptr, !decision);
    CHECK(ids(result) == expected);
    CHECK(result.exit_bits() == bits);
    CHECK(result.exit_bits(true) == bits);
    CHECK((set.spare.content() == before));
}

TEST_CASE("read-only features: damage is reported, nothing is written") {
    SampleSet set;

    set.superblock.head.ro_compat = 2;
    write_superblock(set.spare, set.superblock);
    flip(set.spare, place(set, 3), 5000);
    const auto before = set.spare.content();
    const CheckResult result = repair(set.spare, nullptr, true);
    CHECK(ids(result) == Ids{"RMF-0101", "RMF-0115"});
    CHECK_FALSE(result.refused.empty());
    CHECK((set.spare.content() == before));
}

TEST_CASE("a foreign superblock copy is replaced only when confirmed") {
    SampleSet set = big_sample();
    const auto good = set.spare.content();
    SampleSet other(SampleOptions{8192, 4096, 9, 8, 20, 77});

    write_superblock_copy(set.spare, other.superblock, 1);
    const auto damaged = set.spare.content();
    CHECK(repair(set.spare).exit_bits() == fsck::uncorrected);
    CHECK((set.spare.content() == damaged));
    CHECK(repair(set.spare, nullptr, true).exit_bits() == fsck::corrected);
    CHECK((set.spare.content() == good));
}

TEST_CASE("a dead table copy is rebuilt and then set live") {
    SampleSet set = big_sample();

    for (unsigned int dead = 0; dead < 2; dead++) {
        Superblock changed = set.superblock;
        changed.live_copies = static_cast<std::uint8_t>(2 - dead);
        changed.head.generation++;
        SampleSet sample = set;
        write_superblock(sample.spare, changed);
        scribble(sample.spare, changed.segment().table_start[dead], 24);

        RecordingIo recorder(sample.spare);
        CheckResult result = repair(recorder);
        CHECK(ids(result) == Ids{"RMF-0209"});
        CHECK(result.exit_bits() == fsck::corrected);
        CheckResult second = check_set(sample.spare, nullptr);
        CHECK(second.exit_bits() == fsck::ok);
        CHECK(second.superblock->live_copies == 3);
        CHECK(second.table.entries == set.entries);
        // Nothing says "live" before all of it is there.
        CHECK(recorder.events().front().sector == changed.segment().table_start[dead]);
    }
}

TEST_CASE("a dead copy cannot be rebuilt from a damaged one") {
    SampleSet set = big_sample();

    set.superblock.live_copies = 1;
    set.superblock.head.generation++;
    write_superblock(set.spare, set.superblock);
    flip(set.spare, set.superblock.table_sector(1, 0), 5000);
    flip(set.spare, set.superblock.table_sector(1, 1), 5000);
    const auto before = set.spare.content();
    const CheckResult result = repair(set.spare, nullptr, false);
    CHECK(ids(result) == Ids{"RMF-0201", "RMF-0206", "RMF-0210", "RMF-0216"});
    CHECK((set.spare.content() == before));
}

TEST_CASE("used table blocks after the length are taken in when confirmed") {
    SampleSet set = big_sample();
    const std::uint64_t next = set.superblock.table_length;
    const std::vector<Entry> entries = {
        Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 999, 1)};

    write_table_block(set.spare, set.superblock, next, set.generation + 1, entries);
    CHECK(repair(set.spare).exit_bits() == fsck::uncorrected);
    CHECK(repair(set.spare, nullptr, true).exit_bits() == fsck::corrected);
    const CheckResult second = check_set(set.spare, nullptr);
    CHECK(second.exit_bits() == fsck::ok);
    CHECK(second.superblock->table_length == next + 1);
    CHECK(second.table.entries[next * REMAP_ENTRIES_PER_BLOCK] == entries[0]);
}

TEST_CASE("unreadable copies are rewritten; if that fails the rest is still done") {
    SampleSet set = big_sample();
    FaultIo fault(set.spare);
    const std::uint64_t table = set.superblock.table_sector(1, 1);

    fault.bad_reads = {place(set, 1), table + 2};
    flip(set.spare, place(set, 2), 5000);
    SECTION("the sectors can be written") {
        const CheckResult result = repair(fault);
        CHECK(ids(result) == Ids{"RMF-0101", "RMF-0102", "RMF-0202"});
        CHECK(result.exit_bits() == fsck::corrected);
    }
    SECTION("they cannot") {
        fault.bad_writes = fault.bad_reads;
        const CheckResult result = repair(fault);
        CHECK(result.exit_bits() == (fsck::corrected | fsck::uncorrected));
        // Redundancy is lost for good; a boot must not stop for it for ever.
        CHECK(result.exit_bits(true) == fsck::corrected);
        for (const Finding& finding : result.findings) {
            if (finding.problem->severity != Severity::note &&
                finding.problem->id != std::string("RMF-0101"))
                CHECK_FALSE(finding.repair_error.empty());
        }
    }
}

TEST_CASE("a smaller device is reported and left as it is, a larger one is fine") {
    SampleSet set = big_sample();
    auto content = set.spare.content();

    content.resize(content.size() - 100 * sector_size);
    MemoryIo shorter("shorter.img", content);
    // Damage that would be repaired, and such as -y would salvage.
    scribble(shorter, set.superblock.sb_sector[1], 2);
    for (unsigned int copy = 0; copy < set.superblock.segment().nr_copies; copy++)
        scribble(shorter, set.superblock.table_sector(0, copy), 8);
    content = shorter.content();
    const CheckResult cut = repair(shorter, nullptr, true);
    CHECK(cut.plan.empty());
    CHECK_FALSE(cut.refused.empty());
    CHECK((shorter.content() == content));
    const Ids found = ids(cut);
    CHECK(std::count(found.begin(), found.end(), "RMF-0401") == 1);
    CHECK(std::count(found.begin(), found.end(), "RMF-0109") == 1);
    CHECK((cut.exit_bits() & fsck::uncorrected) != 0);

    content = set.spare.content();
    content.resize(content.size() + 1000 * sector_size);
    MemoryIo longer("longer.img", content);
    const CheckResult grown = repair(longer, nullptr, true);
    CHECK(grown.exit_bits() == fsck::ok);
    CHECK(longer.content() == content);
}

// --- with the main ----------------------------------------------------------------------------

TEST_CASE("the wrong main is seen and nothing is written to it") {
    SampleSet set = big_sample();
    SampleSet other(SampleOptions{8192, 4096, 9, 8, 600, 4});
    Ids expected;

    SECTION("of another set") {
        set.main = other.main;
        expected = {"RMF-0502", "RMF-0502", "RMF-0502"};
    }
    SECTION("of this set, but another main") {
        Superblock twin = set.superblock;
        twin.head.partner_uuid = twin.members[0].uuid = Uuid::random();
        set.main.write(0, encode_label(make_label(twin), 0, 0));
        expected = {"RMF-0502"};
    }
    SECTION("without a label") {
        for (auto& byte : set.main.content())
            byte = 0;
        expected = {"RMF-0503"};
    }
    SECTION("a spare") {
        set.main = set.spare;
        set.main.content().resize(set.superblock.main_size * sector_size);
        expected = {"RMF-0503"};
    }
    SECTION("yesterday's copy of the main") {
        const MemoryIo old = set.main;
        set.new_epoch();
        set.new_epoch();
        set.main = old;
        expected = {"RMF-0505"};
    }
    SECTION("yesterday's copy of the spare") {
        const MemoryIo old = set.spare;
        set.new_epoch();
        set.spare = old;
        expected = {"RMF-0504"};
    }
    SECTION("too small") {
        auto content = set.main.content();
        content.resize(content.size() / 2);
        set.main = MemoryIo("main.img", content);
        expected = {"RMF-0501"};
    }
    const auto main = set.main.content();
    const auto spare = set.spare.content();
    CheckResult result = repair(set.spare, &set.main, true);
    Ids found = ids(result);
    found.erase(
        std::remove_if(found.begin(), found.end(),
                       [](const std::string& id) { return id == "RMF-0506" || id == "RMF-0508"; }),
        found.end());
    CHECK(found == expected);
    CHECK(result.exit_bits() == fsck::uncorrected);
    CHECK(set.main.content() == main);
    CHECK((set.spare.content() == spare));
}

TEST_CASE("a label that an activation did not reach is no damage") {
    SampleSet set = big_sample();
    const MemoryIo old = set.main;

    set.superblock.epoch++;
    set.write_all();
    CHECK(check_set(set.spare, &set.main).exit_bits() == fsck::ok);
    // The last label was written first, and then the power went.
    set.write_main();
    scribble(set.main, 0, 0);
    auto content = old.content();
    const auto last = static_cast<std::ptrdiff_t>(set.superblock.label_sector.back() * sector_size);
    std::copy_n(set.main.content().begin() + last, sector_size, content.begin() + last);
    set.main = MemoryIo("main.img", content);
    const CheckResult result = repair(set.spare, &set.main, true);
    CHECK(result.exit_bits() == fsck::ok);
    CHECK(set.main.content() == content);
    CHECK(result.label->epoch == set.superblock.epoch);
    CHECK(ids(result, true) != ids(result));
}

TEST_CASE("damaged labels and filler are written again") {
    SampleSet set = big_sample();
    const auto good = set.main.content();

    SECTION("a damaged label") {
        flip(set.main, 2, 2000);
        CHECK(repair(set.spare, &set.main).exit_bits() == fsck::corrected);
    }
    SECTION("an overwritten label and filler, when confirmed") {
        scribble(set.main, 0, 4);
        const auto damaged = set.main.content();
        CHECK(ids(check_set(set.spare, &set.main)) == Ids{"RMF-0508", "RMF-0508", "RMF-0510"});
        repair(set.spare, &set.main);
        CHECK(set.main.content() == damaged);
        CHECK(repair(set.spare, &set.main, true).exit_bits() == fsck::corrected);
    }
    CHECK(set.main.content() == good);
    CHECK(check_set(set.spare, &set.main).exit_bits() == fsck::ok);
}

TEST_CASE("a place on the main that somebody overwrote does not stop a boot") {
    SampleSet set = big_sample();

    SECTION("a label") {
        scribble(set.main, 0, 1, 0);
    }
    SECTION("filler") {
        scribble(set.main, 3, 1, 0);
    }
    const auto damaged = set.main.content();
    const CheckResult result = repair(set.spare, &set.main);
    CHECK(ids(result).size() == 1);
    CHECK(result.exit_bits(true) == fsck::ok);
    CHECK(result.exit_bits() == fsck::uncorrected);
    CHECK(set.main.content() == damaged);
    CHECK(repair(set.spare, &set.main, true).exit_bits() == fsck::corrected);
}

TEST_CASE("many missing hidden blocks, or lost table blocks, in a row are one finding") {
    SampleSet set = big_sample();

    SECTION("hidden blocks") {
        for (unsigned int slot = 2; slot < 5; slot++)
            set.entries[slot] = {};
        set.write_all();
        const CheckResult result = check_set(set.spare, nullptr);
        REQUIRE(ids(result) == Ids{"RMF-0312"});
        CHECK(std::any_of(result.findings.begin(), result.findings.end(), [](const Finding& f) {
            return f.found == "none, from here on for 3 blocks";
        }));
    }
    SECTION("table blocks") {
        for (unsigned int copy = 0; copy < 2; copy++)
            scribble(set.spare, set.superblock.table_sector(1, copy), 16, 0);
        const CheckResult result = check_set(set.spare, nullptr);
        CHECK(ids(result) == Ids{"RMF-0205", "RMF-0205", "RMF-0206", "RMF-0216"});
    }
}

/// What a hostile disk may claim with right checksums: the largest table, far beyond the device.
Superblock greedy(const SampleSet& set) {
    Superblock sb = set.superblock;
    Segment& segment = sb.segments[0];

    sb.spare_size = 1ULL << 40;
    segment.nr_slots = REMAP_MAX_SLOTS;
    segment.table_start[0] = 1ULL << 30;
    segment.table_start[1] = 1ULL << 31;
    segment.data_start = 1ULL << 32;
    sb.table_length = segment.table_blocks();
    sb.sb_sector[1] = 1ULL << 36;
    sb.sb_sector[2] = 1ULL << 37;
    sb.sb_sector[3] = 1ULL << 38;
    sb.sb_sector[4] = (1ULL << 40) - REMAP_SB_SECTORS;
    return sb;
}

TEST_CASE("a table that lies beyond the device is not loaded") {
    SampleSet set = big_sample();
    const Superblock sb = greedy(set);

    for (const std::uint64_t sector : set.superblock.sb_sector)
        scribble(set.spare, sector, 8, 0);
    set.spare.write(0 + set.superblock.sb_sector[0], encode_superblock(sb, 0));
    const CheckResult result = check_set(set.spare, nullptr);
    REQUIRE(result.superblock);
    CHECK(result.table.entries.empty());
    const Ids found = ids(result);
    CHECK(std::count(found.begin(), found.end(), "RMF-0401") == 1);
    CHECK((result.exit_bits(true) & fsck::uncorrected) != 0);
}

TEST_CASE("more hidden blocks than the kernel takes are an impossible value") {
    SampleSet set = big_sample();
    Superblock sb = greedy(set);

    sb.main_size = 1ULL << 30;
    sb.label_sector = {0};
    sb.deciding_sector = 0;
    sb.hidden = {{0, 0x100000, 0}};
    CHECK(decode_superblock(encode_superblock(sb, 0), sb.sb_sector[0]).valid());
    sb.hidden = {{0, 0x100001, 0}};
    const auto decoded = decode_superblock(encode_superblock(sb, 0), sb.sb_sector[0]);
    CHECK(decoded.verdict == Verdict::implausible);
    CHECK(decoded.problem.field == "hidden blocks");
}

TEST_CASE("exposed blocks are known and no damage") {
    SampleSet set = big_sample();

    scribble(set.main, 3, 1);
    set.superblock.hidden[0].flags = REMAP_HIDDEN_EXPOSED;
    set.write_all();
    CHECK(check_set(set.spare, &set.main).exit_bits() == fsck::ok);
}

TEST_CASE("a set of 4096-byte blocks is checked and repaired alike") {
    SampleSet set(SampleOptions{16384, 8192, 12, 8, 100, 3});
    const auto main = set.main.content();
    const auto spare = set.spare.content();

    flip(set.main, 0, 1000);
    scribble(set.main, 16, 8);
    scribble(set.spare, set.superblock.table_sector(0, 1), 8);
    CHECK(repair(set.spare, &set.main, true).exit_bits() == fsck::corrected);
    CHECK(set.main.content() == main);
    CHECK((set.spare.content() == spare));
}

TEST_CASE("an adoption that is not finished needs the main") {
    SampleSet set = big_sample();

    set.superblock.head.state = REMAP_STATE_ADOPTING;
    set.write_all();
    const CheckResult result = check_set(set.spare, nullptr);
    CHECK(ids(result) == Ids{"RMF-0404"});
    CHECK(result.plan.empty());
    const CheckResult with_main = check_set(set.spare, &set.main);
    CHECK(ids(with_main) == Ids{"RMF-0403"});
    REQUIRE(with_main.plan.size() == 1);
    CHECK(with_main.plan[0].kind == PlannedWrite::Kind::recover);
}

// --- everything -------------------------------------------------------------------------------

TEST_CASE("problems have distinct ids in order, and a fix if somebody may repair them") {
    std::set<std::string> seen;
    std::string last;

    for (const Problem& row : problem_table()) {
        CHECK(seen.insert(row.id).second);
        CHECK(last < row.id);
        last = row.id;
        CHECK((row.repair == Repair::none) == (row.fix == nullptr));
        CHECK((row.severity != Severity::note || row.repair == Repair::none));
        CHECK(&problem(row.id) == &row);
    }
    CHECK_THROWS_AS(problem("RMF-9999"), std::logic_error);
}

TEST_CASE("a finding names device, copy, place, what was expected and what was found") {
    SampleSet set;

    scribble(set.spare, place(set, 1), 8, 0);
    const CheckResult result = check_set(set.spare, nullptr);
    const std::string text = describe(result.findings.at(0));
    CHECK(text.find("RMF-0105") == 0);
    for (const char* part :
         {"spare.img", "superblock", "copy 1", "sector 1024", "zeroes", "expected 8f52656d"})
        CHECK(text.find(part) != std::string::npos);
}

TEST_CASE("every flipped bit of every metadata copy is found and repaired", "[long]") {
    const SampleSet good(SampleOptions{4096, 2048, 9, 4, 5, 1});
    const Superblock& sb = good.superblock;
    // A prime stride reaches every field of some copy; REMAP_TEST_LONG=1 takes every bit of all.
#ifdef __SANITIZE_ADDRESS__
    constexpr std::uint64_t prime = 131;
#else
    constexpr std::uint64_t prime = 17;
#endif
    const bool all = long_run();
    const std::uint64_t stride = all ? 1 : prime;
    std::vector<std::uint64_t> places(sb.sb_sector.begin(), sb.sb_sector.end());
    SampleSet set = good;

    for (std::uint64_t index = 0; index < sb.table_length; index++) {
        places.push_back(sb.table_sector(index, 0));
        places.push_back(sb.table_sector(index, 1));
    }
    std::uint64_t wrong = 0;
    for (const std::uint64_t sector : places) {
        for (std::uint64_t bit = sector % stride; bit < 4096ULL * 8; bit += stride) {
            flip(set.spare, sector, bit);
            const CheckResult result = repair(set.spare);
            wrong += result.exit_bits() != fsck::corrected;
            wrong += set.spare.content() != good.spare.content();
            set.spare.content() = good.spare.content();
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("every flipped bit of label and filler is found, or is padding", "[long]") {
    // What the format leaves open: of a block that is larger than a label, the rest.
    const auto padding = [](const Superblock& sb, std::uint64_t bit) {
        return bit / 8 >= REMAP_LABEL_SIZE && bit / 8 < sb.block_size();
    };
    // Without its magic a label or filler looks like what somebody wrote to the raw main. That, and
    // filler in general, is not written again without a question (docs: RMF-0508, RMF-0510).
    const auto magic = [](std::uint64_t bit) {
        return bit / 8 < offsetof(remap_head, magic) + sizeof(remap_head::magic);
    };
    const bool all = long_run();

    for (const SampleOptions& options :
         {SampleOptions{4096, 2048, 9, 4, 5, 1}, SampleOptions{4096, 4096, 12, 2, 5, 1}}) {
        const SampleSet good(options);
        const Superblock& sb = good.superblock;
        SampleSet set = good;
        std::uint64_t silent = 0;
        std::uint64_t loud = 0;
        std::uint64_t not_preened = 0;
        std::uint64_t not_repaired = 0;
        for (const Hidden& hidden : sb.hidden) {
            for (std::uint64_t b = hidden.start; b < hidden.start + hidden.count; b++) {
                const std::uint64_t sector = b * sb.block_sectors();
                const bool label =
                    std::count(sb.label_sector.begin(), sb.label_sector.end(), sector) != 0;
                const std::uint64_t stride = all ? 1 : 61;
                for (std::uint64_t bit = b % stride; bit < sb.block_size() * 8; bit += stride) {
                    flip(set.main, sector, bit);
                    const bool found = check_set(set.spare, &set.main).exit_bits() != fsck::ok;
                    silent += !found && !padding(sb, bit);
                    loud += found && padding(sb, bit);
                    if (found && label && !magic(bit)) {
                        repair(set.spare, &set.main);
                        not_preened += set.main.content() != good.main.content();
                    }
                    repair(set.spare, &set.main, true);
                    not_repaired += found && set.main.content() != good.main.content();
                    set.main.content() = good.main.content();
                }
            }
        }
        CAPTURE(sb.block_size());
        CHECK(silent == 0);
        CHECK(loud == 0);
        CHECK(not_preened == 0);
        CHECK(not_repaired == 0);
        CHECK(set.spare.content() == good.spare.content());
    }
}

TEST_CASE("no codec takes any copy with one flipped bit") {
    const SampleSet set(SampleOptions{4096, 2048, 9, 4, 5, 1});
    const Superblock& sb = set.superblock;
    auto superblock = encode_superblock(sb, 2);
    auto label = encode_label(make_label(sb), 0, 0);
    const TableHeader header{1, 0, 0, 0, set.generation, sb.table_sector(0, 1)};
    auto table = encode_table_block(sb.seed(), header,
                                    std::span(set.entries).first(REMAP_ENTRIES_PER_BLOCK));
    std::uint64_t accepted = 0;
    const auto each = [&accepted](auto& bytes, auto decode) {
        for (std::size_t bit = 0; bit < bytes.size() * 8; bit++) {
            bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
            accepted += decode(bytes).valid();
            bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
        }
    };

    each(superblock, [&](const auto& b) { return decode_superblock(b, sb.sb_sector[2]); });
    each(label, [](const auto& b) { return decode_label(b, 0); });
    each(table, [&](const auto& b) {
        return decode_table_header(b, sb.seed(), 0, 1, sb.table_sector(0, 1));
    });
    CHECK(accepted == 0);
}

TEST_CASE("random damage never crashes, and a repair never costs what was readable", "[long]") {
    std::mt19937 random(20);

    for (unsigned int round = 0; round < property_rounds(); round++) {
        SampleSet set(SampleOptions{8192, 4096 + random() % 4096, 9, 4 + random() % 8,
                                    1 + random() % 500, static_cast<std::uint32_t>(random())});
        const int hits = 1 + static_cast<int>(random() % 6);
        for (int i = 0; i < hits; i++) {
            const auto& sb = set.superblock;
            const bool table = random() % 2 != 0;
            const std::uint64_t sector =
                table ? sb.table_sector(random() % sb.table_length, random() % 2)
                      : sb.sb_sector[random() % REMAP_SB_COPIES];
            if (random() % 2 != 0)
                flip(set.spare, sector, random() % 32768);
            else
                scribble(set.spare, sector + random() % 8, 1, static_cast<std::uint8_t>(random()));
        }
        const CheckResult before = check_set(set.spare, &set.main);
        repair(set.spare, &set.main);
        const CheckResult after = check_set(set.spare, &set.main);
        INFO("round " << round);
        if (!before.superblock)
            continue;
        REQUIRE(after.superblock);
        CHECK(after.table.entries == before.table.entries);
        if (before.table.lost.empty())
            CHECK(after.exit_bits() == fsck::ok);
        else
            CHECK(after.exit_bits() == fsck::uncorrected);
    }
}

TEST_CASE("garbage with the right checksum never crashes", "[long]") {
    std::mt19937 random(21);
    const int rounds = long_run() ? 20000 : 500;

    for (int round = 0; round < rounds; round++) {
        SampleSet set(SampleOptions{4096, 2048, 9, 4, 5, static_cast<std::uint32_t>(round)});
        auto bytes = encode_superblock(set.superblock, 0);
        const int changes = 1 + static_cast<int>(random() % 4);
        for (int i = 0; i < changes; i++) {
            const std::size_t at = 24 + random() % 2200;
            bytes.at(at) = random() % 3 == 0 ? 0xff : static_cast<std::uint8_t>(random());
        }
        for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++) {
            relocate_superblock(bytes, copy, set.superblock.sb_sector[copy]);
            set.spare.write(set.superblock.sb_sector[copy], bytes);
        }
        CheckResult result = repair(set.spare, &set.main, false);
        CHECK(result.exit_bits() <= 15);
    }
}
