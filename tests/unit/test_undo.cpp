// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a repair overwrites can be given back, whatever the damage was and wherever the power went.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/rehearsal.hpp"
#include "libremap/undo.hpp"
#include "libremap/undo_place.hpp"
#include "long_run.hpp"
#include "sample_set.hpp"
#include "scratch.hpp"

using namespace remap;
using namespace remap::test;

namespace {

using Image = std::vector<std::uint8_t>;

bool everything(const Finding&) {
    return true;
}

/// What happened to undo file, spare and main, in one order.
struct Event {
    enum class To { file, file_sync, spare, main } to = To::file;
    std::uint64_t sector = 0;
    Image data;
};
using Log = std::vector<Event>;

class MemorySink : public UndoSink {
  public:
    explicit MemorySink(Log* log = nullptr) : log_(log) {}
    void append(ConstBytes data) override {
        bytes.insert(bytes.end(), data.begin(), data.end());
        if (log_)
            log_->push_back({Event::To::file, 0, {data.begin(), data.end()}});
    }
    void sync() override {
        if (log_)
            log_->push_back({Event::To::file_sync, 0, {}});
    }
    Image bytes;

  private:
    Log* log_;
};

class EventIo : public StackedIo {
  public:
    EventIo(BlockIo& below, Event::To to, Log& log) : StackedIo(below), to_(to), log_(log) {}
    int try_write(std::uint64_t sector, ConstBytes from) override {
        const int error = StackedIo::try_write(sector, from);
        if (!error)
            log_.push_back({to_, sector, {from.begin(), from.end()}});
        return error;
    }

  private:
    Event::To to_;
    Log& log_;
};

/// Check, rehearsal, undo file, repair. Null: nothing was to be written.
std::optional<CheckResult> repair_logged(BlockIo& spare, BlockIo* main, UndoSink& sink,
                                         const Wanted& wanted = everything) {
    CheckResult result = check_set(spare, main);
    if (!result.superblock)
        return std::nullopt;
    const Rehearsal rehearsal = rehearse(result, spare, main, wanted);
    if (rehearsal.journal.empty())
        return std::nullopt;
    const UndoHeader header = undo_header(*result.superblock, rehearsal);
    write_undo(sink, header, rehearsal.journal, spare, main);
    CHECK(apply_rehearsed(result, rehearsal, spare, main, wanted, sink, header.id) == 0);
    return result;
}

/// A set whose damage makes the repair write to every kind of place, some of them twice.
SampleSet damaged_set() {
    SampleSet set(SampleOptions{8192, 4096, 9, 4, 300, 3});
    set.superblock.live_copies = 1;
    set.superblock.head.generation++;
    write_superblock(set.spare, set.superblock);
    scribble(set.spare, set.superblock.segment().table_start[1], 3);
    flip(set.spare, set.superblock.sb_sector[1], 5000);
    scribble(set.spare, set.superblock.sb_sector[4], 8);
    flip(set.main, 0, 1000);
    scribble(set.main, 3, 1);
    return set;
}

/// As small as it gets.
SampleSet slightly_damaged_set() {
    SampleSet set(SampleOptions{4096, 2048, 9, 4, 5, 3});
    flip(set.main, 0, 1000);
    return set;
}

std::string refusal(const UndoLog& log, BlockIo& spare, BlockIo* main) {
    try {
        verify_undo(log, spare, main);
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("undo gives back identical bytes after any damage and repair", "[undo][long]") {
    std::mt19937 random(30);
    unsigned int repaired = 0;

    for (unsigned int round = 0; round < property_rounds(); round++) {
        SampleSet set(SampleOptions{8192, 4096 + random() % 4096, 9, 4 + random() % 8,
                                    1 + random() % 500, static_cast<std::uint32_t>(random())});
        const auto& sb = set.superblock;
        if (random() % 4 == 0) {
            set.superblock.live_copies = static_cast<std::uint8_t>(1 + random() % 2);
            set.superblock.head.generation++;
            write_superblock(set.spare, set.superblock);
        }
        const int hits = static_cast<int>(random() % 6);
        for (int i = 0; i < hits; i++) {
            const std::uint64_t sector =
                random() % 2 != 0 ? sb.table_sector(random() % sb.table_length, random() % 2)
                                  : sb.sb_sector[random() % REMAP_SB_COPIES];
            if (random() % 2 != 0)
                flip(set.spare, sector, random() % 32768);
            else
                scribble(set.spare, sector + random() % 8, 1, static_cast<std::uint8_t>(random()));
            if (random() % 3 == 0)
                flip(set.main, random() % 8, random() % 4096);
        }
        const Image spare = set.spare.content();
        const Image main = set.main.content();
        MemorySink sink;
        INFO("round " << round);
        if (!repair_logged(set.spare, &set.main, sink))
            continue;
        repaired++;
        const UndoLog log = parse_undo(sink.bytes, "undo");
        const UndoResult result = undo_repair(log, set.spare, &set.main);
        CHECK(result.errors.empty());
        REQUIRE(set.spare.content() == spare);
        REQUIRE(set.main.content() == main);
        // Once more: nothing is left to do, and that is no error.
        CHECK(undo_repair(log, set.spare, &set.main).restored == 0);
    }
    CHECK(repaired > property_rounds() / 2);
}

TEST_CASE("the undo file is whole before the first change, and power may fail anywhere", "[undo]") {
    const SampleSet before = damaged_set();
    SampleSet set = before;
    Log log;
    EventIo spare(set.spare, Event::To::spare, log);
    EventIo main(set.main, Event::To::main, log);
    MemorySink sink(&log);
    REQUIRE(repair_logged(spare, &main, sink));
    REQUIRE(log.size() > 20);

    bool synced = false;
    Image file;
    SampleSet now = before;
    const auto check = [&](const Image& durable) {
        MemoryIo s = now.spare;
        MemoryIo m = now.main;
        const UndoLog undo = parse_undo(durable, "undo");
        undo_repair(undo, s, &m);
        CHECK(s.content() == before.spare.content());
        CHECK(m.content() == before.main.content());
    };
    const auto put = [](MemoryIo& io, const Event& event, std::size_t bytes) {
        std::copy_n(event.data.begin(), bytes,
                    io.content().begin() + static_cast<std::ptrdiff_t>(event.sector * sector_size));
    };
    for (const Event& event : log) {
        if (event.to == Event::To::file) {
            CHECK((!synced || file.empty() || !event.data.empty()));
            file.insert(file.end(), event.data.begin(), event.data.end());
            continue;
        }
        if (event.to == Event::To::file_sync) {
            synced = true;
            check(file);
            continue;
        }
        REQUIRE(synced);
        MemoryIo& io = event.to == Event::To::spare ? now.spare : now.main;
        for (std::size_t torn = sector_size; torn < event.data.size(); torn += sector_size) {
            put(io, event, torn);
            check(file);
        }
        put(io, event, event.data.size());
        check(file);
    }
    CHECK(now.spare.content() == set.spare.content());
}

TEST_CASE("an undo that was interrupted anywhere is finished by the next", "[undo]") {
    const SampleSet before = damaged_set();
    SampleSet set = before;
    MemorySink sink;
    REQUIRE(repair_logged(set.spare, &set.main, sink));
    const UndoLog log = parse_undo(sink.bytes, "undo");

    for (const bool on_main : {false, true}) {
        for (std::int64_t writes = 0;; writes++) {
            bool cut = false;
            for (const std::uint64_t torn : {0U, 1U, 5U}) {
                MemoryIo spare = set.spare;
                MemoryIo main = set.main;
                FaultIo bad_spare(spare);
                FaultIo bad_main(main);
                (on_main ? bad_main : bad_spare).power_cut_after = writes;
                (on_main ? bad_main : bad_spare).torn_sectors = torn;
                try {
                    undo_repair(log, bad_spare, &bad_main);
                } catch (const FaultIo::PowerCut&) {
                    cut = true;
                }
                undo_repair(log, spare, &main);
                CHECK(spare.content() == before.spare.content());
                CHECK(main.content() == before.main.content());
            }
            if (!cut)
                break;
        }
    }
}

TEST_CASE("undo is refused, and nothing written, when the device has moved on", "[undo]") {
    const SampleSet before = damaged_set();
    SampleSet set = before;
    MemorySink sink;
    REQUIRE(repair_logged(set.spare, &set.main, sink));
    const UndoLog log = parse_undo(sink.bytes, "undo");
    const auto refused = [&](SampleSet& changed) {
        const Image spare = changed.spare.content();
        const Image main = changed.main.content();
        const std::string why = refusal(log, changed.spare, &changed.main);
        CHECK_FALSE(why.empty());
        CHECK_THROWS_AS(undo_repair(log, changed.spare, &changed.main), Error);
        CHECK(changed.spare.content() == spare);
        CHECK(changed.main.content() == main);
        return why;
    };
    REQUIRE(refusal(log, set.spare, &set.main).empty());

    SECTION("every sector of the ranges counts") {
        for (const UndoLog::Range& range : log.ranges) {
            for (std::uint64_t i = 0; i < range.count; i++) {
                SampleSet changed = set;
                MemoryIo& io = range.member == 0 ? changed.spare : changed.main;
                flip(io, range.sector + i, 4095);
                const std::string why = refusal(log, changed.spare, &changed.main);
                INFO(range.member << " " << range.sector + i << ": " << why);
                CHECK_FALSE(why.empty());
            }
        }
    }
    SECTION("a newer epoch") {
        const CheckResult result = check_set(set.spare, nullptr);
        Superblock raised = *result.superblock;
        raised.epoch++;
        raised.head.generation = next_generation(raised.epoch, raised.head.generation);
        write_superblock_copy(set.spare, raised, 2);
        CHECK(contains(refused(set), "epoch: expected at most 1, found 2"));
    }
    SECTION("a newer generation") {
        const CheckResult result = check_set(set.spare, nullptr);
        Superblock raised = *result.superblock;
        raised.head.generation++;
        write_superblock_copy(set.spare, raised, 2);
        CHECK(contains(refused(set), "generation: expected at most"));
    }
    SECTION("a table block that was committed outside the ranges") {
        SampleSet slight = slightly_damaged_set();
        MemorySink small;
        REQUIRE(repair_logged(slight.spare, &slight.main, small));
        const CheckResult result = check_set(slight.spare, nullptr);
        write_table_block(slight.spare, *result.superblock, 0, result.table.highest_generation + 1,
                          std::span(result.table.entries).first(REMAP_ENTRIES_PER_BLOCK));
        CHECK(contains(refusal(parse_undo(small.bytes, "undo"), slight.spare, &slight.main),
                       "generation"));
    }
    SECTION("a superblock outside the ranges, under the same generation") {
        SampleSet slight = slightly_damaged_set();
        MemorySink small;
        REQUIRE(repair_logged(slight.spare, &slight.main, small));
        flip(slight.spare, slight.superblock.sb_sector[3], 30000);
        CHECK(contains(refusal(parse_undo(small.bytes, "undo"), slight.spare, &slight.main),
                       "superblocks"));
    }
    SECTION("another set, another size, a main that is missing or another") {
        SampleSet other(SampleOptions{8192, 4096, 9, 4, 300, 4});
        CHECK(contains(refused(other), "is not the spare of the undo file"));
        MemoryIo grown = set.spare;
        grown.content().resize(grown.content().size() + 4096);
        CHECK(contains(refusal(log, grown, &set.main), "sectors, found"));
        CHECK(contains(refusal(log, set.spare, nullptr), "--main"));
        CHECK_FALSE(refusal(log, set.spare, &other.main).empty());
    }
}

TEST_CASE("a torn or damaged undo file is refused as a whole", "[undo]") {
    const SampleSet before = slightly_damaged_set();
    SampleSet set = before;
    MemorySink sink;
    REQUIRE(repair_logged(set.spare, &set.main, sink));
    const Image whole = sink.bytes;
    REQUIRE_NOTHROW(parse_undo(whole, "undo"));

    for (std::size_t length = 0; length < whole.size(); length++) {
        const Image torn(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        INFO(length);
        CHECK_THROWS_AS(parse_undo(torn, "undo"), Error);
    }
    for (std::size_t bit = 0; bit < whole.size() * 8; bit++) {
        Image flipped = whole;
        flipped[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
        INFO(bit);
        CHECK_THROWS_AS(parse_undo(std::move(flipped), "undo"), Error);
    }
    SECTION("what comes after the end is taken only if it is whole") {
        const UndoLog log = parse_undo(whole, "undo");
        MemorySink longer;
        longer.bytes = whole;
        const std::vector<std::uint32_t> crcs = {1, 2, 3};
        add_undo_images(longer, log.header.id, 0, 100, crcs);
        CHECK(parse_undo(longer.bytes, "undo").images[0].at(102).back() == 3);
        for (std::size_t length = whole.size(); length < longer.bytes.size(); length++) {
            Image torn(longer.bytes.begin(),
                       longer.bytes.begin() + static_cast<std::ptrdiff_t>(length));
            CHECK(parse_undo(std::move(torn), "undo").images[0].count(102) == 0);
        }
        MemorySink foreign;
        foreign.bytes = whole;
        add_undo_images(foreign, log.header.id + 1, 0, 100, crcs);
        CHECK(parse_undo(foreign.bytes, "undo").images[0].empty());
    }
}

TEST_CASE("what could not be read before the repair is left as it is by the undo", "[undo]") {
    SampleSet set = slightly_damaged_set();
    const std::uint64_t bad = set.superblock.sb_sector[2] + 3;
    const Image before = set.spare.content();
    FaultIo fault(set.spare);
    MemorySink sink;
    fault.bad_reads = {bad};
    const auto result = repair_logged(fault, &set.main, sink);
    REQUIRE(result);
    CHECK(ids(*result) == std::vector<std::string>{"RMF-0102", "RMF-0506"});
    const UndoLog log = parse_undo(sink.bytes, "undo");
    CHECK(log.unreadable_sectors() == 1);
    undo_repair(log, fault, &set.main);
    CHECK(set.spare.content() == before);
}

TEST_CASE("a repair that meets write errors can still be undone", "[undo]") {
    for (const std::uint64_t at : {0U, 3U, 7U}) {
        const SampleSet before = damaged_set();
        SampleSet set = before;
        FaultIo fault(set.spare);
        MemorySink sink;
        fault.bad_writes = {set.superblock.sb_sector[1] + at};
        REQUIRE(repair_logged(fault, &set.main, sink));
        const UndoLog log = parse_undo(sink.bytes, "undo");
        const UndoResult result = undo_repair(log, set.spare, &set.main);
        CHECK(result.errors.empty());
        CHECK(set.spare.content() == before.spare.content());
        CHECK(set.main.content() == before.main.content());
    }
}

TEST_CASE("the guard lets through what was rehearsed and nothing else", "[undo]") {
    MemoryIo below("dev", 64);
    WriteJournal journal;
    const Image ones(512, 1);
    const Image twos(512, 2);
    std::vector<std::uint64_t> told;
    bool full = false;
    journal.note(0, 7, ones);
    GuardIo guard(below, journal, 0, [&](unsigned int, std::uint64_t sector, const auto&) {
        if (full)
            throw Error(Exit::operational, "no room");
        told.push_back(sector);
    });
    CHECK(guard.try_write(7, ones) == 0);
    CHECK(told.empty());
    CHECK(guard.try_write(8, ones) == EPERM);
    CHECK(guard.try_write(6, Image(1024, 1)) == EPERM);
    CHECK(guard.try_write(7, twos) == 0);
    CHECK(told == std::vector<std::uint64_t>{7});
    full = true;
    CHECK(guard.try_write(7, Image(512, 3)) == EIO);
    CHECK(guard.refused() == 3);
    CHECK(below.read(6, 3) == [] {
        Image wanted(3 * 512);
        std::fill_n(wanted.begin() + 512, 512, std::uint8_t{2});
        return wanted;
    }());
}

TEST_CASE("the overlay shows what was written to it and leaves the device alone", "[undo]") {
    MemoryIo below("dev", Image(64 * 512, 9), 4096);
    FaultIo fault(below);
    OverlayIo overlay(fault, nullptr, 0);
    const Image before = below.content();
    fault.bad_reads = {20};
    CHECK(overlay.try_write(3, Image(512)) == EINVAL);
    CHECK(overlay.try_write(64, Image(4096)) == ENOSPC);
    CHECK(overlay.try_write(16, Image(4096, 4)) == 0);
    Image wanted(24 * 512, 9);
    std::fill_n(wanted.begin() + 8 * 512, 8 * 512, std::uint8_t{4});
    CHECK(overlay.read(8, 24) == wanted);  // over a sector that cannot be read
    CHECK(overlay.try_read(60, wanted) == EIO);
    CHECK(below.content() == before);
}

TEST_CASE("an undo file is new, private and durable, or there is none", "[undo]") {
    const scratch::Folder folder;
    const std::string path = folder.file("x.undo");
    {
        UndoFileSink sink(path);
        sink.append(Image{1, 2, 3});
        sink.sync();
        CHECK(scratch::slurp(path) == std::string("\1\2\3"));
        CHECK(std::filesystem::status(path).permissions() ==
              (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
        CHECK_THROWS_AS(UndoFileSink(path), Error);
        sink.discard();
        CHECK_FALSE(std::filesystem::exists(path));
    }
    std::filesystem::create_symlink(folder.file("elsewhere"), path);
    CHECK_THROWS_AS(UndoFileSink(path), Error);
    CHECK_THROWS_AS(UndoFileSink(folder.file("none/x.undo")), Error);
    CHECK_THROWS_AS(read_undo(folder.path().string()), Error);
    CHECK_THROWS_AS(read_undo(folder.file("missing")), Error);
}

TEST_CASE("remap-fsck -z and --undo", "[undo]") {
    const scratch::Folder folder;
    const SampleSet before = damaged_set();
    const auto bytes = [](const Image& image) { return std::string(image.begin(), image.end()); };
    const std::string spare = folder.file("spare");
    const std::string main = folder.file("main");
    const std::string undo = folder.file("x.undo");
    const auto fsck = [](std::vector<std::string> words) {
        words.insert(words.begin(), REMAP_BIN_DIR "/remap-fsck");
        return scratch::run(words);
    };
    scratch::spill(spare, bytes(before.spare.content()));
    scratch::spill(main, bytes(before.main.content()));

    CHECK(fsck({"-n", "-z", undo, spare}).code == 16);
    CHECK(fsck({"-p", "--undo", undo, spare}).code == 16);
    scratch::spill(undo, "mine");
    const auto refused = fsck({"-y", "-z", undo, "--main", main, spare});
    CHECK(refused.code == (8 | 4));
    CHECK(contains(refused.err, undo + ": cannot make the undo file: File exists"));
    CHECK(scratch::slurp(undo) == "mine");
    CHECK(scratch::slurp(spare) == bytes(before.spare.content()));
    CHECK(fsck({"-y", "-z", folder.file("none/x"), "--main", main, spare}).code == (8 | 4));
    CHECK(scratch::slurp(spare) == bytes(before.spare.content()));
    CHECK(fsck({"--undo", undo, spare}).code == 8);
    std::filesystem::remove(undo);

    const auto repaired = fsck({"-y", "-z", undo, "--main", main, spare});
    CHECK(repaired.code == 1);
    CHECK(contains(repaired.out, "--undo " + undo));
    CHECK(fsck({"-n", "--main", main, spare}).code == 0);
    CHECK(fsck({"--undo", undo, spare}).code == 16);
    const std::string good = scratch::slurp(spare);
    CHECK(fsck({"-n", "--undo", undo, "--main", main, spare}).code == 0);
    CHECK(scratch::slurp(spare) == good);
    const auto undone = fsck({"--undo", undo, "--main", main, spare});
    CHECK(undone.code == 0);
    CHECK(scratch::slurp(spare) == bytes(before.spare.content()));
    CHECK(scratch::slurp(main) == bytes(before.main.content()));
    CHECK(fsck({"--undo", undo, "--main", main, spare}).code == 0);
    scratch::spill(spare, good.substr(0, good.size() - 4096));
    CHECK(fsck({"--undo", undo, "--main", main, spare}).code == 8);
}

TEST_CASE("options -p and -y keep undo files by themselves, a limited number of them", "[undo]") {
    const scratch::Folder folder;
    SampleSet set(SampleOptions{4096, 2048, 9, 4, 5, 3});
    const std::string state = folder.file("state");
    const Uuid uuid = set.superblock.head.set_uuid;
    const std::string before = ::getenv("REMAP_STATE_DIR");
    const auto files = [&state] {
        std::set<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(state))
            names.insert(entry.path().filename().string());
        return names;
    };
    ::setenv("REMAP_STATE_DIR", state.c_str(), 1);
    scratch::spill(folder.file("spare"), "");
    for (int round = 0; round < 12; round++) {
        SampleSet damaged = set;
        flip(damaged.spare, set.superblock.sb_sector[1], 5000);
        const Image& image = damaged.spare.content();
        scratch::spill(folder.file("spare"), {image.begin(), image.end()});
        const auto result = scratch::run(
            {REMAP_BIN_DIR "/remap-fsck", round % 2 != 0 ? "-p" : "-y", folder.file("spare")});
        CHECK(result.code == 1);
        REQUIRE(files().size() == std::min<std::size_t>(round + 1, kept_of_set));
        if (round > 0)
            continue;
        const std::string undo = state + "/" + *files().begin();
        CHECK(contains(undo, "/fsck-" + uuid.str() + "-20"));
        CHECK(contains(result.out, undo));
        CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "--undo", undo, folder.file("spare")})
                  .code == 0);
        CHECK(scratch::slurp(folder.file("spare")) == std::string(image.begin(), image.end()));
    }
    // Files that are not ours stay, and so does the newest, whatever the clock says.
    scratch::spill(state + "/notes.undo", "");
    const std::string old = state + "/fsck-" + uuid.str() + "-19700101T000000Z.undo";
    scratch::spill(old, "");
    std::filesystem::last_write_time(old, {});
    prune_undo_files(state, uuid, old);
    CHECK(files().size() == kept_of_set + 1);
    CHECK(files().count("notes.undo") == 1);
    CHECK(std::filesystem::exists(old));

    // No place for one is no reason to stop.
    ::setenv("REMAP_STATE_DIR", "/proc/none", 1);
    flip(set.spare, set.superblock.sb_sector[1], 5000);
    const Image& image = set.spare.content();
    scratch::spill(folder.file("spare"), {image.begin(), image.end()});
    const auto result = scratch::run({REMAP_BIN_DIR "/remap-fsck", "-p", folder.file("spare")});
    CHECK(result.code == 1);
    CHECK(contains(result.err, "no undo file is written"));
    ::setenv("REMAP_STATE_DIR", before.c_str(), 1);
}
