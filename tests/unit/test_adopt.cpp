// SPDX-License-Identifier: GPL-2.0-or-later
//
// Adoption, release and recovery on devices that fail, and on the wrong ones.
#include <algorithm>
#include <cerrno>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/payload.hpp"
#include "libremap/probe.hpp"
#include "libremap/release.hpp"
#include "libremap/rescue_file.hpp"
#include "libremap/text.hpp"
#include "payload_images.hpp"
#include "set_fixture.hpp"

namespace {

using fixture::Image;
using fixture::Pair;

constexpr std::uint64_t fourth_mib_sectors = 16384;

struct Devices {
    explicit Devices(std::uint64_t sectors = fixture::main_sectors)
        : main("main", fixture::random_image(sectors, 3)),
          spare("spare", fixture::random_image(fixture::spare_sectors, 4)),
          original(main.content()) {}

    Pair pair() const { return {main.content(), spare.content(), 512}; }

    remap::MemoryIo main;
    remap::MemoryIo spare;
    Image original;
};

remap::AdoptResult adopt(remap::BlockIo& main, remap::BlockIo& spare) {
    return fixture::adopt_now(main, spare, fixture::ext_payload(), 512);
}

std::string error_of(const std::function<void()>& job) {
    try {
        job();
    } catch (const remap::Error& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// Reads and writes of these sectors fail, as on a disk.
class BadDisk : public remap::FaultIo {
  public:
    BadDisk(remap::BlockIo& below, std::set<std::uint64_t> writes,
            std::set<std::uint64_t> reads = {})
        : FaultIo(below) {
        bad_writes = std::move(writes);
        bad_reads = std::move(reads);
    }
};

}  // namespace

TEST_CASE("Both ends, LUKS2's second headers and nothing else are hidden", "[adopt]") {
    Devices d(fourth_mib_sectors);
    const auto superblock = adopt(d.main, d.spare).superblock;
    std::vector<std::pair<std::uint64_t, std::uint32_t>> extents;
    for (const remap::Hidden& extent : superblock.hidden) {
        extents.emplace_back(extent.start, extent.count);
        CHECK(extent.flags == 0);
    }
    const std::vector<std::pair<std::uint64_t, std::uint32_t>> expected = {
        {0, 264}, {512, 8}, {1024, 8}, {2048, 8}, {4096, 8}, {8192, 8}, {16384 - 256, 256}};
    CHECK(extents == expected);
    const std::vector<std::uint64_t> labels = {0,    2,    512,         1024, 2048,
                                               4096, 8192, 16384 - 256, 16383};
    CHECK(superblock.label_sector == labels);
    CHECK(superblock.deciding_sector == 2);
    CHECK(superblock.head.state == REMAP_STATE_COMPLETE);
    CHECK(fixture::composed_view(d.pair()) == d.original);
    // Outside the hidden blocks nothing has changed.
    for (std::uint64_t sector = 0; sector < fourth_mib_sectors; ++sector) {
        if (!superblock.block_hidden(sector)) {
            REQUIRE(
                std::equal(d.original.begin() + static_cast<std::ptrdiff_t>(sector * 512),
                           d.original.begin() + static_cast<std::ptrdiff_t>(sector * 512 + 512),
                           d.main.content().begin() + static_cast<std::ptrdiff_t>(sector * 512)));
        }
    }
}

TEST_CASE("A deciding sector that cannot be rewritten or read refuses, and nothing has changed",
          "[adopt]") {
    for (const bool reading : {false, true}) {
        Devices d;
        BadDisk bad(d.main, reading ? std::set<std::uint64_t>{} : std::set<std::uint64_t>{2},
                    reading ? std::set<std::uint64_t>{2} : std::set<std::uint64_t>{});
        const Image spare = d.spare.content();
        const std::string error = error_of([&] { adopt(bad, d.spare); });
        CHECK(contains(error, "main: sector 2: cannot be"));
        CHECK(contains(error, "nothing was changed"));
        CHECK(d.main.content() == d.original);
        CHECK(d.spare.content() == spare);
    }
}

TEST_CASE("Another hidden place that cannot be written is exposed, and the set still complete",
          "[adopt]") {
    Devices d;
    BadDisk bad(d.main, {100, 2047});
    const auto result = adopt(bad, d.spare);
    CHECK(result.exposed == std::set<std::uint64_t>{100, 2047});
    CHECK((result.superblock.hidden.front().flags & REMAP_HIDDEN_EXPOSED) != 0);
    CHECK((result.superblock.hidden.back().flags & REMAP_HIDDEN_EXPOSED) != 0);
    CHECK((result.superblock.hidden[1].flags & REMAP_HIDDEN_EXPOSED) == 0);
    CHECK(fixture::composed_view(d.pair()) == d.original);
}

TEST_CASE("An unreadable hidden block becomes lost, never something invented", "[adopt]") {
    Devices d;
    BadDisk bad(d.main, {}, {50});
    const auto result = adopt(bad, d.spare);
    CHECK(result.lost == std::set<std::uint64_t>{50});
    const auto table = remap::load_intact_table(d.spare, result.superblock);
    const auto mappings = remap::live_mappings(table);
    const auto it = std::find_if(mappings.begin(), mappings.end(),
                                 [](const remap::Mapping& m) { return m.block == 50; });
    REQUIRE(it != mappings.end());
    CHECK(it->entry.state() == REMAP_ENTRY_LOST);
}

TEST_CASE("A slot that fails at once is marked bad and another is taken", "[adopt]") {
    Devices d;
    remap::Observer quiet;
    const auto plan =
        remap::plan_adoption(d.main, d.spare, fixture::request_for(fixture::ext_payload(), 512));
    const std::uint64_t first = plan.superblock.slot_sector(0);
    BadDisk bad(d.spare, {first + 3, first + 77});
    const auto result = remap::adopt(
        d.main, bad, plan, [](const auto&, const auto&) {}, quiet);
    CHECK(result.bad_slots == 2);
    const auto table = remap::load_intact_table(d.spare, result.superblock);
    CHECK(table.entries[3].state() == REMAP_ENTRY_BAD);
    CHECK(table.entries[77].state() == REMAP_ENTRY_BAD);
    CHECK(fixture::composed_view(d.pair()) == d.original);
}

TEST_CASE("A spare on which too few superblocks can be written leaves the main alone", "[adopt]") {
    Devices d;
    remap::Observer quiet;
    const auto plan =
        remap::plan_adoption(d.main, d.spare, fixture::request_for(fixture::ext_payload(), 512));
    const auto& places = plan.superblock.sb_sector;
    BadDisk bad(d.spare, {places[1], places[2], places[3]});
    CHECK_THROWS_AS(remap::adopt(
                        d.main, bad, plan, [](const auto&, const auto&) {}, quiet),
                    remap::Error);
    CHECK(d.main.content() == d.original);
}

TEST_CASE("A rescue file that cannot be written stops adoption before anything is changed",
          "[adopt]") {
    Devices d;
    remap::Observer quiet;
    const auto plan =
        remap::plan_adoption(d.main, d.spare, fixture::request_for(fixture::ext_payload(), 512));
    const Image spare = d.spare.content();
    const auto rescue = [](const remap::Superblock& superblock,
                           const remap::HiddenContent& content) {
        remap::write_rescue_file("/nonexistent-folder/x", superblock, content);
    };
    CHECK_THROWS_AS(remap::adopt(d.main, d.spare, plan, rescue, quiet), remap::Error);
    CHECK(d.main.content() == d.original);
    CHECK(d.spare.content() == spare);
}

TEST_CASE("A main whose deciding write fails is left as it was, even if the spare dies",
          "[adopt]") {
    /// Dies with the deciding write on its partner.
    struct Mortal : remap::StackedIo {
        using StackedIo::StackedIo;
        int try_read(std::uint64_t sector, remap::Bytes to) override {
            return dead ? EIO : StackedIo::try_read(sector, to);
        }
        int try_write(std::uint64_t sector, remap::ConstBytes from) override {
            return dead ? EIO : StackedIo::try_write(sector, from);
        }
        bool dead = false;
    };
    struct Main : remap::StackedIo {
        Main(remap::BlockIo& below, Mortal& spare, bool refuses)
            : StackedIo(below), spare_(spare), refuses_(refuses) {}
        int try_write(std::uint64_t sector, remap::ConstBytes from) override {
            if (sector != 2 || from.size() != 512) {
                return StackedIo::try_write(sector, from);
            }
            if (refuses_) {
                return EIO;
            }
            spare_.dead = true;
            return StackedIo::try_write(sector, from);
        }
        Mortal& spare_;
        bool refuses_;
    };
    for (const bool refuses : {false, true}) {
        Devices d;
        Mortal spare(d.spare);
        Main main(d.main, spare, refuses);
        remap::Observer quiet;
        const auto plan =
            remap::plan_adoption(main, spare, fixture::request_for(fixture::ext_payload(), 512));
        CHECK_THROWS_AS(remap::adopt(
                            main, spare, plan, [](const auto&, const auto&) {}, quiet),
                        remap::Error);
        CHECK((d.main.content() == d.original) == refuses);
    }
}

TEST_CASE("The rescue file is written before anything else is", "[adopt]") {
    Devices d;
    remap::RecordingIo main(d.main);
    remap::RecordingIo spare(d.spare);
    remap::Observer quiet;
    const auto plan =
        remap::plan_adoption(main, spare, fixture::request_for(fixture::ext_payload(), 512));
    std::size_t writes = 99;
    remap::adopt(
        main, spare, plan,
        [&](const auto&, const auto&) { writes = main.writes() + spare.writes(); }, quiet);
    CHECK(writes == 0);
    CHECK(main.writes() > 0);
}

TEST_CASE("A spare that is too small is refused with the size that is needed", "[adopt]") {
    remap::MemoryIo main("main", fixture::random_image(fourth_mib_sectors, 1), 4096);
    // 280 KiB of hidden 4 KiB blocks fit 1 MiB; with 2048 sectors less 8 the format refuses.
    remap::MemoryIo spare("spare", 2040, 512);
    const std::string error =
        error_of([&] { fixture::adopt_now(main, spare, fixture::ext_payload(), 4096); });
    CHECK(contains(error, "spare: too small for a spare: it has 2040 sectors, at least 2048"));
}

TEST_CASE("Recovery refuses a device that is not plausibly the main", "[adopt]") {
    Devices d;
    // Cut right before the deciding write: all on the spare, nothing on the main.
    Pair cut{d.original, d.spare.content(), 512};
    const auto log = fixture::record(
        cut, [](remap::BlockIo& main, remap::BlockIo& spare) { adopt(main, spare); });
    for (const auto& event : log) {
        if (!event.flush && event.on_main && event.sector == 2 && event.data.size() == 512) {
            break;
        }
        if (!event.flush) {
            fixture::apply(cut, event, event.data.size());
        }
    }
    REQUIRE(fixture::has_set(cut));
    remap::MemoryIo spare("spare", cut.spare);

    SECTION("other contents") {
        remap::MemoryIo other("other", fixture::random_image(fixture::main_sectors, 99));
        const std::string error = error_of([&] { remap::adopt_recover(other, spare); });
        CHECK(contains(error, "other: carries no label of set"));
        CHECK(spare.content() == cut.spare);
    }
    SECTION("shorter") {
        remap::MemoryIo other("other", fixture::main_sectors - 8);
        CHECK(contains(error_of([&] { remap::adopt_recover(other, spare); }),
                       "expected 2048 sectors, found 2040"));
    }
    SECTION("the main of another set") {
        Devices strange;
        adopt(strange.main, strange.spare);
        const std::string error = error_of([&] { remap::adopt_recover(strange.main, spare); });
        CHECK(contains(error, "carries the label of another set"));
        CHECK(spare.content() == cut.spare);
    }
    SECTION("all like the main but the deciding sector") {
        remap::MemoryIo other("other", cut.main);
        other.content()[1024 + 44] ^= 0xff;
        CHECK(contains(error_of([&] { remap::adopt_recover(other, spare); }),
                       "holds other data than was copied from the main to spare"));
        CHECK(spare.content() == cut.spare);
    }
    SECTION("the right one, used directly in the meantime") {
        remap::MemoryIo main("main", cut.main);
        main.content()[100 * 512 + 44] ^= 0xff;  // as a mount would
        const Image used = main.content();
        CHECK(remap::adopt_recover(main, spare).outcome == remap::Recovery::rolled_back);
        CHECK(main.content() == used);
        CHECK_FALSE(remap::scan_superblocks(spare).winner);
    }
}

TEST_CASE("A blank device is not taken for a main that is nearly all zeroes", "[adopt]") {
    // What is adopted: zeroes, but for a few blocks with something in them.
    Image sparse(fixture::main_sectors * 512);
    for (const std::size_t block : {2U, 3U, 4U, 40U, 2000U}) {
        sparse[block * 512 + 56] = 0x53;
    }
    const Pair before{sparse, fixture::random_image(fixture::spare_sectors, 4), 512};
    for (const bool decided : {false, true}) {
        Pair cut = before;
        for (const auto& event : fixture::record(
                 before, [](remap::BlockIo&main, remap::BlockIo&spare) { adopt(main, spare); })) {
            const bool decides =
                !event.flush && event.on_main && event.sector == 2 && event.data.size() == 512;
            if (decides && !decided) {
                break;
            }
            if (!event.flush) {
                fixture::apply(cut, event, event.data.size());
            }
            if (decides) {
                break;
            }
        }
        REQUIRE(fixture::has_set(cut));
        remap::MemoryIo spare("spare", cut.spare);
        remap::MemoryIo blank("blank", fixture::main_sectors);
        remap::MemoryIo larger("larger", fixture::main_sectors + 64);
        for (remap::MemoryIo* wrong : {&blank, &larger}) {
            CHECK(contains(error_of([&] { remap::adopt_recover(*wrong, spare); }),
                           "carries no label of set"));
            CHECK(spare.content() == cut.spare);
        }
        remap::MemoryIo main("main", cut.main);
        CHECK(remap::adopt_recover(main, spare).outcome ==
              (decided ? remap::Recovery::finished : remap::Recovery::rolled_back));
    }
}

TEST_CASE("A deciding block that a release writes back wrongly costs nothing", "[adopt]") {
    /// Stores one byte of the first write to sector 2 wrongly.
    class Liar : public remap::StackedIo {
      public:
        using StackedIo::StackedIo;
        int try_write(std::uint64_t sector, remap::ConstBytes from) override {
            std::vector<std::uint8_t> bytes(from.begin(), from.end());
            if (sector == 2 && !lied_) {
                bytes[7] ^= 1;
                lied_ = true;
            }
            return StackedIo::try_write(sector, bytes);
        }

      private:
        bool lied_ = false;
    };
    Devices d;
    adopt(d.main, d.spare);
    Liar liar(d.main);
    remap::Observer quiet;
    const std::string error = error_of([&] { remap::release_set(liar, d.spare, false, quiet); });
    CHECK(contains(error, "main: these blocks cannot be written back: 2"));
    CHECK(contains(error, "is complete"));
    REQUIRE(fixture::has_set(d.pair()));
    CHECK(fixture::composed_view(d.pair()) == d.original);
    CHECK(fixture::all_hidden(d.pair()));
}

TEST_CASE("An unreadable deciding sector means after: recovery rolls forward", "[adopt]") {
    Devices d;
    Pair cut{d.original, d.spare.content(), 512};
    bool decided = false;
    for (const auto& event : fixture::record(
             cut, [](remap::BlockIo&main, remap::BlockIo&spare) { adopt(main, spare); })) {
        if (event.flush) {
            continue;
        }
        if (decided) {
            break;
        }
        decided = event.on_main && event.sector == 2 && event.data.size() == 512;
        fixture::apply(cut, event, event.data.size());
    }
    REQUIRE(decided);
    remap::MemoryIo main("main", cut.main);
    remap::MemoryIo spare("spare", cut.spare);
    BadDisk bad(main, {2}, {2});
    const auto result = remap::adopt_recover(bad, spare);
    CHECK(result.outcome == remap::Recovery::finished);
    CHECK(result.exposed == std::set<std::uint64_t>{2});
    CHECK(fixture::composed_view({main.content(), spare.content(), 512}) == d.original);
}

TEST_CASE("A release that cannot write a block back names it and leaves the set complete",
          "[adopt]") {
    Devices d;
    adopt(d.main, d.spare);
    remap::Observer quiet;
    for (const std::uint64_t sector : {std::uint64_t{2}, std::uint64_t{77}}) {
        BadDisk bad(d.main, {sector});
        const std::string error = error_of([&] { remap::release_set(bad, d.spare, false, quiet); });
        CHECK(contains(error,
                       "main: these blocks cannot be written back: " + std::to_string(sector)));
        CHECK(fixture::composed_view(d.pair()) == d.original);
        CHECK(fixture::all_hidden(d.pair()));
    }
    remap::release_set(d.main, d.spare, false, quiet);
    CHECK(d.main.content() == d.original);
}

TEST_CASE(
    "A release stops at a block of ZFS's first label that cannot be written, not at a replica",
    "[adopt]") {
    remap::MemoryIo main("main", fixture::Image(64U << 20));
    remap::MemoryIo spare("spare", fixture::Image(8U << 20));
    fixture::Image pool = main.content();
    payloads::make_zfs(pool);
    main.write(0, pool);
    fixture::adopt_now(main, spare, remap::recognise_payload(main, 512, false), 512);
    remap::Observer quiet;
    constexpr std::uint64_t uberblock = (200U << 10) / 512;
    BadDisk needed(main, {uberblock});
    const std::string error = error_of([&] { remap::release_set(needed, spare, false, quiet); });
    CHECK(contains(error, "cannot be written back: " + std::to_string(uberblock)));
    CHECK(contains(error, "is complete"));
    CHECK(fixture::composed_view({main.content(), spare.content(), 512}) == pool);
    CHECK(remap::signatures_on(main).empty());

    BadDisk replica(main, {uberblock + (256U << 10) / 512});
    remap::release_set(replica, spare, false, quiet);
    CHECK_FALSE(remap::signatures_on(main).empty());
}

TEST_CASE("A release names all slots that cannot be read", "[adopt]") {
    Devices d;
    const auto superblock = adopt(d.main, d.spare).superblock;
    remap::Observer quiet;
    BadDisk bad(
        d.spare, {},
        {superblock.slot_sector(10), superblock.slot_sector(11), superblock.slot_sector(200)});
    const std::string error = error_of([&] { remap::release_set(d.main, bad, false, quiet); });
    const std::uint64_t far = 200;  // of the hidden blocks' slots, in their order
    std::uint64_t block = 0;
    for (const auto& mapping : remap::live_mappings(remap::load_intact_table(d.spare, superblock)))
        block = mapping.slot == far ? mapping.block : block;
    CHECK(contains(
        error, remap::cat("spare: these blocks cannot be read: 10-11, ", block, " (3 in all)")));
    CHECK(fixture::composed_view(d.pair()) == d.original);
}

TEST_CASE("A release refuses lost blocks unless the loss is accepted; then they are zeroes",
          "[adopt]") {
    Devices d;
    BadDisk unreadable(d.main, {}, {50});
    adopt(unreadable, d.spare);
    remap::Observer quiet;
    const Image before = d.main.content();
    CHECK(contains(error_of([&] { remap::release_set(d.main, d.spare, false, quiet); }),
                   "these blocks are lost and cannot be written back: 50"));
    CHECK(d.main.content() == before);

    const auto result = remap::release_set(d.main, d.spare, true, quiet);
    CHECK(result.lost == std::vector<std::uint64_t>{50});
    Image expected = d.original;
    std::fill_n(expected.begin() + 50L * 512, 512, std::uint8_t{0});
    CHECK(d.main.content() == expected);
}

TEST_CASE("A bare set changes nothing on the main", "[adopt]") {
    Devices d;
    remap::Observer quiet;
    auto request = fixture::request_for({}, 512);
    request.bare = true;
    const auto plan = remap::plan_adoption(d.main, d.spare, request);
    const auto result = remap::adopt(
        d.main, d.spare, plan, [](const auto&, const auto&) {}, quiet);
    CHECK(d.main.content() == d.original);
    CHECK(result.superblock.is_bare());
    CHECK(result.superblock.label_epoch == 0);
    CHECK(result.superblock.hidden.empty());
    CHECK(fixture::composed_view(d.pair()) == d.original);
    remap::release_set(d.main, d.spare, false, quiet);
    CHECK(d.main.content() == d.original);
    CHECK_FALSE(fixture::has_set(d.pair()));
}

TEST_CASE("A pair is refused when the members do not belong together or one is old", "[adopt]") {
    Devices d;
    auto superblock = adopt(d.main, d.spare).superblock;
    const Pair young = d.pair();
    Devices other;
    adopt(other.main, other.spare);
    const auto refusal = [](remap::BlockIo& main, remap::BlockIo& spare) {
        return error_of([&] {
            remap::require_pair(main, spare.name(), remap::require_openable(spare, false), {});
        });
    };
    CHECK(refusal(d.main, d.spare).empty());
    CHECK(contains(refusal(other.main, d.spare), "found that of set"));
    CHECK(contains(refusal(d.spare, d.spare), "swapped?"));
    CHECK(contains(refusal(d.main, d.main), "swapped?"));

    Devices bare;
    remap::Observer quiet;
    auto request = fixture::request_for({}, 512);
    request.bare = true;
    remap::adopt(
        bare.main, bare.spare, remap::plan_adoption(bare.main, bare.spare, request),
        [](const auto&, const auto&) {}, quiet);
    CHECK(refusal(bare.main, bare.spare).empty());
    CHECK(contains(refusal(other.main, bare.spare), "found a member of set"));

    // One activation: both members one epoch on.
    superblock.epoch += 1;
    superblock.label_epoch = superblock.epoch;
    superblock.head.generation =
        remap::next_generation(superblock.epoch, superblock.head.generation);
    remap::write_superblock(d.spare, superblock);
    remap::MainBlocks blocks(d.main, 1);
    for (const std::uint64_t sector : superblock.label_sector) {
        REQUIRE(remap::conceal_block(blocks, superblock, sector) == 0);
    }
    CHECK(refusal(d.main, d.spare).empty());
    remap::MemoryIo old_spare("old", young.spare);
    remap::MemoryIo old_main("old", young.main);
    CHECK(contains(refusal(d.main, old_spare), "old: is an old copy"));
    CHECK(contains(refusal(old_main, d.spare), "old: is an old copy"));

    remap::MemoryIo shorter("main", Image(young.main.begin(), young.main.end() - 4096));
    CHECK(contains(refusal(shorter, d.spare), "shorter than recorded"));

    superblock.head.state = REMAP_STATE_ADOPTING;
    remap::write_superblock(d.spare, remap::next_superblock(d.spare, superblock));
    CHECK(contains(refusal(d.main, d.spare), "expected state complete, found adopting"));
}
