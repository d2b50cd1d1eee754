// SPDX-License-Identifier: GPL-2.0-or-later
//
// Any instant may be the last: adoption and release are cut at every write, and what is left must
// recover to one complete state or the other.
#include <algorithm>
#include <functional>
#include <map>
#include <string>

#include "catch.hpp"
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

struct Case {
    const char* name;
    remap::Payload payload;
    std::uint32_t block;
    bool zero;
    std::function<void(Image&)> make = [](Image&) {};  ///< over random bytes
};

/// As f2fs: the second superblock is 4 KiB behind the first one.
remap::Payload f2fs_payload() {
    return {remap::PayloadKind::known, "f2fs", 2, {{1024, 4}, {5120, 512}}, {{5120, 512}}};
}

void make_f2fs(Image& image) {
    payloads::put_text(image, 1024, "\x10\x20\xf5\xf2");
}

/// The superblock at the end: what decides comes after everything else on the main.
constexpr std::uint64_t md_sector = fixture::main_sectors - 16;

remap::Payload md_payload() {
    return {remap::PayloadKind::known, "MD 1.0", md_sector, {{md_sector * 512, 4}}, {}};
}

void make_md(Image& image) {
    payloads::make_md(image, md_sector);
}

constexpr std::uint64_t luks2_header = 0x80000;

remap::Payload luks2_payload() {
    return {remap::PayloadKind::known,
            "LUKS2",
            0,
            {{0, 6}, {luks2_header, 512}},
            {{luks2_header, 512}}};
}

void make_luks2(Image& image) {
    payloads::make_luks2(image, luks2_header);
}

/// The signature lies in sector 128, which nothing else has to do with.
remap::Payload btrfs_payload() {
    return {remap::PayloadKind::known, "Btrfs", 128, {{0x10040, 8}}, {}};
}

const std::vector<Case>& cases() {
    static const std::vector<Case> all = {
        {"ext, 512-byte blocks", fixture::ext_payload(), 512, false},
        {"ext, 4096-byte blocks", fixture::ext_payload(), 4096, false},
        {"empty, 512-byte blocks", {remap::PayloadKind::empty, "nothing", 0, {}, {}}, 512, true},
        {"f2fs, 512-byte blocks", f2fs_payload(), 512, false, make_f2fs},
        {"f2fs, 4096-byte blocks", f2fs_payload(), 4096, false, make_f2fs},
        {"MD 1.0, 512-byte blocks", md_payload(), 512, false, make_md},
        {"MD 1.0, 4096-byte blocks", md_payload(), 4096, false, make_md},
        {"LUKS2, 512-byte blocks", luks2_payload(), 512, false, make_luks2},
        {"LUKS2, 4096-byte blocks", luks2_payload(), 4096, false, make_luks2},
        {"Btrfs, 4096-byte blocks", btrfs_payload(), 4096, false},
    };
    return all;
}

Pair fresh_pair(const Case& c) {
    Pair pair;
    pair.block = c.block;
    pair.main = c.zero ? Image(fixture::main_sectors * 512)
                       : fixture::random_image(fixture::main_sectors, 7);
    c.make(pair.main);
    pair.spare = fixture::random_image(fixture::spare_sectors * (c.block / 512), 8);
    return pair;
}

fixture::Job adoption(const Case& c) {
    return [&c](remap::BlockIo& main, remap::BlockIo& spare) {
        fixture::adopt_now(main, spare, c.payload, c.block);
    };
}

void recover(remap::BlockIo& main, remap::BlockIo& spare) {
    remap::adopt_recover(main, spare);
}

void release(remap::BlockIo& main, remap::BlockIo& spare) {
    remap::Observer quiet;
    remap::release_set(main, spare, false, quiet);
}

/// One state or the other, and nothing between: `original` on the main and no set, or a complete
/// and hidden set that shows `original`.
bool is_one_of_two(const Pair& pair, const Image& original) {
    if (!fixture::has_set(pair)) {
        return pair.main == original;
    }
    const auto view = fixture::composed_view(pair);
    return view && *view == original && fixture::all_hidden(pair);
}

/// A main that shows its payload's signature must be whole, for nothing would stop its use: either
/// the deciding sector hides it, and every replica is hidden as well, or no place is hidden but for
/// replicas, which nobody turns to then.
bool hides_all_or_nothing(const Case& c, const Pair& pair) {
    if (!fixture::has_set(pair)) {
        return true;
    }
    fixture::ImageIo main("main", pair.main, pair.block);
    fixture::ImageIo spare("spare", pair.spare, pair.block);
    const remap::Superblock superblock = remap::load_superblock(spare);
    remap::MainBlocks blocks(main, superblock.block_sectors());
    const auto ours = [&](std::uint64_t block) {
        return remap::look_at_place(blocks, superblock, block) == remap::Place::ours;
    };
    auto hidden = remap::hidden_blocks_of(superblock);
    std::set<std::uint64_t> replicas;
    for (const remap::ByteRange& range : c.payload.replicas) {
        remap::hide_bytes(superblock, replicas, range);
    }
    if (ours(remap::deciding_block(superblock))) {
        return std::all_of(replicas.begin(), replicas.end(), ours);
    }
    for (const std::uint64_t block : replicas) {
        hidden.erase(block);
    }
    return std::none_of(hidden.begin(), hidden.end(), ours);
}

/// What remap-fsck does with a crashed pair: nothing where there is no set.
Pair recovered(const Pair& crashed) {
    return fixture::has_set(crashed) ? fixture::run(crashed, recover) : crashed;
}

struct Tally {
    std::size_t states = 0;
    std::size_t sets = 0;
    std::size_t wrong = 0;
    std::size_t half_hidden = 0;  ///< before recovery
};

Tally check_all(const Case& c, const Pair& before, const fixture::Job& job, const Image& original) {
    Tally tally;
    fixture::each_crash(before, fixture::record(before, job), [&](const Pair& crashed) {
        const Pair after = recovered(crashed);
        ++tally.states;
        tally.sets += fixture::has_set(after) ? 1 : 0;
        tally.wrong += is_one_of_two(after, original) ? 0 : 1;
        tally.half_hidden += hides_all_or_nothing(c, crashed) ? 0 : 1;
    });
    return tally;
}

/// A set with remapped blocks besides the hidden ones, whose main holds stale data.
Pair used_set(const Case& c) {
    return fixture::run(fresh_pair(c), [&c](remap::BlockIo& main, remap::BlockIo& spare) {
        fixture::remap_some(spare, fixture::adopt_now(main, spare, c.payload, c.block).superblock);
    });
}

}  // namespace

TEST_CASE("A power cut at any write of an adoption leaves the original main or the complete set",
          "[adopt][crash]") {
    for (const Case& c : cases()) {
        const Pair before = fresh_pair(c);
        const Tally tally = check_all(c, before, adoption(c), before.main);
        INFO(c.name << ": " << tally.states << " states, " << tally.sets << " with a set");
        CHECK(tally.wrong == 0);
        CHECK(tally.half_hidden == 0);
        CHECK(tally.states > 200);
        CHECK(tally.sets > 20);
        CHECK(tally.sets < tally.states);
    }
}

TEST_CASE("A power cut at any write of a release leaves the complete set or the original main",
          "[adopt][crash]") {
    for (const Case& c : cases()) {
        const Pair before = used_set(c);
        const auto view = fixture::composed_view(before);
        REQUIRE(view);
        const Tally tally = check_all(c, before, release, *view);
        INFO(c.name << ": " << tally.states << " states, " << tally.sets << " with a set");
        CHECK(tally.wrong == 0);
        CHECK(tally.half_hidden == 0);
        CHECK(tally.states > 100);
        CHECK(tally.sets > 20);
        CHECK(tally.sets < tally.states);
    }
}

namespace {

/// A set of an empty main, on which this was made.
Pair made_later(const Image& payload, std::uint32_t block, bool zfs) {
    remap::MemoryIo main("main", Image(payload.size()), block);
    remap::MemoryIo spare("spare", Image(8U << 20), block);
    auto request = fixture::request_for(remap::recognise_payload(main, block, false), block);
    request.zfs = zfs;
    remap::Observer quiet;
    remap::adopt(
        main, spare, remap::plan_adoption(main, spare, request), [](const auto&, const auto&) {},
        quiet);
    const remap::Superblock superblock = remap::load_superblock(spare);
    std::map<std::uint64_t, std::uint64_t> slots;
    for (const auto& mapping : remap::live_mappings(remap::load_intact_table(spare, superblock))) {
        slots[mapping.block] = mapping.slot;
    }
    const auto hidden = remap::hidden_blocks_of(superblock);
    for (std::uint64_t b = 0; b < payload.size() / block; ++b) {
        const auto from = payload.begin() + static_cast<std::ptrdiff_t>(b * block);
        const std::vector<std::uint8_t> bytes(from, from + block);
        if (hidden.count(b) != 0) {
            spare.write(superblock.slot_sector(slots.at(b)), bytes);
        } else {
            main.write(b * (block / 512), bytes);
        }
    }
    return {main.content(), spare.content(), block};
}

}  // namespace

TEST_CASE("A release that is undone after a power cut has shown nothing, whatever was made later",
          "[adopt][crash]") {
    const scratch::Folder folder;
    const auto made_by = [&folder](const std::vector<std::string>& tool, std::size_t size) {
        const std::string file = folder.file("payload");
        scratch::spill(file, std::string(size, '\0'));
        auto words = tool;
        words.push_back(file);
        REQUIRE(scratch::run(words).code == 0);
        const std::string text = scratch::slurp(file);
        return Image(text.begin(), text.end());
    };
    Image zfs(64U << 20);
    payloads::make_zfs(zfs);
    Image luks(16U << 20);
    payloads::make_luks2(luks, luks2_header);
    const std::vector<std::pair<std::string, Image>> payloads = {
        {"ext4", made_by({"mkfs.ext4", "-q", "-F"}, 16U << 20)},
        {"btrfs", made_by({"mkfs.btrfs", "-q", "--mixed"}, 24U << 20)},
        {"swap", made_by({"mkswap", "-q"}, 16U << 20)},
        {"zfs", zfs},
        {"luks2", luks},
    };
    for (const auto& [name, payload] : payloads) {
        for (const std::uint32_t block : {512U, 4096U}) {
            INFO(name << ", blocks of " << block);
            Pair pair = made_later(payload, block, name == "zfs");
            REQUIRE(fixture::composed_view(pair) == payload);
            const auto log = fixture::record(pair, [](remap::BlockIo& main, remap::BlockIo& spare) {
                remap::Observer quiet;
                remap::release_set(main, spare, false, quiet);
            });
            std::size_t undone = 0;
            std::size_t shown = 0;
            for (const Event& event : log) {
                if (event.flush) {
                    continue;
                }
                fixture::apply(pair, event, event.data.size());
                if (!event.on_main || !fixture::has_set(pair)) {
                    continue;
                }
                fixture::ImageIo main("main", pair.main, block);
                const bool visible = !remap::signatures_on(main).empty();
                if (!visible && undone > 2) {
                    continue;  // the other test recovers from every state
                }
                const Pair after = recovered(pair);
                if (fixture::has_set(after)) {
                    ++undone;
                    shown += visible ? 1 : 0;
                } else {
                    CHECK(after.main == payload);
                }
            }
            CHECK(undone > 2);
            CHECK(shown == 0);
            CHECK(pair.main == payload);
        }
    }
}

TEST_CASE("A release writes back every remapped block", "[adopt]") {
    for (const Case& c : cases()) {
        const Pair before = used_set(c);
        const auto view = fixture::composed_view(before);
        REQUIRE(view);
        CHECK(*view != before.main);
        const Pair after = fixture::run(before, release);
        CHECK(after.main == *view);
        CHECK_FALSE(fixture::has_set(after));
    }
}

TEST_CASE("A power cut during recovery is recovered from in turn", "[adopt][crash]") {
    const Case& c = cases().front();
    const Pair before = fresh_pair(c);
    const auto log = fixture::record(before, adoption(c));
    std::size_t done = 0;
    Pair state = before;
    for (const Event& event : log) {
        if (!event.flush) {
            fixture::apply(state, event, event.data.size());
        }
        // The states that matter are those with a set that is not complete; every third is enough.
        if (event.flush || !fixture::has_set(state) || ++done % 3 != 0) {
            continue;
        }
        const Tally tally = check_all(c, state, recover, before.main);
        CHECK(tally.wrong == 0);
    }
    CHECK(done > 10);
}

TEST_CASE("Rolling back restores places that a drive hid before the deciding sector", "[adopt]") {
    const Case& c = cases().front();
    const Pair before = fresh_pair(c);
    // A drive that reorders writes across a flush: everything is hidden but the deciding sector.
    Pair state = before;
    std::size_t writes_on_main = 0;
    for (const Event& event : fixture::record(before, adoption(c))) {
        const bool decides =
            event.on_main && !event.flush && event.sector == 2 && event.data.size() == 512;
        const bool completes = !event.on_main && writes_on_main > 10;
        if (!event.flush && !decides && !completes) {
            fixture::apply(state, event, event.data.size());
            writes_on_main += event.on_main ? 1 : 0;
        }
    }
    REQUIRE(fixture::has_set(state));
    REQUIRE(state.main != before.main);
    const Pair after = recovered(state);
    CHECK(after.main == before.main);
    CHECK_FALSE(fixture::has_set(after));
}

TEST_CASE("Recovery is the same when it is called again", "[adopt]") {
    const Case& c = cases().front();
    const Pair before = fresh_pair(c);
    const Pair adopted = fixture::run(before, adoption(c));
    remap::MemoryIo main("main", adopted.main);
    remap::MemoryIo spare("spare", adopted.spare);
    CHECK(remap::adopt_recover(main, spare).outcome == remap::Recovery::nothing_to_do);
    CHECK(main.content() == adopted.main);
    CHECK(spare.content() == adopted.spare);
}

namespace {

/// Valid labels of the set with that epoch.
std::size_t labels_of_epoch(const Pair& pair, const remap::Superblock& superblock,
                            std::uint32_t epoch) {
    remap::MemoryIo main("main", pair.main, pair.block);
    std::size_t count = 0;
    for (const std::uint64_t sector : superblock.label_sector) {
        const auto bytes = main.read(sector, 1);
        const auto label = remap::decode_label(bytes, sector);
        count += label.valid() && label.value.head.set_uuid == superblock.head.set_uuid &&
                         label.value.epoch == epoch
                     ? 1
                     : 0;
    }
    return count;
}

/// A release that was interrupted, whose main has one label of epoch 5, at place `alone`; what
/// lies at the other places an activation or the release itself has left.
Pair one_newest_label(const Case& c, std::size_t alone, bool others_released) {
    Pair pair = used_set(c);
    remap::MemoryIo main("main", pair.main, pair.block);
    remap::MemoryIo spare("spare", pair.spare, pair.block);
    remap::Superblock superblock = remap::load_superblock(spare);
    superblock.epoch = superblock.label_epoch = 5;
    superblock.head.state = REMAP_STATE_RELEASING;
    superblock = remap::next_superblock(spare, superblock);
    remap::write_superblock(spare, superblock);
    for (std::size_t i = 0; i < superblock.label_sector.size(); ++i) {
        const std::uint64_t sector = superblock.label_sector[i];
        remap::Label label = remap::make_label(superblock);
        label.head.state = REMAP_STATE_COMPLETE;
        label.epoch = i == alone ? 5 : 4;
        std::vector<std::uint8_t> block(pair.block, 0x33);
        if (i == alone || !others_released) {
            const auto bytes = remap::encode_label(label, static_cast<unsigned int>(i), sector);
            std::copy(bytes.begin(), bytes.end(), block.begin());
        }
        main.write(sector, block);
    }
    pair.main = main.content();
    pair.spare = spare.content();
    return pair;
}

}  // namespace

TEST_CASE("the only label with the newest epoch is written over last") {
    for (const Case& c : cases()) {
        for (const bool released : {false, true}) {
            const Pair sample = used_set(c);
            remap::MemoryIo spare("spare", sample.spare, sample.block);
            const remap::Superblock places = remap::load_superblock(spare);
            for (std::size_t alone = 0; alone < places.label_sector.size(); ++alone) {
                // Released places show the payload: that ends the release unless one decides.
                const bool deciding = places.label_sector[alone] / places.block_sectors() ==
                                      remap::deciding_block(places);
                if (released && !deciding) {
                    continue;
                }
                Pair now = one_newest_label(c, alone, released);
                remap::MemoryIo its_spare("spare", now.spare, now.block);
                const remap::Superblock superblock = remap::load_superblock(its_spare);
                const auto log = fixture::record(now, recover);
                INFO(c.name << ", place " << alone << (released ? ", released" : ""));
                REQUIRE_FALSE(log.empty());
                for (const Event& event : log) {
                    if (!event.flush && event.on_main) {
                        // While it is written the place holds anything.
                        Pair torn = now;
                        Event garbage = event;
                        std::fill(garbage.data.begin(), garbage.data.end(), std::uint8_t{0x5a});
                        fixture::apply(torn, garbage, garbage.data.size());
                        CHECK(labels_of_epoch(torn, superblock, 5) > 0);
                    }
                    if (!event.flush) {
                        fixture::apply(now, event, event.data.size());
                    }
                }
                CHECK(labels_of_epoch(now, superblock, 5) == superblock.label_sector.size());
                CHECK(fixture::all_hidden(now));
            }
        }
    }
}
