// SPDX-License-Identifier: GPL-2.0-or-later
//
// A superblock of which no copy is left is made anew from what else there is.
#include <algorithm>

#include "catch.hpp"
#include "libremap/check.hpp"
#include "libremap/rebuild.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

using Ids = std::vector<std::string>;

SampleSet big_sample() {
    return SampleSet(SampleOptions{8192, 4096, 9, 8, 600, 3});
}

void wipe_superblocks_of(SampleSet& set) {
    for (const std::uint64_t sector : set.superblock.sb_sector)
        scribble(set.spare, sector, 8, 0);
}

/// Nothing is rebuilt and nothing is written.
void check_refused(SampleSet& set) {
    const auto spare = set.spare.content();
    const auto main = set.main.content();
    const CheckResult result = repair(set.spare, &set.main, true);

    CHECK_FALSE(result.superblock);
    CHECK(result.exit_bits() == fsck::operational);
    CHECK((set.spare.content() == spare));
    CHECK((set.main.content() == main));
}

}  // namespace

TEST_CASE("with the main, lost superblocks are made anew, read-only until that is confirmed") {
    SampleSet set = big_sample();

    SECTION("blocks of 512 bytes") {}
    SECTION("blocks of 4096 bytes") {
        set = SampleSet(SampleOptions{16384, 8192, 12, 8, 100, 3});
    }
    SECTION("a damaged table block besides") {
        flip(set.spare, set.superblock.table_sector(0, 1), 9999);
    }
    const Superblock was = set.superblock;
    wipe_superblocks_of(set);
    const auto untouched = set.spare.content();
    CheckResult found = repair(set.spare, &set.main);
    CHECK((set.spare.content() == untouched));
    Ids found_ids = ids(found);
    CHECK(std::count(found_ids.begin(), found_ids.end(), "RMF-0119") == 1);
    CHECK(found.exit_bits(true) == fsck::uncorrected);

    const CheckResult repaired = repair(set.spare, &set.main, true);
    CHECK(repaired.exit_bits() == (fsck::corrected | fsck::uncorrected));
    // What else is damaged is the next run's.
    repair(set.spare, &set.main, true);
    CheckResult after = check_set(set.spare, &set.main);
    CHECK(ids(after) == Ids{"RMF-0405"});
    REQUIRE(after.superblock);
    const Superblock& sb = *after.superblock;
    CHECK(sb.head.set_uuid == was.head.set_uuid);
    CHECK(sb.head.nonce == was.head.nonce);
    CHECK(sb.head.member_uuid == was.head.member_uuid);
    CHECK(sb.head.partner_uuid == was.head.partner_uuid);
    CHECK(sb.head.block_shift == was.head.block_shift);
    CHECK(sb.head.generation > was.head.generation);
    CHECK(sb.head.flags == REMAP_FLAG_READ_ONLY);
    CHECK(sb.epoch > was.epoch);
    CHECK(sb.label_epoch == was.label_epoch);
    CHECK(sb.live_copies == was.live_copies);
    CHECK(sb.main_size == was.main_size);
    CHECK(sb.table_length == was.table_length);
    CHECK(sb.sb_sector == was.sb_sector);
    CHECK(sb.segments == was.segments);
    CHECK(sb.hidden == was.hidden);
    CHECK(sb.label_sector == was.label_sector);
    CHECK(after.table.entries == set.entries);
    apply_plan(after, set.spare, &set.main,
               [](const Finding& f) { return f.problem->repair == Repair::on_request; });
    CHECK(check_set(set.spare, &set.main).exit_bits() == fsck::ok);
}

TEST_CASE("a table copy that is behind is taken for dead") {
    SampleSet set = big_sample();

    set.entries[300] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 9999, 1);
    write_table_copy(set.spare, set.superblock, 0, 1, set.generation + 1,
                     std::span(set.entries).subspan(252, 252));
    wipe_superblocks_of(set);
    CHECK(ids(check_set(set.spare, &set.main)) == Ids{"RMF-0119", "RMF-0209", "RMF-0405"});
    repair(set.spare, &set.main, true);
    repair(set.spare, &set.main, true);
    const CheckResult after = check_set(set.spare, &set.main);
    CHECK(ids(after) == Ids{"RMF-0405"});
    CHECK(after.superblock->live_copies == 3);
    CHECK(after.table.entries == set.entries);
}

TEST_CASE("exposed blocks stay hidden") {
    SampleSet set = big_sample();

    scribble(set.main, 3, 1);
    wipe_superblocks_of(set);
    std::string why;
    const auto rebuilt = rebuild_superblock(set.spare, set.main, why);
    REQUIRE(rebuilt);
    CHECK(rebuilt->superblock.block_hidden(3));
    CHECK(rebuilt->superblock.hidden[0].flags == REMAP_HIDDEN_EXPOSED);
}

TEST_CASE("what does not prove enough is not made a superblock") {
    SampleSet set = big_sample();
    wipe_superblocks_of(set);

    SECTION("a main without labels") {
        for (const std::uint64_t sector : set.superblock.label_sector)
            scribble(set.main, sector, 1, 0);
    }
    SECTION("the main of another set") {
        set.main = SampleSet(SampleOptions{8192, 4096, 9, 8, 600, 4}).main;
    }
    SECTION("labels of two sets") {
        const SampleSet other(SampleOptions{8192, 4096, 9, 8, 600, 4});
        set.main.write(2, encode_label(make_label(other.superblock), 1, 2));
    }
    SECTION("a label that is missing in the middle") {
        scribble(set.main, 2, 1);
    }
    SECTION("only one copy of the table") {
        scribble(set.spare, set.superblock.table_sector(0, 1), 24);
    }
    SECTION("a spare of another size") {
        auto content = set.spare.content();
        content.resize(content.size() + 80 * 512);
        set.spare = MemoryIo("spare.img", content);
    }
    SECTION("copies that contradict each other") {
        auto other = set.entries;
        other[2] = Entry::make(REMAP_ENTRY_MAPPED, 5000, REMAP_CAUSE_WRITE, 5, 9, 1);
        write_table_copy(set.spare, set.superblock, 1, 0, set.generation,
                         std::span(other).first(REMAP_ENTRIES_PER_BLOCK));
    }
    check_refused(set);
}

TEST_CASE("without the main nothing is made anew") {
    SampleSet set = big_sample();

    wipe_superblocks_of(set);
    const CheckResult result = repair(set.spare, nullptr, true);
    CHECK(ids(result) == Ids{"RMF-0116"});
    CHECK(result.exit_bits() == fsck::operational);
}
