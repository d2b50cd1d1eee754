// SPDX-License-Identifier: GPL-2.0-or-later
//
// Release to another disk: the copy is what the set shows, the set is not touched, and what is not
// complete is never taken for the payload.
#include <algorithm>
#include <cstring>

#include "catch.hpp"
#include "libremap/copy_view.hpp"
#include "libremap/error.hpp"
#include "libremap/payload.hpp"
#include "libremap/probe.hpp"
#include "libremap/release.hpp"
#include "payload_images.hpp"
#include "scratch.hpp"
#include "set_fixture.hpp"

namespace {

using fixture::Event;
using fixture::Image;
using fixture::Pair;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// Swap with a UUID, in the middle of noise.
Image swap_image() {
    Image image = fixture::random_image(fixture::main_sectors, 5);
    constexpr std::uint32_t version = 1;
    constexpr std::uint32_t last_page = fixture::main_sectors / 8 - 1;
    std::fill_n(image.begin(), 4096, std::uint8_t{0});
    std::memcpy(image.data() + 1024, &version, sizeof(version));
    std::memcpy(image.data() + 1028, &last_page, sizeof(last_page));
    std::memcpy(image.data() + 1036, "0123456789abcdef", 16);
    std::memcpy(image.data() + 4086, "SWAPSPACE2", 10);
    return image;
}

/// LUKS2 with its second header at 16 KiB.
Image luks_image() {
    Image image = fixture::random_image(fixture::main_sectors, 6);
    for (const std::size_t at : {std::size_t{0}, std::size_t{0x4000}}) {
        std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(at), 4096, std::uint8_t{0});
        std::memcpy(image.data() + at, at == 0 ? "LUKS\xba\xbe\0\2" : "SKUL\xba\xbe\0\2", 8);
        const std::uint8_t size[8] = {0, 0, 0, 0, 0, 0, 0x40, 0};
        std::memcpy(image.data() + at + 8, size, sizeof(size));
        std::memcpy(image.data() + at + 256, size, at == 0 ? 0 : sizeof(size));
        std::memcpy(image.data() + at + 168, "01234567-89ab-cdef-0123-456789abcdef", 36);
    }
    return image;
}

/// A set with remapped blocks, and what it shows.
struct Set {
    explicit Set(const Image& image, std::uint32_t block = 512) {
        const Pair before{image, fixture::random_image(fixture::spare_sectors, 2), block};
        pair = fixture::run(before, [&](remap::BlockIo& main, remap::BlockIo& spare) {
            const auto payload = remap::recognise_payload(main, block, true);
            fixture::remap_some(spare, fixture::adopt_now(main, spare, payload, block).superblock);
        });
        shown = *fixture::composed_view(pair);
    }
    Pair pair;
    Image shown;
};

/// Devices to copy between.
struct Bench {
    explicit Bench(const Set& set, std::uint64_t sectors = fixture::main_sectors)
        : main("main", set.pair.main, set.pair.block),
          spare("spare", set.pair.spare, set.pair.block),
          target("target", fixture::random_image(sectors, 9), set.pair.block) {}

    std::set<std::uint64_t> copy(remap::BlockIo& from, remap::BlockIo& to,
                                 const remap::CopyOptions& options = {}) {
        remap::Observer quiet;
        remap::SetView view(from, spare, remap::require_openable(spare, true));
        return remap::copy_view(view, to, options, quiet);
    }

    remap::MemoryIo main;
    remap::MemoryIo spare;
    remap::MemoryIo target;
};

/// What is said about it; empty if it is done.
template <typename Job>
std::string refusal(Job job) {
    try {
        job();
        return "";
    } catch (const remap::Error& error) {
        return error.what();
    }
}

bool shows_nothing(remap::BlockIo& target) {
    return remap::signatures_on(target).empty();
}

}  // namespace

TEST_CASE("A view reads as the remap device does, at any sector and length", "[copy]") {
    for (const std::uint32_t block : {512U, 4096U}) {
        const Set set(swap_image(), block);
        Bench bench(set);
        remap::SetView view(bench.main, bench.spare, remap::require_openable(bench.spare, true));
        REQUIRE(view.size() == fixture::main_sectors);
        std::mt19937 random(3);
        for (int i = 0; i < 300; ++i) {
            const std::uint64_t sector = random() % view.size();
            const std::uint64_t count =
                1 + random() % std::min<std::uint64_t>(view.size() - sector, 64);
            const auto bytes = view.BlockIo::read(sector, count);
            CHECK(std::equal(bytes.begin(), bytes.end(),
                             set.shown.begin() + static_cast<std::ptrdiff_t>(sector * 512)));
        }
        CHECK(view.BlockIo::read(0, view.size()) == set.shown);
        std::vector<std::uint8_t> beyond(1024);
        CHECK(view.try_read(view.size() - 1, beyond) == EIO);
        CHECK(view.try_write(0, beyond) == EROFS);
    }
}

TEST_CASE("A copy is what the set shows, also on a larger disk, and the set is not touched",
          "[copy]") {
    for (const std::uint32_t block : {512U, 4096U}) {
        for (const Image& image : {swap_image(), luks_image()}) {
            const Set set(image, block);
            for (const std::uint64_t sectors :
                 {fixture::main_sectors, fixture::main_sectors + 77 * 8}) {
                Bench bench(set, sectors);
                const Image before = bench.target.content();
                CHECK(bench.copy(bench.main, bench.target).empty());
                const Image& after = bench.target.content();
                CHECK(std::equal(set.shown.begin(), set.shown.end(), after.begin()));
                CHECK(std::equal(after.begin() + static_cast<std::ptrdiff_t>(set.shown.size()),
                                 after.end(),
                                 before.begin() + static_cast<std::ptrdiff_t>(set.shown.size())));
                CHECK(bench.main.content() == set.pair.main);
                CHECK(bench.spare.content() == set.pair.spare);
            }
        }
    }
}

TEST_CASE("A copy that power cuts short shows nothing, or all of the payload", "[copy][crash]") {
    for (const Image& image : {swap_image(), luks_image()}) {
        const Set set(image);
        Bench bench(set);
        const Pair before{bench.target.content(), Image(512), 512};
        const auto log = fixture::record(before, [&](remap::BlockIo& target, remap::BlockIo&) {
            bench.copy(bench.main, target);
        });
        std::size_t states = 0;
        std::size_t complete = 0;
        std::size_t wrong = 0;
        fixture::each_crash(before, log, [&](const Pair& crashed) {
            remap::MemoryIo target("target", crashed.main);
            ++states;
            if (!shows_nothing(target)) {
                ++complete;
                // Replicas of the signature are all that may be missing.
                Image filled = crashed.main;
                std::copy(set.shown.begin() + 0x4000, set.shown.begin() + 0x8000,
                          filled.begin() + 0x4000);
                wrong += filled == set.shown ? 0 : 1;
            }
        });
        INFO(states << " states, " << complete << " complete");
        CHECK(wrong == 0);
        CHECK(complete > 0);
        CHECK(states > 50);
        CHECK(bench.main.content() == set.pair.main);
        CHECK(bench.spare.content() == set.pair.spare);
    }
}

TEST_CASE("A copy of a pool of ZFS that power cuts short shows it with its pairs only",
          "[copy][crash]") {
    constexpr std::size_t pairs = 16U << 10;
    Image pool(64U << 20);
    payloads::make_zfs(pool);
    std::fill_n(pool.begin() + pairs, 512, std::uint8_t{0xa5});
    for (const std::uint32_t block : {512U, 4096U}) {
        remap::MemoryIo main("main", pool, block);
        remap::MemoryIo spare("spare", Image(8U << 20), block);
        fixture::adopt_now(main, spare, remap::recognise_payload(main, block, false), block);
        Pair cut{Image(pool.size()), Image(512), block};
        const auto log = fixture::record(cut, [&](remap::BlockIo& target, remap::BlockIo&) {
            remap::Observer quiet;
            remap::SetView view(main, spare, remap::require_openable(spare, true));
            remap::copy_view(view, target, {}, quiet);
        });
        std::size_t shown = 0;
        for (const Event& event : log) {
            if (event.flush) {
                continue;
            }
            fixture::apply(cut, event, event.data.size());
            fixture::ImageIo target("target", cut.main, block);
            if (!shows_nothing(target)) {
                ++shown;
                CHECK(std::equal(cut.main.begin() + pairs, cut.main.begin() + pairs + 512,
                                 pool.begin() + pairs));
            }
        }
        CHECK(shown > 0);
        CHECK(cut.main == pool);
    }
}

TEST_CASE("Lost blocks are listed and refused before anything is written; accepted they are zeroes",
          "[copy]") {
    Set set(swap_image());
    Bench bench(set);
    const auto superblock = remap::load_superblock(bench.spare);
    auto table = remap::load_intact_table(bench.spare, superblock);
    std::uint64_t block = 0;
    for (std::size_t slot = 0; slot < table.entries.size() && block == 0; ++slot) {
        remap::Entry& entry = table.entries[slot];
        if (entry.state() == REMAP_ENTRY_MAPPED && !superblock.block_hidden(entry.block())) {
            block = entry.block();
            entry = remap::Entry::make(REMAP_ENTRY_LOST, block, REMAP_CAUSE_WRITE, 5,
                                       entry.sequence(), 1);
        }
    }
    REQUIRE(block != 0);
    table.entries.resize(superblock.table_length * REMAP_ENTRIES_PER_BLOCK);
    remap::write_table(bench.spare, superblock, superblock.head.generation + 100, table.entries);

    const Image before = bench.target.content();
    const std::string text = refusal([&] { bench.copy(bench.main, bench.target); });
    INFO(text);
    CHECK(contains(text, "spare: these blocks are lost: " + std::to_string(block) + " (1 in all)"));
    CHECK(bench.target.content() == before);

    CHECK(bench.copy(bench.main, bench.target, {true, false}) == std::set<std::uint64_t>{block});
    Image expected = set.shown;
    std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(block * 512), 512, std::uint8_t{0});
    CHECK(bench.target.content() == expected);
}

TEST_CASE("Blocks that the main or the spare does not give are listed, and the copy shows nothing",
          "[copy]") {
    const Set set(swap_image());
    Bench bench(set);
    const auto superblock = remap::load_superblock(bench.spare);
    remap::FaultIo main(bench.main);
    remap::FaultIo spare(bench.spare);
    main.bad_reads = {700, 701, 900};
    std::uint64_t on_spare = 0;
    remap::SetView whole(bench.main, bench.spare, superblock);
    for (const auto& [block, mapping] : whole.mappings()) {
        if (!superblock.block_hidden(block)) {
            on_spare = block;
            spare.bad_reads = {superblock.slot_sector(mapping.slot)};
        }
    }
    remap::SetView view(main, spare, superblock);
    remap::Observer quiet;
    const std::string text = refusal([&] { remap::copy_view(view, bench.target, {}, quiet); });
    INFO(text);
    CHECK(contains(text, "700-701, 900, " + std::to_string(on_spare) + " (4 in all)"));
    CHECK(contains(text, "--accept-loss"));
    CHECK(shows_nothing(bench.target));

    const auto lost = remap::copy_view(view, bench.target, {true, false}, quiet);
    CHECK(lost == std::set<std::uint64_t>{700, 701, 900, on_spare});
    Image expected = set.shown;
    for (const std::uint64_t block : lost) {
        std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(block * 512), 512,
                    std::uint8_t{0});
    }
    CHECK(bench.target.content() == expected);
}

TEST_CASE("A target that stores something else than it was given is found out, and shows nothing",
          "[copy]") {
    /// Spoils the n-th byte from `from` on whenever non-zero data is written over it.
    class Liar : public remap::StackedIo {
      public:
        Liar(remap::BlockIo& below, std::uint64_t sector) : StackedIo(below), sector_(sector) {}
        int try_write(std::uint64_t sector, remap::ConstBytes from) override {
            std::vector<std::uint8_t> bytes(from.begin(), from.end());
            if (sector_ >= sector && sector_ < sector + bytes.size() / 512) {
                std::uint8_t& byte = bytes[(sector_ - sector) * 512 + 17];
                const bool blank =
                    std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
                byte = static_cast<std::uint8_t>(blank ? byte : byte ^ 1);
            }
            return StackedIo::try_write(sector, bytes);
        }

      private:
        std::uint64_t sector_;
    };
    const Set set(luks_image());
    // Plain data, one that is written late, the deciding sector, the second header.
    for (const std::uint64_t sector : {1000U, 40U, 0U, 0x4000U / 512}) {
        Bench bench(set);
        Liar liar(bench.target, sector);
        const std::string text = refusal([&] { bench.copy(bench.main, liar); });
        INFO(sector << ": " << text);
        CHECK(contains(text, "target: sector "));
        CHECK(contains(text, "read back otherwise than written"));
        CHECK(shows_nothing(bench.target));
        CHECK(bench.main.content() == set.pair.main);
    }
    // One that refuses a write.
    for (const std::uint64_t sector : {1000U, 40U, 0U}) {
        Bench bench(set);
        remap::FaultIo bad(bench.target);
        bad.bad_writes = {sector};
        CHECK_FALSE(refusal([&] { bench.copy(bench.main, bad); }).empty());
        CHECK(shows_nothing(bench.target));
    }
}

TEST_CASE("A target that does not fit, or holds something, is refused with figures and untouched",
          "[copy]") {
    const Set set(swap_image());
    const auto said = [&](remap::MemoryIo& target, const remap::CopyOptions& options = {}) {
        const Image before = target.content();
        Bench bench(set);
        const std::string text = refusal([&] { bench.copy(bench.main, target, options); });
        CHECK((text.empty() || target.content() == before));
        return text;
    };
    remap::MemoryIo small("small", fixture::main_sectors - 8);
    CHECK(contains(said(small), "expected at least 2048 sectors, found 2040"));
    remap::MemoryIo coarse("coarse", fixture::main_sectors, 4096);
    CHECK(contains(said(coarse), "expected logical blocks of at most 512 bytes, found 4096"));
    remap::MemoryIo full("full", luks_image());
    CHECK(contains(said(full), "holds crypto_LUKS"));
    CHECK(contains(said(full), "--force"));
    CHECK(said(full, {false, true}).empty());
    CHECK(full.content() == set.shown);
    const Set other(luks_image());
    remap::MemoryIo member("member", other.pair.spare);
    CHECK(contains(said(member), "is a member of set"));
    remap::MemoryIo main("member", other.pair.main);
    CHECK(contains(said(main), "is a member of set"));
}

TEST_CASE("What a larger target held behind the copy is not seen afterwards", "[copy]") {
    const Set set(swap_image());
    Bench bench(set, 2 * fixture::main_sectors);
    // MD 1.0 keeps its superblock at the end.
    Image md = fixture::random_image(2 * fixture::main_sectors, 4);
    std::fill_n(md.begin() + (2 * fixture::main_sectors - 16) * 512, 8192, std::uint8_t{0});
    const std::uint8_t magic[] = {0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0};
    auto* at = md.data() + (2 * fixture::main_sectors - 16) * 512;
    std::memcpy(at, magic, sizeof(magic));
    const std::uint64_t place = 2 * fixture::main_sectors - 16;
    std::memcpy(at + 144, &place, sizeof(place));
    bench.target.content() = md;
    const auto before = remap::signatures_on(bench.target);
    REQUIRE(before.size() == 1);
    CHECK(before.front().type == "linux_raid_member");
    CHECK(contains(refusal([&] { bench.copy(bench.main, bench.target); }), "linux_raid_member"));
    CHECK(bench.copy(bench.main, bench.target, {false, true}).empty());
    const auto seen = remap::signatures_on(bench.target);
    REQUIRE(seen.size() == 1);
    CHECK(seen.front().type == "swap");
}

TEST_CASE("A payload that is found by the end of its device needs a target of exactly its size",
          "[copy]") {
    // libblkid looks for no arrays on what is as small as a floppy disk.
    constexpr std::uint64_t sectors = 2 * fixture::main_sectors;
    constexpr std::uint64_t md_end = sectors - 16;
    Image md = fixture::random_image(sectors, 4);
    std::fill_n(md.begin() + md_end * 512, 8192, std::uint8_t{0});
    const std::uint8_t magic[] = {0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0};
    std::memcpy(md.data() + md_end * 512, magic, sizeof(magic));
    std::memcpy(md.data() + md_end * 512 + 144, &md_end, sizeof(md_end));
    const Set set(md);
    Bench larger(set, sectors + 8);
    const std::string text = refusal([&] { larger.copy(larger.main, larger.target); });
    INFO(text);
    CHECK(contains(text, "exactly 4096 sectors"));
    Bench exact(set, sectors);
    CHECK(exact.copy(exact.main, exact.target).empty());
    CHECK(exact.target.content() == set.shown);
}
