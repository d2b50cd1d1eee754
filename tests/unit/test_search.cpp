// SPDX-License-Identifier: GPL-2.0-or-later
//
// Structures are found wherever they lie, without a superblock that says so.
#include <algorithm>

#include "catch.hpp"
#include "libremap/search.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

SampleSet big_sample() {
    return SampleSet(SampleOptions{8192, 6144, 9, 8, 600, 3});
}

std::vector<FoundRun> of_kind(const SearchResult& result, StructureKind kind) {
    std::vector<FoundRun> runs;

    std::copy_if(result.found.begin(), result.found.end(), std::back_inserter(runs),
                 [kind](const FoundRun& run) { return run.kind == kind; });
    return runs;
}

}  // namespace

TEST_CASE("a search of a whole spare finds all copies of superblock and table") {
    SampleSet set = big_sample();
    const SearchResult result = search_device(set.spare);
    const auto superblocks = of_kind(result, StructureKind::superblock);
    const auto tables = of_kind(result, StructureKind::table_block);

    REQUIRE(superblocks.size() == REMAP_SB_COPIES);
    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++) {
        CHECK(superblocks[copy].sector == set.superblock.sb_sector[copy]);
        CHECK(superblocks[copy].copy == copy);
        CHECK(superblocks[copy].verdict == Verdict::current);
        CHECK(superblocks[copy].set == set.superblock.head.set_uuid);
    }
    REQUIRE(tables.size() == 2);
    for (unsigned int copy = 0; copy < 2; copy++) {
        CHECK(tables[copy].sector == set.superblock.table_sector(0, copy));
        CHECK(tables[copy].count == set.superblock.table_length);
        CHECK(tables[copy].index == 0);
        CHECK(tables[copy].verdict == Verdict::current);
        CHECK(tables[copy].set == set.superblock.head.set_uuid);
        CHECK(tables[copy].newest == set.generation);
        CHECK(tables[copy].in_use == 616);
        CHECK(tables[copy].seed == set.superblock.seed());
    }
    CHECK(result.unreadable.empty());
}

TEST_CASE("a search of a main finds its labels and filler") {
    SampleSet set = big_sample();
    const SearchResult result = search_device(set.main);
    const auto labels = of_kind(result, StructureKind::label);

    REQUIRE(labels.size() == 3);
    CHECK(labels[1].sector == 2);
    CHECK(labels[1].copy == 1);
    std::uint64_t filler = 0;
    for (const FoundRun& run : of_kind(result, StructureKind::filler))
        filler += run.count;
    CHECK(filler == 16 - 3);
}

TEST_CASE("without superblocks the table's checksums agree on a seed") {
    SampleSet set = big_sample();

    for (const std::uint64_t sector : set.superblock.sb_sector)
        scribble(set.spare, sector, 8, 0);
    flip(set.spare, set.superblock.table_sector(1, 1), 9999);
    SearchResult result = search_device(set.spare);
    auto tables = of_kind(result, StructureKind::table_block);
    REQUIRE(tables.size() == 4);
    CHECK(tables[0].verdict == Verdict::current);
    CHECK(tables[0].seed == set.superblock.seed());
    CHECK_FALSE(tables[0].set);
    CHECK(tables[1].count == 1);
    CHECK(tables[2].verdict == Verdict::bad_crc);
    CHECK(tables[3].verdict == Verdict::current);
    // A label on the main tells whose it is.
    SearchOptions options;
    options.known_sets = {{set.superblock.head.set_uuid, set.superblock.head.nonce}};
    tables = of_kind(search_device(set.spare, options), StructureKind::table_block);
    CHECK(tables[0].set == set.superblock.head.set_uuid);
    CHECK_FALSE(tables[2].set);
}

TEST_CASE("a single table block proves nothing without a set that is known") {
    SampleSet set = big_sample();
    const auto block = set.spare.read(set.superblock.table_sector(1, 0), 8);
    MemoryIo disk("disk", 4096);

    disk.write(set.superblock.table_sector(1, 0), block);
    CHECK(search_device(disk).found.at(0).verdict == Verdict::bad_crc);
    SearchOptions options;
    options.known_sets = {{set.superblock.head.set_uuid, set.superblock.head.nonce}};
    CHECK(search_device(disk, options).found.at(0).verdict == Verdict::current);
}

TEST_CASE("a device that lost its beginning, by any number of sectors, is searched all the same") {
    SampleSet set = big_sample();

    for (const std::uint64_t lost : {1U, 7U, 63U, 2049U}) {
        auto content = set.spare.content();
        content.erase(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(lost * 512));
        MemoryIo disk("disk", content);
        const SearchResult result = search_device(disk);
        const auto superblocks = of_kind(result, StructureKind::superblock);
        INFO(lost << " sectors");
        CHECK(superblocks.size() >= 3);
        for (const FoundRun& run : result.found) {
            CHECK(run.shift() == -static_cast<std::int64_t>(lost));
            CHECK(run.verdict == Verdict::misplaced);
        }
    }
}

TEST_CASE("a search goes round what cannot be read, and says where that is") {
    SampleSet set = big_sample();
    FaultIo faulty(set.spare);

    faulty.bad_reads = {20, 21, 100, 2040, 2041, 2047, 2048, 5000};
    const SearchResult result = search_device(faulty);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> runs;
    for (const UnreadableRun& run : result.unreadable)
        runs.emplace_back(run.sector, run.count);
    CHECK(runs == std::vector<std::pair<std::uint64_t, std::uint64_t>>{
                      {20, 2}, {100, 1}, {2040, 2}, {2047, 2}, {5000, 1}});
    CHECK(of_kind(result, StructureKind::superblock).size() == REMAP_SB_COPIES);
}

TEST_CASE("a structure across the border of two reads is found once") {
    for (std::uint64_t sector = 2030; sector < 2050; sector++) {
        SampleSet set = big_sample();
        MemoryIo disk("disk", 4096);
        Superblock sb = set.superblock;
        disk.write(sector, encode_superblock(sb, 1));
        const SearchResult result = search_device(disk);
        INFO("sector " << sector);
        REQUIRE(result.found.size() == 1);
        CHECK(result.found[0].sector == sector);
    }
}

TEST_CASE("structures of two sets are told apart") {
    SampleSet set = big_sample();
    SampleSet other(SampleOptions{8192, 6144, 9, 8, 600, 4});

    for (const std::uint64_t sector : set.superblock.sb_sector)
        scribble(set.spare, sector, 8, 0);
    for (std::uint64_t index = 0; index < 2; index++)
        set.spare.write(set.superblock.table_sector(index, 1),
                        other.spare.read(other.superblock.table_sector(index, 1), 8));
    const auto tables = of_kind(search_device(set.spare), StructureKind::table_block);
    REQUIRE(tables.size() == 3);
    CHECK(tables[0].seed == set.superblock.seed());
    CHECK(tables[1].seed == other.superblock.seed());
    CHECK(tables[2].seed == set.superblock.seed());
}
