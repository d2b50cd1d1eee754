// SPDX-License-Identifier: GPL-2.0-or-later
//
// Findings that are met nowhere else in the tests, one state of a set for each.
#include <algorithm>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/check.hpp"
#include "libremap/io_doubles.hpp"
#include "libremap/metadata.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

using Ids = std::vector<std::string>;

/// Notes as well; the sample set has lost blocks, which is no matter here.
Ids all_ids(const CheckResult& result) {
    Ids found = ids(result, true);
    std::erase(found, "RMF-0313");
    return found;
}

SampleSet sample() {
    return SampleSet({4096, 2560, 9, 8, 600, 3});
}

void write_label(SampleSet& set, unsigned int number, const Label& label) {
    const std::uint64_t sector = set.superblock.label_sector[number];
    set.main.write(sector, encode_label(label, number, sector));
}

}  // namespace

TEST_CASE("a superblock copy of another set, in the minority, is named and replaced with -y only",
          "[findings]") {
    SampleSet set = sample();
    SampleSet other({4096, 2560, 9, 8, 600, 77});

    write_superblock_copy(set.spare, other.superblock, 1);
    CHECK(all_ids(check_set(set.spare, nullptr)) == Ids{"RMF-0108"});
    const auto before = set.spare.content();
    CHECK(repair(set.spare).exit_bits(true) == fsck::uncorrected);
    CHECK((set.spare.content() == before));
    CHECK(repair(set.spare, nullptr, true).exit_bits() == fsck::corrected);
    CHECK(all_ids(check_set(set.spare, nullptr)).empty());
}

TEST_CASE("none of two sets' superblocks is replaced while nothing proves whose the table is",
          "[findings]") {
    SampleSet set = sample();
    SampleSet other({4096, 2560, 9, 8, 600, 77});

    // The table is the minority's: what a majority of superblocks says is no proof.
    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++) {
        if (copy != 1)
            write_superblock_copy(set.spare, other.superblock, copy);
    }
    const auto before = set.spare.content();
    const CheckResult result = repair(set.spare, nullptr, true);
    CHECK_FALSE(result.refused.empty());
    CHECK(result.exit_bits() == fsck::uncorrected);
    CHECK((set.spare.content() == before));
}

TEST_CASE("a superblock copy that is half of two writes is called torn", "[findings]") {
    SampleSet set = sample();
    const std::uint64_t sector = set.superblock.sb_sector[2];
    const auto old = set.spare.read(sector, 8);

    set.superblock.members[0].serial = "S2";
    set.superblock.head.generation++;
    // The power went while copy 2 was being written.
    for (unsigned int copy = 0; copy <= 2; copy++)
        write_superblock_copy(set.spare, set.superblock, copy);
    set.spare.write(sector + 1, std::span(old).subspan(sector_size));
    const Ids found = all_ids(check_set(set.spare, nullptr));
    CHECK(std::count(found.begin(), found.end(), "RMF-0118") == 1);
    CHECK(std::count(found.begin(), found.end(), "RMF-0101") == 0);
    CHECK(repair(set.spare).exit_bits(true) == fsck::corrected);
    CHECK(all_ids(check_set(set.spare, nullptr)).empty());
}

TEST_CASE("entries that no set can have are named, and given up with -y", "[findings]") {
    SampleSet set = sample();
    std::uint64_t slot = 0;
    std::string id;

    SECTION("in a slot that holds a superblock") {
        while (!set.superblock.slot_reserved(slot))
            slot++;
        id = "RMF-0305";
    }
    SECTION("beyond the last slot") {
        slot = set.superblock.segment().nr_slots;
        id = "RMF-0302";
    }
    if (slot >= set.superblock.table_length * REMAP_ENTRIES_PER_BLOCK) {
        set.superblock.table_length = slot / REMAP_ENTRIES_PER_BLOCK + 1;
        set.entries.resize(set.superblock.table_length * REMAP_ENTRIES_PER_BLOCK);
    }
    REQUIRE(set.superblock.table_length <= set.superblock.segment().table_blocks());
    set.entries[slot] = Entry::make(REMAP_ENTRY_MAPPED, 2001, REMAP_CAUSE_WRITE, 5, 7777, 1);
    set.write_all();
    CHECK(all_ids(check_set(set.spare, nullptr)) == Ids{"RMF-0216", id});
    repair(set.spare, nullptr, true);
    CHECK(all_ids(check_set(set.spare, nullptr)) == Ids{"RMF-0405"});
}

TEST_CASE("what is unusual about a set but no damage is a note", "[findings]") {
    SampleSet set = sample();
    Ids expected;

    SECTION("the spare has grown") {
        set.spare.content().resize(set.spare.content().size() + (1U << 20));
        expected = {"RMF-0402"};
    }
    SECTION("no label could be written") {
        set.superblock.head.flags |= REMAP_FLAG_LABEL_FROZEN;
        set.write_all();
        expected = {"RMF-0406"};
    }
    SECTION("one label is an epoch behind") {
        Label old = make_label(set.superblock);
        old.epoch = set.superblock.epoch;
        set.new_epoch();
        write_label(set, 0, old);
        expected = {"RMF-0509"};
    }
    SECTION("a label and filler that adoption could not write") {
        for (auto& extent : set.superblock.hidden)
            extent.flags = REMAP_HIDDEN_EXPOSED;
        set.write_all();
        scribble(set.main, set.superblock.label_sector[1], 1, 0);
        scribble(set.main, 3, 1, 0);
        expected = {"RMF-0511", "RMF-0511"};
    }
    SECTION("filler cannot be read") {
        FaultIo main(set.main);
        main.bad_reads = {3};
        const CheckResult result = check_set(set.spare, &main);
        CHECK(all_ids(result) == Ids{"RMF-0512"});
        CHECK(result.exit_bits() == fsck::ok);
        return;
    }
    const auto before = set.spare.content();
    const CheckResult result = repair(set.spare, &set.main);
    CHECK(all_ids(result) == expected);
    CHECK(result.exit_bits() == fsck::ok);
    CHECK((set.spare.content() == before));
}

TEST_CASE("devices with larger logical blocks than the set's are refused", "[findings]") {
    const SampleSet set = sample();
    MemoryIo small_spare("spare", set.spare.content());
    MemoryIo small_main("main", set.main.content());
    MemoryIo large_spare("spare", set.spare.content(), 4096);
    MemoryIo large_main("main", set.main.content(), 4096);

    CHECK(all_ids(check_set(small_spare, &small_main)).empty());
    const CheckResult spare = check_set(large_spare, &small_main);
    CHECK(all_ids(spare) == Ids{"RMF-0408"});
    CHECK(spare.exit_bits(true) == fsck::uncorrected);
    const CheckResult main = check_set(small_spare, &large_main);
    CHECK(all_ids(main) == Ids{"RMF-0513"});
    CHECK(main.exit_bits(true) == fsck::uncorrected);
}

TEST_CASE("a label that cannot be read is written again from another", "[findings]") {
    SampleSet set = sample();
    FaultIo main(set.main);

    main.bad_reads = {set.superblock.label_sector[1]};
    CHECK(all_ids(check_set(set.spare, &main)) == Ids{"RMF-0507"});
    set.main.content()[set.superblock.label_sector[1] * sector_size] ^= 1;
    CHECK(repair(set.spare, &main).exit_bits(true) == fsck::corrected);
    main.bad_reads.clear();
    CHECK(all_ids(check_set(set.spare, &main)).empty());
}

TEST_CASE("a label of a newer format stops every repair", "[findings]") {
    SampleSet set = sample();
    Label newer = make_label(set.superblock);

    newer.head.version = REMAP_VERSION + 1;
    write_label(set, 0, newer);
    flip(set.spare, set.superblock.sb_sector[3], 5000);
    const auto before = set.spare.content();
    const CheckResult result = repair(set.spare, &set.main, true);
    CHECK(all_ids(result) == Ids{"RMF-0101", "RMF-0515"});
    CHECK(result.exit_bits() == fsck::operational);
    CHECK((set.spare.content() == before));
}
