// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <map>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/metadata.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

Exit load_failure(BlockIo& io) {
    try {
        load_superblock(io);
    } catch (const Error& error) {
        CHECK(std::string(error.what()).find(io.name()) != std::string::npos);
        return error.code();
    }
    return Exit::ok;
}

/// A larger or smaller device with the same beginning.
MemoryIo resized(const MemoryIo& from, std::uint64_t sectors) {
    auto content = from.content();
    content.resize(sectors * sector_size);
    return {"resized.img", std::move(content)};
}

}  // namespace

TEST_CASE("the newest superblock wins, however many copies hold it") {
    SampleSet set;

    for (unsigned int copies = 1; copies <= REMAP_SB_COPIES; copies++) {
        set.superblock.updated += 1;
        set.superblock.head.generation++;
        for (unsigned int i = 0; i < copies; i++)
            write_superblock_copy(set.spare, set.superblock, i);
        CHECK(load_superblock(set.spare).updated == set.superblock.updated);
    }
}

TEST_CASE("any single superblock copy is enough") {
    for (unsigned int left = 0; left < REMAP_SB_COPIES; left++) {
        SampleSet set;
        for (unsigned int i = 0; i < REMAP_SB_COPIES; i++) {
            if (i != left)
                scribble(set.spare, set.superblock.sb_sector[i], 8);
        }
        CHECK(load_superblock(set.spare).head.set_uuid == set.superblock.head.set_uuid);
        const auto scan = scan_superblocks(set.spare);
        CHECK(scan.count(Verdict::current) == 1);
        CHECK(scan.count(Verdict::absent) == 4);
    }
}

TEST_CASE("recorded places are found after the device grew or shrank") {
    const SampleSet set;

    for (const std::uint64_t size : {4097ULL, 5000ULL, 8192ULL, 100000ULL}) {
        MemoryIo grown = resized(set.spare, size);
        const auto scan = scan_superblocks(grown);
        INFO(size);
        REQUIRE(scan.winner);
        CHECK(scan.count(Verdict::current) == REMAP_SB_COPIES);
        CHECK_FALSE(check_geometry(*scan.winner, size));
    }
    for (const std::uint64_t size : {2048ULL, 3000ULL, 4095ULL}) {
        MemoryIo shrunk = resized(set.spare, size);
        const auto scan = scan_superblocks(shrunk);
        INFO(size);
        REQUIRE(scan.winner);
        CHECK(scan.copies.size() == REMAP_SB_COPIES);
        CHECK(check_geometry(*scan.winner, size));
    }
}

TEST_CASE("an odd end of the device does not matter") {
    const SampleSet set(SampleOptions{4096, 4101, 9, 8, 5, 1});
    MemoryIo image = resized(set.spare, 4101);

    CHECK(scan_superblocks(image).count(Verdict::current) == REMAP_SB_COPIES);
}

TEST_CASE("superblocks of two sets open nothing") {
    SampleSet ours;
    SampleSet other(SampleOptions{4096, 4096, 9, 8, 20, 2});

    other.superblock.head.generation += 1000;
    write_superblock_copy(ours.spare, other.superblock, 3);
    auto scan = scan_superblocks(ours.spare);
    CHECK(scan.ambiguous);
    CHECK_FALSE(scan.winner);
    REQUIRE(scan.majority);
    CHECK(scan.majority->head.set_uuid == ours.superblock.head.set_uuid);
    CHECK(load_failure(ours.spare) == Exit::unrecognised);

    // The same for an earlier life of the same set.
    SampleSet again;
    again.superblock.head.nonce++;
    write_superblock_copy(again.spare, again.superblock, 0);
    CHECK(scan_superblocks(again.spare).ambiguous);
}

TEST_CASE("different superblocks of one generation open nothing") {
    SampleSet set;

    set.superblock.updated++;
    write_superblock_copy(set.spare, set.superblock, 2);
    const auto scan = scan_superblocks(set.spare);
    CHECK(scan.conflict);
    CHECK_FALSE(scan.winner);
    CHECK(load_failure(set.spare) == Exit::unrecognised);
}

TEST_CASE("a newer format is refused as such") {
    SampleSet set;

    SECTION("with a checksum that we understand, on one copy") {
        set.superblock.head.version = 2;
        write_superblock_copy(set.spare, set.superblock, 4);
    }
    SECTION("with one that we do not, on all") {
        for (const std::uint64_t sector : set.superblock.sb_sector)
            set.spare.content()[sector * sector_size + 20] = 3;
    }
    SECTION("with an unknown incompat feature") {
        set.superblock.head.incompat = 1;
        write_superblock(set.spare, set.superblock);
    }
    CHECK(scan_superblocks(set.spare).newer_version);
    CHECK(load_failure(set.spare) == Exit::operational);
}

TEST_CASE("one flipped bit in the version of one copy is damage, not a newer format") {
    SampleSet set;

    flip(set.spare, set.superblock.sb_sector[1], 20 * 8 + 4);
    const auto scan = scan_superblocks(set.spare);
    CHECK_FALSE(scan.newer_version);
    CHECK(scan.winner);
}

TEST_CASE("what is not ours is not recognised") {
    MemoryIo zeroes("zeroes", 4096);
    MemoryIo tiny("tiny", 3);
    MemoryIo empty("empty", 0);
    SampleSet set;

    CHECK(load_failure(zeroes) == Exit::unrecognised);
    CHECK(load_failure(tiny) == Exit::unrecognised);
    CHECK(load_failure(empty) == Exit::unrecognised);
    CHECK(load_failure(set.main) == Exit::unrecognised);
    CHECK(explain(scan_superblocks(set.main)).find("no superblock") != std::string::npos);
}

TEST_CASE("unreadable superblocks are an I/O error, not a foreign device") {
    SampleSet set;
    FaultIo fault(set.spare);

    for (const std::uint64_t sector : set.superblock.sb_sector)
        fault.bad_reads.insert(sector + 3);
    CHECK(load_failure(fault) == Exit::operational);
    fault.bad_reads.erase(set.superblock.sb_sector[2] + 3);
    // The only readable copy is found, for the size gives its place.
    CHECK(load_superblock(fault).head.set_uuid == set.superblock.head.set_uuid);
}

TEST_CASE("the table is loaded as it was written") {
    const SampleOptions options{1 << 16, 1 << 16, 9, 8, 3000, 7};
    SampleSet set(options);
    const Table table = load_intact_table(set.spare, set.superblock);

    CHECK(table.entries == set.entries);
    CHECK(table.problems.empty());
    CHECK(table.highest_generation == set.generation);
    const auto mappings = live_mappings(table);
    CHECK(mappings.size() == 3016);
    CHECK(std::is_sorted(mappings.begin(), mappings.end(),
                         [](const Mapping& a, const Mapping& b) { return a.block < b.block; }));
}

TEST_CASE("of two table copies the newer valid one wins, block by block") {
    SampleSet set(SampleOptions{1 << 16, 1 << 16, 9, 8, 2000, 7});
    auto newer = set.entries;

    newer[300] = Entry::make(REMAP_ENTRY_LOST, 9, REMAP_CAUSE_MESSAGE, 0, 9999, 1);
    write_table_copy(set.spare, set.superblock, 1, 1, set.generation + 1,
                     std::span(newer).subspan(REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK));
    scribble(set.spare, set.superblock.table_sector(0, 0), 1);
    const Table table = load_table(set.spare, set.superblock);
    CHECK(table.entries == newer);
    CHECK(table.lost.empty());
    REQUIRE(table.problems.size() == 2);
    CHECK(table.problems[0].index == 0);
    CHECK(table.problems[0].verdict == Verdict::absent);
    CHECK(table.problems[1].index == 1);
    CHECK(table.problems[1].copy == 0);
    CHECK(table.problems[1].verdict == Verdict::stale);
}

TEST_CASE("a table block without a valid copy is lost, the others are not") {
    SampleSet set(SampleOptions{1 << 16, 1 << 16, 9, 8, 2000, 7});

    flip(set.spare, set.superblock.table_sector(2, 0), 1000);
    flip(set.spare, set.superblock.table_sector(2, 1), 2000);
    const Table table = load_table(set.spare, set.superblock);
    CHECK(table.lost == std::vector<std::uint64_t>{2});
    CHECK(table.is_lost(2));
    CHECK_FALSE(table.is_lost(1));
    CHECK(table.entries[504] == Entry{});
    CHECK(table.entries[REMAP_ENTRIES_PER_BLOCK] == set.entries[REMAP_ENTRIES_PER_BLOCK]);
    CHECK_THROWS_AS(load_intact_table(set.spare, set.superblock), Error);
}

TEST_CASE("an unreadable sector costs one table block of one copy") {
    SampleSet set(SampleOptions{1 << 16, 1 << 16, 9, 8, 2000, 7});
    FaultIo fault(set.spare);

    fault.bad_reads = {set.superblock.table_sector(3, 0) + 5};
    const Table table = load_table(fault, set.superblock);
    REQUIRE(table.problems.size() == 1);
    CHECK(table.problems[0].index == 3);
    CHECK(table.problems[0].verdict == Verdict::unreadable);
    CHECK(table.problems[0].error == EIO);
    CHECK(table.entries == set.entries);
}

TEST_CASE("of several entries for a block the newest by sequence wins") {
    Table table;
    const auto entry = [](std::uint64_t block, std::uint32_t sequence) {
        return Entry::make(REMAP_ENTRY_MAPPED, block, REMAP_CAUSE_WRITE, 0, sequence, 0);
    };

    table.entries = {entry(7, 5), entry(8, 1), entry(7, 9),        entry(9, 3), entry(9, 3),
                     entry(5, 1), entry(7, 2), entry(4, 0xffffff), entry(4, 0)};
    const auto duplicates = find_duplicates(table);
    REQUIRE(duplicates.size() == 3);
    CHECK(duplicates[0].block == 4);
    CHECK(duplicates[0].winner == 8);
    CHECK(duplicates[1].block == 7);
    CHECK(duplicates[1].slots == std::vector<std::uint64_t>{0, 2, 6});
    CHECK(duplicates[1].winner == 2);
    CHECK(duplicates[2].block == 9);
    CHECK_FALSE(duplicates[2].winner);

    const auto mappings = live_mappings(table);
    REQUIRE(mappings.size() == 5);
    CHECK(mappings[2].block == 7);
    CHECK(mappings[2].slot == 2);
    CHECK(mappings[4].undecidable);
}

TEST_CASE("entries that stand for nothing make no duplicates") {
    Table table;

    table.entries = {Entry::make(REMAP_ENTRY_BAD, 7, REMAP_CAUSE_SLOT, 5, 1, 0),
                     Entry::make(REMAP_ENTRY_MAPPED, 7, REMAP_CAUSE_SLOT, 5, 2, 0), Entry{},
                     Entry{}};
    CHECK(find_duplicates(table).empty());
    CHECK(live_mappings(table).size() == 1);
}

TEST_CASE("duplicates are found among blocks that were chosen to crowd the search") {
    // Of one group, and for the same place of its table: the hash of duplicates.hpp backwards.
    constexpr std::uint64_t factor = 0x9e3779b97f;
    constexpr std::uint64_t most = (1ULL << 40) - 1;
    constexpr std::uint64_t blocks = 3000;
    std::uint64_t inverse = factor;
    Table table;

    for (int round = 0; round < 6; round++)
        inverse *= 2 - factor * inverse;
    const auto block = [&](std::uint64_t i) {
        const std::uint64_t hash = 7ULL << 32 | i << 16 | 5;
        return ((hash ^ hash >> 20) * inverse) & most;
    };
    for (std::uint64_t i = 0; i < blocks; i++)
        table.entries.push_back(Entry::make(REMAP_ENTRY_MAPPED, block(i), REMAP_CAUSE_WRITE, 5,
                                            static_cast<std::uint32_t>(i), 0));
    CHECK(find_duplicates(table).empty());
    for (const std::uint64_t i : {std::uint64_t{0}, blocks / 2, blocks - 1})
        table.entries.push_back(
            Entry::make(REMAP_ENTRY_MAPPED, block(i), REMAP_CAUSE_WRITE, 5, blocks, 0));
    const auto found = find_duplicates(table);
    REQUIRE(found.size() == 3);
    for (const Duplicate& d : found) {
        REQUIRE(d.slots.size() == 2);
        CHECK(table.entries[d.slots[0]].block() == d.block);
        CHECK(table.entries[d.slots[1]].block() == d.block);
        CHECK(d.winner == d.slots[1]);
    }
}

TEST_CASE("duplicates found are those that a plain count finds") {
    std::mt19937 random(5);

    for (int round = 0; round < 30; round++) {
        Table table;
        std::map<std::uint64_t, int> count;
        for (int i = 0; i < 5000; i++) {
            const std::uint64_t block = random() % (round < 15 ? 50000 : 3000);
            table.entries.push_back(Entry::make(REMAP_ENTRY_MAPPED, block, REMAP_CAUSE_WRITE, 0,
                                                static_cast<std::uint32_t>(i), 0));
            count[block]++;
        }
        const auto expected =
            std::count_if(count.begin(), count.end(), [](const auto& c) { return c.second > 1; });
        CHECK(find_duplicates(table).size() == static_cast<std::size_t>(expected));
        CHECK(live_mappings(table).size() == count.size());
    }
}

TEST_CASE("a slot may be used if it is initialised, in range, free and not reserved") {
    SampleSet set;
    const Table table = load_table(set.spare, set.superblock);
    const std::uint64_t reserved =
        set.superblock.sb_sector[1] - set.superblock.segment().data_start;

    CHECK_FALSE(slot_allocatable(set.superblock, table, 0));
    CHECK(slot_allocatable(set.superblock, table, 40));
    CHECK_FALSE(slot_allocatable(set.superblock, table, reserved));
    CHECK_FALSE(slot_allocatable(set.superblock, table, table.entries.size()));
    CHECK_FALSE(slot_allocatable(set.superblock, table, ~0ULL));
}

TEST_CASE("generations rise, and with the epoch") {
    CHECK(next_generation(3, 0) == 3ULL << 32);
    CHECK(next_generation(3, (3ULL << 32) + 5) == (3ULL << 32) + 6);
    CHECK(next_generation(3, (4ULL << 32) + 5) == (4ULL << 32) + 6);
}

TEST_CASE("no generation is used again that a torn superblock names") {
    SampleSet set;
    const std::uint64_t newest = set.superblock.head.generation;
    const std::uint64_t torn = GENERATE_COPY(newest + 7, newest + (1ULL << 32),
                                             newest + (2ULL << 32), newest | 0x80000000ULL);
    Superblock next = set.superblock;
    auto bytes = set.spare.read(set.superblock.sb_sector[0], REMAP_SB_SECTORS);

    // The first sector has arrived, the others have not.
    next.head.generation = torn;
    next.updated++;
    next.members.at(0).serial = "torn";
    write_superblock_copy(set.spare, next, 0);
    set.spare.write(set.superblock.sb_sector[0] + 1, ConstBytes(bytes).subspan(sector_size));

    const SuperblockScan scan = scan_superblocks(set.spare);
    REQUIRE(scan.winner);
    CHECK(scan.count(Verdict::bad_crc) == 1);
    const bool of_this_life = torn == newest + 7 || torn == newest + (1ULL << 32);
    CHECK(scan.highest_generation == (of_this_life ? torn : newest));
}

TEST_CASE("a superblock that does not reach a quorum of places is an error") {
    SampleSet set;
    FaultIo fault(set.spare);

    fault.bad_writes = {set.superblock.sb_sector[0], set.superblock.sb_sector[3]};
    CHECK(write_superblock(fault, set.superblock) == 3);
    fault.bad_writes.insert(set.superblock.sb_sector[4]);
    CHECK_THROWS_AS(write_superblock(fault, set.superblock), Error);
}

TEST_CASE("wiping leaves no superblock, of this size or a former one") {
    SampleSet set;
    MemoryIo grown = resized(set.spare, 9000);

    wipe_superblocks(grown);
    CHECK(load_failure(grown) == Exit::unrecognised);
    CHECK(scan_superblocks(grown).copies.size() == REMAP_SB_COPIES);
    for (const auto& copy : scan_superblocks(grown).copies)
        CHECK(copy.verdict == Verdict::absent);
    MemoryIo back = resized(grown, 4096);
    CHECK(load_failure(back) == Exit::unrecognised);
}
