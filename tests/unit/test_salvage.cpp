// SPDX-License-Identifier: GPL-2.0-or-later
//
// What is got back when no copy of a structure is whole.
#include <algorithm>
#include <array>
#include <bit>
#include <random>

#include "catch.hpp"
#include "libremap/check.hpp"
#include "libremap/crc.hpp"
#include "libremap/salvage.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

using Ids = std::vector<std::string>;
using Image = std::vector<std::uint8_t>;

/// Two table blocks of 252 slots in use, and some of a third.
SampleSet full_sample() {
    return SampleSet(SampleOptions{8192, 4096, 9, 8, 600, 3});
}

/// What damages a sector in the tests where it does not matter how.
void spoil(MemoryIo& io, std::uint64_t sector) {
    for (std::uint64_t bit = 7; bit < 4096; bit += 512)
        flip(io, sector, bit);
}

}  // namespace

TEST_CASE("a checksum is the exclusive or of what its pieces contribute") {
    std::mt19937 random(4);

    for (int round = 0; round < 50; round++) {
        std::vector<std::uint8_t> bytes(64 + random() % 4096);
        for (std::uint8_t& byte : bytes)
            byte = static_cast<std::uint8_t>(random());
        std::fill_n(bytes.begin() + 8, 4, std::uint8_t{0});
        const std::uint32_t seed = static_cast<std::uint32_t>(random());
        const std::size_t cut = 12 + random() % (bytes.size() - 12);
        const ConstBytes all(bytes);
        const std::uint32_t reg = crc_shift(~seed, bytes.size()) ^
                                  crc_contribution(all.first(cut), bytes.size() - cut) ^
                                  crc_contribution(all.subspan(cut), 0);
        CHECK(~reg == crc_structure(seed, bytes, 8));
        CHECK(crc_unshift(crc_shift(seed, bytes.size()), bytes.size()) == seed);
    }
}

TEST_CASE("copies damaged in different sectors make up a whole block, which -p writes") {
    const SampleSet good = full_sample();
    SampleSet set = good;

    for (unsigned int mask = 1; mask < 255; mask++) {
        for (unsigned int s = 0; s < 8; s++) {
            const unsigned int copy = (mask >> s & 1) != 0 ? 0 : 1;
            spoil(set.spare, set.superblock.table_sector(1, copy) + s);
        }
        INFO("mask " << mask);
        const CheckResult found = check_set(set.spare, nullptr);
        REQUIRE(ids(found) == Ids{"RMF-0214"});
        CHECK(found.exit_bits() == fsck::uncorrected);
        CHECK(found.table.entries == good.entries);
        CHECK(repair(set.spare).exit_bits() == fsck::corrected);
        REQUIRE((set.spare.content() == good.spare.content()));
    }
    CHECK(check_set(set.spare, nullptr).exit_bits() == fsck::ok);
}

TEST_CASE("damage in different parts of both headers is made good") {
    const SampleSet good = full_sample();

    // Bits of magic, copy, index, position and reserved bytes need no donor at all; generation,
    // count and entries come from one copy, the checksum from the other.
    for (const std::uint64_t bit : {3U, 99U, 105U, 130U, 260U, 400U}) {
        for (const std::uint64_t other : {115U, 195U, 530U, 4000U}) {
            SampleSet set = good;
            flip(set.spare, set.superblock.table_sector(1, 0), bit);
            flip(set.spare, set.superblock.table_sector(1, 1), other);
            INFO("bits " << bit << " and " << other);
            CHECK(ids(check_set(set.spare, nullptr)) == Ids{"RMF-0214"});
            CHECK(repair(set.spare).exit_bits() == fsck::corrected);
            CHECK((set.spare.content() == good.spare.content()));
        }
    }
}

TEST_CASE("a block whose same sector is damaged in all copies is lost") {
    SampleSet set = full_sample();

    for (unsigned int s = 0; s < 8; s++) {
        SampleSet damaged = set;
        spoil(damaged.spare, set.superblock.table_sector(1, 0) + s);
        flip(damaged.spare, set.superblock.table_sector(1, 1) + s, 2000);
        INFO("sector " << s);
        CHECK_FALSE(recombine_table_block(damaged.spare, set.superblock, 1));
        const CheckResult found = check_set(damaged.spare, nullptr);
        CHECK(found.table.lost == std::vector<std::uint64_t>{1});
    }
}

TEST_CASE("sectors that cannot be read come from the other copy") {
    SampleSet set = full_sample();
    const Image good = set.spare.content();
    FaultIo faulty(set.spare);

    faulty.bad_reads = {set.superblock.table_sector(1, 0) + 2, set.superblock.table_sector(1, 1)};
    spoil(set.spare, set.superblock.table_sector(1, 1) + 5);
    CheckResult result = check_set(faulty, nullptr);
    CHECK(ids(result) == Ids{"RMF-0214"});
    apply_plan(result, faulty, nullptr, [](const Finding&) { return true; });
    CHECK(result.exit_bits() == fsck::corrected);
    CHECK((set.spare.content() == good));
    // Nobody has the second sector.
    faulty.bad_reads.insert(set.superblock.table_sector(1, 1) + 2);
    CHECK_FALSE(recombine_table_block(faulty, set.superblock, 1));
}

TEST_CASE("a dead copy lends sectors, but never its age") {
    SampleSet set = full_sample();
    const auto kill_second = [](SampleSet& s) {
        s.superblock.live_copies = 1;
        s.superblock.head.generation = ++s.generation;
        write_superblock(s.spare, s.superblock);
    };

    SECTION("its sector is still the current one") {
        kill_second(set);
        const auto entries = set.entries;
        set.entries[252] =
            Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 9999, 1700000001);
        write_table_block(set.spare, set.superblock, 1, set.generation + 1,
                          std::span(set.entries).subspan(252, 252));
        spoil(set.spare, set.superblock.table_sector(1, 0) + 6);
        const CheckResult found = check_set(set.spare, nullptr);
        CHECK(ids(found) == Ids{"RMF-0209", "RMF-0214"});
        CHECK(found.table.entries == set.entries);
        CHECK(repair(set.spare).exit_bits() == fsck::corrected);
        CHECK(check_set(set.spare, nullptr).table.entries == set.entries);
        CHECK(check_set(set.spare, nullptr).exit_bits() == fsck::ok);
    }
    SECTION("its sector is older") {
        kill_second(set);
        set.entries[300] =
            Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 9999, 1700000001);
        write_table_block(set.spare, set.superblock, 1, set.generation + 1,
                          std::span(set.entries).subspan(252, 252));
        // The sector of slot 300 of the only live copy.
        spoil(set.spare, set.superblock.table_sector(1, 0) + 1);
        CHECK_FALSE(recombine_table_block(set.spare, set.superblock, 1));
        CHECK(check_set(set.spare, nullptr).table.lost == std::vector<std::uint64_t>{1});
    }
    SECTION("it is whole, and the live one has no header") {
        kill_second(set);
        scribble(set.spare, set.superblock.table_sector(1, 0), 1);
        CHECK_FALSE(recombine_table_block(set.spare, set.superblock, 1));
    }
}

TEST_CASE("a torn write beside an old damaged copy gives the old block, never a mixture") {
    SampleSet set = full_sample();
    const auto old = set.entries;

    set.entries[260] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 9999, 1);
    set.entries[450] = Entry::make(REMAP_ENTRY_MAPPED, 8002, REMAP_CAUSE_WRITE, 5, 9998, 1);
    const auto fresh = table_block_bytes(set.superblock, 0, 1, set.generation + 1,
                                         std::span(set.entries).subspan(252, 252));
    for (unsigned int sectors = 1; sectors < 8; sectors++) {
        SampleSet torn = set;
        torn.spare.write(set.superblock.table_sector(1, 0),
                         ConstBytes(fresh).first(sectors * sector_size));
        spoil(torn.spare, set.superblock.table_sector(1, 1) + 7);
        const auto block = recombine_table_block(torn.spare, set.superblock, 1);
        INFO(sectors << " sectors written");
        REQUIRE(block);
        const bool whole = sectors == 7;  // the last holds no change
        const auto& wanted = whole ? set.entries : old;
        CHECK(block->generation == set.generation + (whole ? 1 : 0));
        CHECK(std::equal(block->entries.begin(), block->entries.end(), wanted.begin() + 252));
    }
}

namespace {

/// Changes the times of two entries so that the checksum stays what it was.
void forge_times(TableBlockBytes& bytes, std::size_t first, std::size_t second) {
    const auto time_at = [](std::size_t slot) { return 64 + slot * 16 + 12; };
    std::array<std::uint32_t, 32> basis{};
    std::array<std::uint32_t, 32> source{};
    const auto effect = [&](std::size_t slot, unsigned int bit) {
        std::array<std::uint8_t, 4> field{};
        field.at(bit / 8) = static_cast<std::uint8_t>(1U << bit % 8);
        return crc_contribution(field, bytes.size() - time_at(slot) - 4);
    };
    for (unsigned int bit = 0; bit < 32; bit++) {
        std::uint32_t value = effect(second, bit);
        std::uint32_t from = 1U << bit;
        while (value != 0) {
            const auto top = static_cast<std::size_t>(std::bit_width(value) - 1);
            if (basis.at(top) == 0) {
                basis.at(top) = value;
                source.at(top) = from;
                break;
            }
            value ^= basis.at(top);
            from ^= source.at(top);
        }
    }
    std::uint32_t rest = effect(first, 3);
    std::uint32_t change = 0;
    while (rest != 0) {
        const auto top = static_cast<std::size_t>(std::bit_width(rest) - 1);
        REQUIRE(basis.at(top) != 0);
        rest ^= basis.at(top);
        change ^= source.at(top);
    }
    bytes.at(time_at(first)) ^= 8;
    for (unsigned int i = 0; i < 4; i++)
        bytes.at(time_at(second) + i) ^= static_cast<std::uint8_t>(change >> (8 * i));
}

}  // namespace

TEST_CASE("of two different blocks that sectors make up, none is taken") {
    SampleSet set = full_sample();
    TableBlockBytes bytes{};

    // Copy 1 has other content under the same checksum in sectors 1 and 2, so it is as valid as
    // copy 0 in these; its last sector is damaged, and so is copy 0's first but one.
    set.spare.read(set.superblock.table_sector(1, 1), bytes);
    forge_times(bytes, 40, 70);
    set.spare.write(set.superblock.table_sector(1, 1), bytes);
    CHECK(check_set(set.spare, nullptr).table.conflicts.size() == 1);
    spoil(set.spare, set.superblock.table_sector(1, 1) + 7);
    spoil(set.spare, set.superblock.table_sector(1, 0) + 6);
    CHECK_FALSE(recombine_table_block(set.spare, set.superblock, 1));
}

TEST_CASE("a power cut in the repair of a recombined block leaves it recombinable") {
    const SampleSet good = full_sample();
    SampleSet set = good;

    for (unsigned int s = 0; s < 8; s++)
        spoil(set.spare, set.superblock.table_sector(1, s % 2) + s);
    SampleSet work = set;
    RecordingIo recorder(work.spare);
    repair(recorder);
    REQUIRE(recorder.writes() == 2);
    for (std::size_t count = 0; count < recorder.events().size(); count++) {
        for (std::uint64_t torn = 0; torn < 8; torn++) {
            SampleSet cut = set;
            recorder.replay(cut.spare.content(), count, torn);
            CHECK(check_set(cut.spare, nullptr).table.entries == good.entries);
            repair(cut.spare);
            CHECK((cut.spare.content() == good.spare.content()));
        }
    }
}

TEST_CASE("superblock copies damaged in different sectors make up a whole one") {
    const SampleSet good = full_sample();
    std::mt19937 random(5);

    for (int round = 0; round < 30; round++) {
        SampleSet set = good;
        // Each sector is good in one copy only.
        for (unsigned int s = 0; s < 8; s++) {
            const auto keeper = static_cast<unsigned int>(random() % REMAP_SB_COPIES);
            for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++) {
                if (copy != keeper)
                    spoil(set.spare, set.superblock.sb_sector[copy] + s);
            }
        }
        INFO("round " << round);
        const CheckResult found = check_set(set.spare, nullptr);
        const Ids expected{"RMF-0117"};
        if (std::all_of(
                set.superblock.sb_sector.begin(), set.superblock.sb_sector.end(),
                [&](std::uint64_t at) {
                    return !std::equal(
                        good.spare.content().begin() + static_cast<std::ptrdiff_t>(at * 512),
                        good.spare.content().begin() + static_cast<std::ptrdiff_t>(at * 512 + 4096),
                        set.spare.content().begin() + static_cast<std::ptrdiff_t>(at * 512));
                }))
            REQUIRE(ids(found) == expected);
        CHECK(repair(set.spare).exit_bits() == fsck::corrected);
        CHECK((set.spare.content() == good.spare.content()));
    }
}

TEST_CASE("superblocks of which one sector is nowhere whole stay lost") {
    SampleSet set = full_sample();

    for (const std::uint64_t sector : set.superblock.sb_sector)
        spoil(set.spare, sector + 4);
    const CheckResult result = repair(set.spare, nullptr, true);
    CHECK(ids(result) == Ids{"RMF-0113"});
}

TEST_CASE("a torn copy is told from a rotten one") {
    SampleSet set = full_sample();
    const Superblock& sb = set.superblock;
    const auto verdict_of = [](const CheckResult& result, const char* structure, unsigned int copy,
                               std::uint64_t index) {
        for (const CopyVerdict& v : result.copies) {
            if (v.structure == structure && v.copy == copy &&
                (!v.index || (index >= *v.index && index < *v.index + v.count)))
                return v.verdict;
        }
        return Verdict::current;
    };

    SECTION("a commit torn on the first copy, the second old") {
        set.entries[300] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 9999, 1);
        const auto fresh = table_block_bytes(sb, 0, 1, set.generation + 1,
                                             std::span(set.entries).subspan(252, 252));
        SECTION("before the changed sector") {
            set.spare.write(sb.table_sector(1, 0), ConstBytes(fresh).first(sector_size));
            // Only the header is new: it could be rot as well.
            CHECK(ids(check_set(set.spare, nullptr)) == Ids{"RMF-0201"});
        }
        SECTION("the other way round") {
            set.spare.write(sb.table_sector(1, 0) + 1,
                            ConstBytes(fresh).subspan(sector_size, 7 * sector_size));
            CHECK(ids(check_set(set.spare, nullptr)) == Ids{"RMF-0215"});
        }
    }
    SECTION("a commit torn on the second copy") {
        const auto old = set.spare.read(sb.table_sector(1, 1), 8);
        set.entries[300] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 9999, 1);
        write_table_block(set.spare, sb, 1, set.generation + 1,
                          std::span(set.entries).subspan(252, 252));
        set.spare.write(sb.table_sector(1, 1) + 1, ConstBytes(old).subspan(512, 512));
        const CheckResult found = check_set(set.spare, nullptr);
        CHECK(ids(found) == Ids{"RMF-0215"});
        CHECK(verdict_of(found, "table block", 1, 1) == Verdict::torn);
        CHECK(verdict_of(found, "table block", 1, 0) == Verdict::current);
        CHECK(verdict_of(found, "table block", 1, 2) == Verdict::current);
        CHECK(repair(set.spare).exit_bits() == fsck::corrected);
        CHECK(check_set(set.spare, nullptr).exit_bits() == fsck::ok);
    }
    SECTION("flipped bits are never torn") {
        for (std::uint64_t bit = 0; bit < 32768; bit += 61) {
            SampleSet flipped = set;
            flip(flipped.spare, sb.table_sector(1, 0), bit);
            const CheckResult found = check_set(flipped.spare, nullptr);
            CHECK(ids(found) == Ids{bit < 64 ? "RMF-0205" : "RMF-0201"});
        }
    }
    SECTION("a superblock whose update was torn") {
        const auto old = encode_superblock(sb, 2);
        Superblock changed = sb;
        changed.head.generation++;
        changed.hidden[0].flags = REMAP_HIDDEN_EXPOSED;
        const auto fresh = encode_superblock(changed, 2);
        SECTION("the others are new") {
            write_superblock(set.spare, changed);
            set.spare.write(sb.sb_sector[4], encode_superblock(sb, 4));
            set.spare.write(sb.sb_sector[2] + 1, ConstBytes(old).subspan(512, 7 * 512));
        }
        SECTION("the others are old") {
            set.spare.write(sb.sb_sector[2], ConstBytes(fresh).first(512));
        }
        const CheckResult found = check_set(set.spare, nullptr);
        CHECK(verdict_of(found, "superblock", 2, 0) == Verdict::torn);
        CHECK(repair(set.spare).exit_bits() == fsck::corrected);
        CHECK(check_set(set.spare, nullptr).exit_bits() == fsck::ok);
    }
}

// --- entry by entry ---------------------------------------------------------------------------

namespace {

/// What reading a main block gives: the slot, an error, or the main itself.
enum class Reads { slot, error, main };

Reads reads(const Table& table, std::uint64_t block) {
    for (const Mapping& mapping : live_mappings(table)) {
        if (mapping.block == block)
            return mapping.undecidable || mapping.entry.state() == REMAP_ENTRY_LOST ? Reads::error
                                                                                    : Reads::slot;
    }
    return Reads::main;
}

/// The slots of a table block that lie in its sector `sector`.
std::vector<std::uint64_t> slots_of(std::uint64_t index, unsigned int sector) {
    std::vector<std::uint64_t> slots;
    for (std::uint64_t i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++) {
        if ((64 + i * 16) / 512 == sector)
            slots.push_back(index * REMAP_ENTRIES_PER_BLOCK + i);
    }
    return slots;
}

}  // namespace

TEST_CASE("entries that two copies agree on are kept, and the rest is never read from the main") {
    const SampleSet good = full_sample();
    SampleSet set = good;

    // Sector 3 is damaged in both copies, in different entries.
    flip(set.spare, set.superblock.table_sector(1, 0), 3 * 4096 + 5 * 128 + 90);
    flip(set.spare, set.superblock.table_sector(1, 1), 3 * 4096 + 9 * 128 + 120);
    const std::uint64_t first = slots_of(1, 3)[5];
    const std::uint64_t second = slots_of(1, 3)[9];
    const CheckResult found = check_set(set.spare, nullptr);
    REQUIRE(ids(found) == Ids{"RMF-0201", "RMF-0201", "RMF-0206", "RMF-0216"});
    CHECK(found.loss.slots == std::vector<std::uint64_t>{first, second});
    const auto untouched = set.spare.content();
    CHECK(repair(set.spare).exit_bits(true) == fsck::uncorrected);
    CHECK((set.spare.content() == untouched));

    const CheckResult repaired = repair(set.spare, nullptr, true);
    CHECK(repaired.exit_bits() == (fsck::corrected | fsck::uncorrected));
    const CheckResult after = check_set(set.spare, nullptr);
    CHECK(ids(after) == Ids{"RMF-0405"});
    CHECK(after.exit_bits() == fsck::uncorrected);
    CHECK(after.exit_bits(true) == fsck::uncorrected);
    REQUIRE(after.superblock);
    CHECK((after.superblock->head.flags & REMAP_FLAG_READ_ONLY) != 0);
    for (std::uint64_t slot = 0; slot < good.entries.size(); slot++) {
        const Entry& was = good.entries[slot];
        if (slot != first && slot != second)
            CHECK(after.table.entries[slot] == was);
        else
            CHECK(reads(after.table, was.block()) == Reads::error);
    }
    // Neither -p nor -y makes it writable; only who is asked for it does.
    const auto locked = set.spare.content();
    repair(set.spare, nullptr, true);
    CHECK((set.spare.content() == locked));
    CheckResult confirmed = check_set(set.spare, nullptr);
    apply_plan(confirmed, set.spare, nullptr,
               [](const Finding& f) { return f.problem->repair == Repair::on_request; });
    CHECK(confirmed.exit_bits() == fsck::corrected);
    CHECK(check_set(set.spare, nullptr).exit_bits() == fsck::ok);
}

TEST_CASE(
    "entries of which none is the newest are given up, and their block still reads as an error") {
    SampleSet set = full_sample();
    constexpr std::uint64_t first = 30;
    constexpr std::uint64_t second = 700;
    const std::uint64_t block = set.entries[first].block();

    REQUIRE(set.entries[second].is_free());
    set.entries[second] = set.entries[first];
    set.write_all();
    const CheckResult found = check_set(set.spare, nullptr);
    CHECK(ids(found) == Ids{"RMF-0216", "RMF-0311"});
    CHECK(found.loss.slots == std::vector<std::uint64_t>{first, second});
    CHECK(found.loss.blocks == std::vector<std::uint64_t>{block});
    CHECK(reads(found.table, block) == Reads::error);
    const auto untouched = set.spare.content();
    CHECK(repair(set.spare).exit_bits(true) == fsck::uncorrected);
    CHECK((set.spare.content() == untouched));

    repair(set.spare, nullptr, true);
    const CheckResult after = check_set(set.spare, nullptr);
    CHECK(ids(after) == Ids{"RMF-0405"});
    CHECK(reads(after.table, block) == Reads::error);
    CHECK(after.table.entries[first].state() == REMAP_ENTRY_LOST);
    CHECK(after.table.entries[second].state() == REMAP_ENTRY_BAD);
    for (std::uint64_t slot = 0; slot < set.entries.size(); slot++) {
        if (slot != first && slot != second)
            CHECK(after.table.entries[slot] == set.entries[slot]);
    }
    CheckResult confirmed = after;
    apply_plan(confirmed, set.spare, nullptr,
               [](const Finding& f) { return f.problem->repair == Repair::on_request; });
    CHECK(check_set(set.spare, nullptr).exit_bits() == fsck::ok);
}

TEST_CASE(
    "a sector of zeroes in all copies proves nothing, unless the count says that it is free") {
    SampleSet set = full_sample();

    SECTION("entries were there") {
        for (unsigned int copy = 0; copy < 2; copy++)
            scribble(set.spare, set.superblock.table_sector(1, copy) + 4, 1, 0);
        const CheckResult found = check_set(set.spare, nullptr);
        CHECK(found.loss.slots == slots_of(1, 4));
        CHECK(found.loss.blocks.empty());
        repair(set.spare, nullptr, true);
        const CheckResult after = check_set(set.spare, nullptr);
        CHECK(ids(after) == Ids{"RMF-0405"});
        // Never given out again: they may hold the only copy of something.
        for (const std::uint64_t slot : slots_of(1, 4))
            CHECK(after.table.entries[slot].state() == REMAP_ENTRY_BAD);
    }
    SECTION("they were free before") {
        // Table block 2 has 616 - 504 entries; its last sectors are empty.
        const auto entries = set.entries;
        for (unsigned int copy = 0; copy < 2; copy++)
            flip(set.spare, set.superblock.table_sector(2, copy), 6 * 4096 + 100 + 128 * copy);
        const CheckResult found = check_set(set.spare, nullptr);
        CHECK(found.loss.slots.empty());
        CHECK(found.loss.changed.size() == 1);
        repair(set.spare, nullptr, true);
        CHECK(check_set(set.spare, nullptr).table.entries == entries);
    }
}

TEST_CASE("a block that only one copy names reads as an error, not from the main") {
    SampleSet set = full_sample();

    // One copy has garbage where the other has a slightly damaged sector.
    scribble(set.spare, set.superblock.table_sector(1, 1) + 2, 1, 0xff);
    flip(set.spare, set.superblock.table_sector(1, 0), 2 * 4096 + 127);
    const auto entries = set.entries;
    const CheckResult found = check_set(set.spare, nullptr);
    CHECK(found.loss.slots == slots_of(1, 2));
    repair(set.spare, nullptr, true);
    const Table table = check_set(set.spare, nullptr).table;
    for (const std::uint64_t slot : slots_of(1, 2))
        CHECK(reads(table, entries[slot].block()) == Reads::error);
    CHECK(reads(table, entries[300].block()) != Reads::main);
}

TEST_CASE("two valid copies that differ are settled only with a loss, for what differs") {
    SampleSet set = full_sample();
    auto other = set.entries;

    other[2] = Entry::make(REMAP_ENTRY_MAPPED, 5000, REMAP_CAUSE_WRITE, 5, 9, 1);
    write_table_copy(set.spare, set.superblock, 1, 0, set.generation,
                     std::span(other).first(REMAP_ENTRIES_PER_BLOCK));
    const CheckResult found = check_set(set.spare, nullptr);
    CHECK(ids(found) == Ids{"RMF-0207", "RMF-0216"});
    CHECK(found.loss.slots == std::vector<std::uint64_t>{2});
    repair(set.spare, nullptr, true);
    const Table table = check_set(set.spare, nullptr).table;
    CHECK(reads(table, set.entries[2].block()) == Reads::error);
    CHECK(reads(table, 5000) == Reads::error);
    CHECK(table.entries[3] == set.entries[3]);
}

TEST_CASE("a proved entry that is newer is worth more than one that is not proved") {
    SampleSet set = full_sample();

    // Slot 300 once stood for the block of slot 700 now.
    set.entries[300] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_WRITE, 5, 1, 1);
    set.entries[700] = Entry::make(REMAP_ENTRY_MAPPED, 8001, REMAP_CAUSE_SLOT, 5, 900, 1);
    set.write_all();
    const std::uint64_t bit = (64 + 48 * 16 + 12) * 8;
    flip(set.spare, set.superblock.table_sector(1, 0), bit);
    flip(set.spare, set.superblock.table_sector(1, 1), bit + 1);
    const CheckResult found = check_set(set.spare, nullptr);
    CHECK(found.loss.slots == std::vector<std::uint64_t>{300});
    repair(set.spare, nullptr, true);
    CHECK(reads(check_set(set.spare, nullptr).table, 8001) == Reads::slot);
}

TEST_CASE("impossible entries under a right checksum are given up one by one") {
    SampleSet set = full_sample();
    const auto good = set.entries;
    std::uint64_t named = 0;

    SECTION("an unknown state") {
        set.entries[300].lo |= 9ULL << 48;
    }
    SECTION("a block beyond the main") {
        set.entries[300] = Entry::make(REMAP_ENTRY_MAPPED, 1 << 20, REMAP_CAUSE_WRITE, 5, 9, 1);
    }
    SECTION("the slot of a superblock") {
        std::uint64_t slot = 0;
        while (!set.superblock.slot_reserved(slot))
            slot++;
        named = 8001;
        if (slot >= set.entries.size())
            set.entries.resize((slot / 252 + 1) * 252);
        set.superblock.table_length = set.entries.size() / 252;
        set.entries[slot] = Entry::make(REMAP_ENTRY_MAPPED, named, REMAP_CAUSE_WRITE, 5, 9, 1);
    }
    set.write_all();
    const CheckResult found = check_set(set.spare, nullptr);
    CHECK(found.loss.slots.size() == 1);
    repair(set.spare, nullptr, true);
    const CheckResult after = check_set(set.spare, nullptr);
    CHECK(ids(after) == Ids{"RMF-0405"});
    if (named != 0)
        CHECK(reads(after.table, named) == Reads::error);
}

TEST_CASE("a power cut in a salvage never leaves a writable set that lost entries") {
    SampleSet set = full_sample();

    flip(set.spare, set.superblock.table_sector(1, 0), 3 * 4096 + 700);
    scribble(set.spare, set.superblock.table_sector(1, 1) + 3, 1, 0xff);
    SampleSet work = set;
    RecordingIo recorder(work.spare);
    repair(recorder, nullptr, true);
    for (std::size_t count = 0; count <= recorder.events().size(); count++) {
        for (std::uint64_t torn = 0; torn < 8; torn++) {
            SampleSet cut = set;
            recorder.replay(cut.spare.content(), count, torn);
            const CheckResult found = check_set(cut.spare, nullptr);
            REQUIRE(found.superblock);
            if (found.table.lost.empty())
                CHECK((found.superblock->head.flags & REMAP_FLAG_READ_ONLY) != 0);
            else
                CHECK((found.exit_bits() & fsck::uncorrected) != 0);
            repair(cut.spare, nullptr, true);
            CHECK(ids(check_set(cut.spare, nullptr)) == Ids{"RMF-0405"});
        }
    }
}

TEST_CASE("nothing of a table is given up when two sets claim it") {
    SampleSet set = full_sample();
    SampleSet other(SampleOptions{8192, 4096, 9, 8, 20, 77});

    write_superblock_copy(set.spare, other.superblock, 1);
    for (unsigned int copy = 0; copy < 2; copy++)
        scribble(set.spare, set.superblock.table_sector(1, copy) + 4, 1, 0);
    const CheckResult found = check_set(set.spare, nullptr);
    CHECK(found.table.lost.size() == 1);
    const Ids all = ids(found);
    CHECK(std::count(all.begin(), all.end(), "RMF-0216") == 0);
}
