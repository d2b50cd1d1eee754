// SPDX-License-Identifier: GPL-2.0-or-later
//
// Does the checker of power cuts see what it is there for?  A correct log of two writes, and what
// a target with a bug would have left instead.
#include <algorithm>
#include <catch.hpp>
#include <cstring>
#include <sstream>
#include <stdexcept>

#include "sample_set.hpp"
#include "states.hpp"

namespace {

constexpr std::uint64_t main_size = 2048;
constexpr std::uint64_t bad_sector = 700;
constexpr std::uint64_t good_sector = 300;
constexpr std::uint32_t slot = 200;  // its entry is not in the sector of the block's header

const char* const journal_text =
    "size 2048 2048\n"
    "step 1 bad-sector\n"
    "write 101 fua ok 700+1\n"
    "step 2 write\n"
    "write 102 cached ok 300+2\n"
    "flush ok\n";

std::vector<std::uint8_t> pattern(crash::Value seed, std::uint64_t sector,
                                  std::uint64_t count = 1) {
    std::vector<std::uint8_t> bytes(count * remap::sector_size);

    for (std::uint64_t i = 0; i < count; i++)
        crash::fill_sector(remap::Bytes(bytes).subspan(i * remap::sector_size, remap::sector_size),
                           seed, sector + i);
    return bytes;
}

/// A bare set without remaps, and the log of the journal above.
struct Recorded {
    crash::Image before;
    crash::WriteLog log;
    remap::Superblock superblock;
    std::uint64_t generation = 0;

    Recorded() {
        remap::test::SampleOptions options;
        options.main_size = options.spare_size = main_size;
        options.hidden_each_end = 0;
        options.remaps = 0;
        remap::test::SampleSet set(options);
        superblock = set.superblock;
        generation = set.generation;
        before = {pattern(crash::Journal::initial, 0, main_size), main_size, main_size};
        const auto& spare = set.spare.content();
        before.bytes.insert(before.bytes.end(), spare.begin(), spare.end());

        set.entries[slot] =
            remap::Entry::make(REMAP_ENTRY_MAPPED, bad_sector, REMAP_CAUSE_WRITE, 5, 9, 1);
        add(0, main_size + superblock.slot_sector(slot), pattern(101, bad_sector));
        add(crash::LogEntry::flush);
        for (unsigned int copy = 0; copy < 2; copy++) {
            const auto bytes =
                remap::table_block_bytes(superblock, copy, 0, set.generation + 1,
                                         std::span(set.entries).first(REMAP_ENTRIES_PER_BLOCK));
            add(crash::LogEntry::fua, main_size + superblock.table_sector(0, copy),
                {bytes.begin(), bytes.end()});
        }
        mark("s1");
        add(0, good_sector, pattern(102, good_sector, 2));
        add(crash::LogEntry::flush);
        mark("s2");
        mark(crash::end_mark);
    }

    void add(std::uint64_t flags, std::uint64_t sector = 0, std::vector<std::uint8_t> data = {}) {
        log.push_back({flags, sector, std::move(data), {}});
    }

    void mark(const std::string& name) { log.push_back({crash::LogEntry::mark, 0, {}, name}); }

    crash::Tally check() const {
        std::istringstream text(journal_text);
        const crash::Journal journal(text);
        crash::Replay replay(before, log);
        crash::Campaign campaign(replay, journal, 1);
        crash::Tally tally;

        campaign.run(true, 3, tally);
        for (const crash::Violation& violation : tally.violations) {
            const auto state = crash::State::parse(violation.state);
            CHECK(state.str() == violation.state);
            CHECK(campaign.check(state) == violation.what);
        }
        return tally;
    }
};

// Entries of the log above.
constexpr std::size_t slot_data = 0;
constexpr std::size_t flush_before_commit = 1;
constexpr std::size_t first_copy = 2;
constexpr std::size_t second_copy = 3;

auto at(crash::WriteLog& log, std::size_t entry) {
    return log.begin() + static_cast<std::ptrdiff_t>(entry);
}

}  // namespace

TEST_CASE("a log in the right order has no state that breaks a promise") {
    const crash::Tally tally = Recorded().check();

    CHECK(tally.violation_count == 0);
    CHECK(tally.states > 40);
    CHECK(crash::missing_kinds(tally, {"bad-sector torn table", "write torn main", "nothing"}) ==
          std::vector<std::string>{"nothing"});
}

TEST_CASE("what a later step writes is not there before that step") {
    Recorded recorded;
    const auto table = [&recorded](std::uint64_t generation, std::uint64_t block) {
        std::vector<remap::Entry> entries(REMAP_ENTRIES_PER_BLOCK);
        if (block != 0)
            entries[slot] =
                remap::Entry::make(REMAP_ENTRY_MAPPED, block, REMAP_CAUSE_WRITE, 5, 9, 1);
        for (unsigned int copy = 0; copy < 2; copy++) {
            const auto bytes = remap::table_block_bytes(recorded.superblock, copy, 0,
                                                        recorded.generation + generation, entries);
            recorded.add(crash::LogEntry::fua,
                         main_size + recorded.superblock.table_sector(0, copy),
                         {bytes.begin(), bytes.end()});
        }
    };
    const std::uint64_t slot_sector = main_size + recorded.superblock.slot_sector(slot);

    // Remapped to begin with.
    recorded.log.clear();
    table(1, bad_sector);
    recorded.add(0, slot_sector, pattern(crash::Journal::initial, bad_sector));
    for (const crash::LogEntry& entry : recorded.log)
        std::copy(entry.data.begin(), entry.data.end(),
                  recorded.before.bytes.begin() +
                      static_cast<std::ptrdiff_t>(entry.sector * remap::sector_size));
    // It goes home, its slot is free, and another takes it with no flush in between.
    recorded.log.clear();
    recorded.add(crash::LogEntry::fua, bad_sector, pattern(101, bad_sector));
    table(2, 0);
    recorded.mark("s1");
    recorded.add(0, slot_sector, pattern(102, good_sector));
    recorded.add(0, good_sector + 1, pattern(102, good_sector + 1));
    recorded.add(crash::LogEntry::flush);
    table(3, good_sector);
    recorded.mark("s2");
    recorded.mark(crash::end_mark);
    CHECK(recorded.check().violation_count == 0);
    // While the free entry is in a cache the slot must not be used.
    for (const std::size_t entry : {1U, 2U})
        recorded.log[entry].flags = 0;
    CHECK(recorded.check().violation_count > 0);
}

TEST_CASE("an entry that is durable before its slot is found") {
    Recorded recorded;

    // as dm-log-writes logs it when nobody flushes in between
    const crash::LogEntry data = recorded.log[slot_data];
    recorded.log.erase(at(recorded.log, slot_data), at(recorded.log, first_copy));
    recorded.log.insert(at(recorded.log, 3), data);
    CHECK(recorded.check().violation_count > 0);
}

TEST_CASE("an entry that is in the cache when its write is acknowledged is found") {
    Recorded recorded;

    for (const std::size_t entry : {first_copy, second_copy})
        recorded.log[entry].flags = 0;
    CHECK(recorded.check().violation_count > 0);
}

TEST_CASE("a copy of the table that is overwritten while the other is torn is found") {
    Recorded recorded;
    const std::uint64_t other = main_size + recorded.superblock.table_sector(0, 1);

    std::memset(recorded.before.bytes.data() + (other + 1) * remap::sector_size, 0x5a, 512);
    const crash::Tally tally = recorded.check();
    REQUIRE(tally.violation_count > 0);
    CHECK(tally.violations.front().what.find("does not open") == 0);
    std::swap(recorded.log[first_copy], recorded.log[second_copy]);
    CHECK(recorded.check().violation_count == 0);
}

TEST_CASE("a write that did not happen, or of something else, is found") {
    Recorded recorded;

    SECTION("a flipped bit in the slot") {
        recorded.log[slot_data].data[77] ^= 4;
    }
    SECTION("the data of another sector") {
        recorded.log[slot_data].data = pattern(101, bad_sector + 1);
    }
    SECTION("no commit") {
        recorded.log.erase(at(recorded.log, first_copy), at(recorded.log, second_copy + 1));
    }
    SECTION("a flush that was acknowledged and is not there") {
        const auto flushed =
            std::find_if(at(recorded.log, second_copy), recorded.log.end(),
                         [](const auto& e) { return e.is(crash::LogEntry::flush); });
        recorded.log.erase(flushed);
    }
    CHECK(recorded.check().violation_count > 0);
}

TEST_CASE("a log is read as the kernel writes it") {
    remap::MemoryIo device("log", 64);
    const auto put = [&device](std::uint64_t sector, std::size_t offset, std::uint64_t value) {
        std::memcpy(device.content().data() + sector * remap::sector_size + offset, &value, 8);
    };

    put(0, 0, 0x6a736677736872);
    put(0, 8, 1);
    put(0, 16, 2);
    put(0, 24, 512);
    put(1, 0, 17);  // a write of two sectors with FUA
    put(1, 8, 2);
    put(1, 16, crash::LogEntry::fua);
    device.content()[3 * remap::sector_size] = 0xab;
    put(4, 16, crash::LogEntry::mark);
    put(4, 24, std::strlen(crash::end_mark));
    std::memcpy(device.content().data() + 4 * remap::sector_size + 32, crash::end_mark,
                std::strlen(crash::end_mark));

    const crash::WriteLog log = crash::read_write_log(device);
    REQUIRE(log.size() == 2);
    CHECK(log[0].sector == 17);
    CHECK(log[0].sectors() == 2);
    CHECK(log[0].data[remap::sector_size] == 0xab);
    CHECK(log[1].name == crash::end_mark);

    put(0, 16, 1);
    CHECK_THROWS_AS(crash::read_write_log(device), std::runtime_error);
    put(0, 16, 2);
    put(1, 8, 1U << 30);
    CHECK_THROWS_AS(crash::read_write_log(device), std::runtime_error);
    put(0, 0, 0);
    CHECK_THROWS_AS(crash::read_write_log(device), std::runtime_error);
}

TEST_CASE("what a sector may hold depends on what was acknowledged and flushed") {
    std::istringstream text(
        "size 100 100\n"
        "step 1 a\nwrite 101 cached ok 10+1\n"
        "step 2 b\nwrite 102 cached failed 10+1\n"
        "step 3 c\nwrite 103 cached ok 10+1\n"
        "step 4 d\nflush failed\n"
        "step 5 e\nflush ok\n"
        "step 6 f\nlost ok 10+1\n"
        "step 7 g\nwrite 107 fua ok 10+1\n");
    const crash::Journal journal(text);
    const auto allowed = [&journal](crash::Step done, crash::Step begun) {
        return journal.allowed(10, done, begun).str();
    };

    CHECK(allowed(0, 0) == "1");
    CHECK(allowed(0, 1) == "1 or 101 or an error");
    CHECK(allowed(1, 1) == "1 or 101 or an error");
    CHECK(allowed(1, 3) == "1 or 101 or 102 or 103 or an error");
    CHECK(allowed(4, 5) == "1 or 101 or 102 or 103 or an error");
    CHECK(allowed(5, 5) == "103");
    CHECK(allowed(5, 6) == "103 or an error");
    CHECK(allowed(6, 6) == "an error");
    CHECK(allowed(6, 7) == "107 or an error");
    CHECK(allowed(7, 7) == "107");
    CHECK(journal.allowed(11, 7, 7).str() == "1");
}

TEST_CASE("a journal that is not understood is refused") {
    for (const char* text :
         {"", "step 1 a\n", "size 9 9\nstep 2 a\n", "size 9 9\nwrite 1 fua ok 1+1\n",
          "size 9 9\nstep 1 a\nwrite 1 fua ok 8+2\n", "size 9 9\nstep 1 a\nbake\n"}) {
        std::istringstream stream(text);
        CHECK_THROWS_AS(crash::Journal(stream), std::runtime_error);
    }
}
