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
