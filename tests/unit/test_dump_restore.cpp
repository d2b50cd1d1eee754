// SPDX-License-Identifier: GPL-2.0-or-later
//
// Dumps of a set and sets from dumps: what comes back is what was there, and what is not a dump
// is refused with the place where it goes wrong.
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/export.hpp"
#include "libremap/restore.hpp"
#include "libremap/set_reader.hpp"
#include "libremap/set_writer.hpp"
#include "long_run.hpp"
#include "replay.hpp"
#include "sample_set.hpp"
#include "scratch.hpp"

using namespace remap;
using namespace remap::test;

namespace {

std::string dump_of(BlockIo& spare, bool json, std::optional<Exit> expected = Exit::ok) {
    std::ostringstream out;
    const auto writer = json ? make_json_writer(out) : make_text_writer(out);
    const Exit code = visit_set(spare, false, *writer);

    if (expected)
        CHECK(code == *expected);
    return out.str();
}

StagedSet set_from(const std::string& dump) {
    std::istringstream in(dump);
    SetBuilder builder;

    read_dump(*in.rdbuf(), "dump", builder);
    return builder.take();
}

std::string refusal(const std::string& dump) {
    try {
        set_from(dump);
    } catch (const Error& error) {
        CHECK((error.code() == Exit::unrecognised || error.code() == Exit::operational));
        return error.what();
    }
    return {};
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
    const std::size_t at = text.find(what);
    REQUIRE(at != std::string::npos);
    return text.replace(at, what.size(), by);
}

/// Everything that a set can be, by number.
SampleOptions options_number(std::mt19937& random) {
    SampleOptions options;
    const bool large_blocks = random() % 3 == 0;
    options.block_shift = large_blocks ? 12 : 9;
    options.main_size = large_blocks ? 65536 : 8192;
    options.spare_size = 4096 + 8 * (random() % 2048) + random() % 8;
    options.hidden_each_end = random() % 3 == 0 ? 0 : 4 + random() % 8;
    options.remaps = 1 + random() % (large_blocks ? 100 : 700);
    options.seed = static_cast<std::uint32_t>(random());
    return options;
}

/// Other states, causes, times and texts than a sample has.
void vary(SampleSet& set, std::mt19937& random) {
    for (std::uint64_t slot = 0; slot < set.entries.size(); slot++) {
        Entry& e = set.entries[slot];
        if (e.is_free() || random() % 4 != 0)
            continue;
        static constexpr remap_entry_state states[] = {REMAP_ENTRY_MAPPED, REMAP_ENTRY_LOST,
                                                       REMAP_ENTRY_BAD};
        e = Entry::make(states[random() % 3], e.block(),
                        static_cast<remap_entry_cause>(random() % 256),
                        static_cast<std::uint8_t>(random()), random() & REMAP_ENTRY_SEQ_MASK,
                        static_cast<std::uint32_t>(random()));
    }
    static const char* const labels[] = {"", "root", "two words ", "\xc3\xa4 \\ \"", "\xff\n\x01"};
    set.superblock.label = labels[random() % 5];
    if (random() % 2 == 0)
        set.superblock.live_copies = 1;
    set.write_all();
}

}  // namespace

TEST_CASE("dump, restore, dump: the same dump, and the same bytes", "[dump][restore][long]") {
    std::mt19937 random(20);

    for (unsigned int round = 0; round < property_rounds(); round++) {
        CAPTURE(round);
        SampleSet set(options_number(random));
        vary(set, random);
        // Causes of the future and dead copies are damage of a kind, and are kept.
        const std::string json = dump_of(set.spare, true, {});
        const std::string text = dump_of(set.spare, false, {});
        MemoryIo blank("blank.img", set.spare.size());
        Observer quiet;
        write_set(blank, set_from(round % 2 == 0 ? json : text), quiet);
        REQUIRE(dump_of(blank, true, {}) == json);
        REQUIRE(dump_of(blank, false, {}) == text);
        const Superblock& sb = set.superblock;
        for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++)
            REQUIRE(blank.BlockIo::read(sb.sb_sector[copy], 8) ==
                    set.spare.BlockIo::read(sb.sb_sector[copy], 8));
        for (unsigned int copy = 0; copy < 2; copy++) {
            if ((sb.live_copies >> copy & 1) == 0)
                continue;
            REQUIRE(blank.BlockIo::read(sb.table_sector(0, copy), sb.table_length * 8) ==
                    set.spare.BlockIo::read(sb.table_sector(0, copy), sb.table_length * 8));
        }
    }
}

TEST_CASE("a dump in JSON is JSON with one entry per line", "[dump]") {
    SampleSet set;
    const std::string dump = dump_of(set.spare, true);
    const auto parsed = nlohmann::json::parse(dump);
    std::size_t lines = 0;
    std::size_t entries = 0;
    std::istringstream in(dump);

    for (std::string line; std::getline(in, line);)
        lines += line.starts_with("{\"slot\": ");
    for (const auto& block : parsed["table"])
        entries += block["entries"].size();
    CHECK(parsed["format"] == "dm-remap dump");
    CHECK(parsed["superblock"]["set_uuid"] == set.superblock.head.set_uuid.str());
    CHECK(entries == 36);
    CHECK(lines == entries);
}

TEST_CASE("a damaged set is dumped and said to be damaged; a lost block cannot be restored",
          "[dump][restore]") {
    SampleSet set({4096, 16384, 9, 8, 600, 3});
    const std::string whole = dump_of(set.spare, true);

    scribble(set.spare, set.superblock.table_sector(1, 0), 8);
    CHECK(dump_of(set.spare, true, Exit::damage) == whole);
    scribble(set.spare, set.superblock.table_sector(1, 1), 8);
    for (const bool json : {true, false}) {
        const std::string dump = dump_of(set.spare, json, Exit::damage);
        CHECK(refusal(dump).find("table block 1") != std::string::npos);
        CHECK(refusal(dump).find("line ") != std::string::npos);
    }
}

TEST_CASE("what is not a dump is refused with line and byte", "[dump][restore]") {
    SampleSet set;
    const std::string json = dump_of(set.spare, true);
    const std::string text = dump_of(set.spare, false);
    struct Row {
        const char* what;
        std::string dump;
        const char* says;
    };
    const std::vector<Row> rows = {
        {"nothing", "", "line 1, byte 1"},
        {"something else", "hello\n", "line 1, byte 1"},
        {"another object", "{\"a\": 1}", "line 1, byte"},
        {"a list", "[1]", "line 1, byte 1"},
        {"cut short", json.substr(0, json.size() / 2), "line "},
        {"without its end", json.substr(0, json.size() - 3), "line "},
        {"goes on", json + "{}", "line "},
        {"another version", replaced(json, "\"version\": 1", "\"version\": 2"), "version 1"},
        {"a negative number", replaced(json, "\"slot\": 0", "\"slot\": -1"), "line "},
        {"a fraction", replaced(json, "\"slot\": 0", "\"slot\": 0.5"), "whole number"},
        {"a huge number", replaced(json, "\"slot\": 0", "\"slot\": 99999999999999999999"), "line "},
        {"a slot beyond", replaced(json, "\"slot\": 0", "\"slot\": 4000000"), "slot: expected 0"},
        {"a slot twice", replaced(json, "\"slot\": 1,", "\"slot\": 0,"), "ascending"},
        {"a field twice", replaced(json, "\"slot\": 0", "\"slot\": 0, \"slot\": 0"), "slot"},
        {"a field too few", replaced(json, "\"slot\": 0, ", ""), "without"},
        {"an unknown field", replaced(json, "\"slot\": 0", "\"slat\": 0"), "slat"},
        {"an unknown state", replaced(json, "\"state\": \"mapped\"", "\"state\": \"m\""), "state"},
        {"a free entry", replaced(json, "\"state\": \"mapped\"", "\"state\": \"free\""), "free"},
        {"a block beyond",
         replaced(json, "\"slot\": 0, \"block\": 0", "\"slot\": 0, \"block\": 4096"), "main block"},
        {"null", replaced(json, "\"slot\": 0", "\"slot\": null"), "null"},
        {"deep", replaced(json, "\"slot\": 0", "\"slot\": [[[[[[[["), "list"},
        {"unknown superblock field", replaced(json, "\"tool\"", "\"toll\""), "\"tool\""},
        {"one more superblock field", replaced(json, "\"tool\": ", "\"more\": 1,\n    \"tool\": "),
         "\"more\""},
        {"a wrong UUID", replaced(json, "\"set_uuid\": \"", "\"set_uuid\": \"x"), "set_uuid"},
        {"a place beyond the spare", replaced(json, "\"data_start\": ", "\"data_start\": 9"),
         "superblock: "},
        {"an unknown feature", replaced(json, "\"compat\": \"0x0\"", "\"compat\": \"0x1\""),
         "features"},
        {"another block order", replaced(json, "{\"index\": 0", "{\"index\": 1"), "block 0"},
        {"a generation of the future",
         replaced(json, "{\"index\": 0, \"generation\": \"1.",
                  "{\"index\": 0, \"generation\": \"9."),
         "epoch"},
        {"text: cut short", text.substr(0, text.size() - 4), "\"end\""},
        {"text: goes on", text + "more\n", "nothing after"},
        {"text: a word too many", replaced(text, "\n0 0 mapped", "\n0 0 0 mapped"), "slot, block"},
        {"text: a word too few", replaced(text, "\n0 0 mapped", "\n0 mapped"), "slot, block"},
        {"text: no number", replaced(text, "\n0 0 mapped", "\n0 x mapped"), "\"x\""},
        {"text: a field twice",
         replaced(text, "superblock.epoch 1\n", "superblock.epoch 1\nsuperblock.epoch 1\n"),
         "once"},
        {"text: a line without end", replaced(text, "\n0 0 mapped", "\n" + std::string(9000, '7')),
         "4096 bytes"},
        {"a label too long",
         replaced(json, "\"label\": \"", "\"label\": \"" + std::string(70, 'a')), "longer than"},
        {"text: a label too long",
         replaced(text, "superblock.label ", "superblock.label " + std::string(70, 'a')),
         "longer than"},
        {"JSON: white space without end", "{" + std::string(3U << 20, ' '), "1048576"},
        {"JSON: text without end", "{\"" + std::string(3U << 20, 'a'), "1048576"},
    };

    for (const Row& row : rows) {
        CAPTURE(row.what, refusal(row.dump));
        CHECK(refusal(row.dump).find(row.says) != std::string::npos);
        CHECK(refusal(row.dump).find("dump: ") == 0);
    }
    CHECK(refusal(json).empty());
    CHECK(refusal(text).empty());
}

TEST_CASE("every cut and every changed byte of a dump is refused or is a set", "[dump][restore]") {
    SampleSet set({2048, 2048, 9, 4, 3, 1});
    for (const bool json : {true, false}) {
        const std::string dump = dump_of(set.spare, json);
        for (std::size_t at = 0; at < dump.size(); at++) {
            std::string changed = dump;
            changed[at] = static_cast<char>(changed[at] ^ (1 << at % 8));
            CHECK_NOTHROW(refusal(changed));
        }
        // The last line's end is the only byte that nobody misses.
        for (std::size_t size = 0; size + 1 < dump.size(); size++)
            CHECK_FALSE(refusal(dump.substr(0, size)).empty());
    }
}

TEST_CASE("escaped text comes back whatever it was") {
    std::mt19937 random(3);
    for (unsigned int round = 0; round < 2000; round++) {
        std::string text;
        for (std::size_t i = random() % 12; i > 0; i--)
            text += static_cast<char>(random() % 2 ? random() : "\\x0\xc2\xa9 "[random() % 6]);
        const std::string escaped = escape_text(text);
        CHECK(escaped.find('\n') == std::string::npos);
        CHECK(unescape_text(escaped) == text);
    }
    CHECK_FALSE(unescape_text("\\"));
    CHECK_FALSE(unescape_text("\\n"));
    CHECK_FALSE(unescape_text("\\x0g"));
}

namespace {

fixture::Pair pair_of(const SampleSet& set) {
    return {set.main.content(), set.spare.content(), 512};
}

SpareJob restore_of(const StagedSet& set) {
    return [set](BlockIo& spare, Observer& observer) {
        require_restorable(spare, set, look_at_target(spare, set));
        write_set(spare, set, observer);
    };
}

/// What a dump may be restored onto.
std::vector<std::pair<const char*, SampleSet>> targets(const SampleSet& set) {
    const SampleOptions options{1024, 2400, 9, 8, 300, 4};
    SampleSet blank = set;
    std::fill(blank.spare.content().begin(), blank.spare.content().end(), std::uint8_t{0});
    SampleSet damaged = set;
    for (const unsigned int i : {0U, 1U, 3U, 4U})
        scribble(damaged.spare, set.superblock.sb_sector.at(i), 8);
    scribble(damaged.spare, set.superblock.table_sector(0, 0), 4);
    scribble(damaged.spare, set.superblock.table_sector(1, 1), 8);
    SampleSet headless = set;
    wipe_superblocks(headless.spare);
    SampleSet dead = set;
    dead.superblock.live_copies = 2;
    write_superblock(dead.spare, dead.superblock);
    SampleSet longer = set;
    for (unsigned int copy = 0; copy < 2; copy++)
        write_table_copy(longer.spare, set.superblock, copy, set.superblock.table_length, 1, {});
    // The superblocks lie elsewhere.
    SampleOptions smaller = options;
    smaller.spare_size = 2100;
    smaller.seed = 78;
    const SampleSet small(smaller);
    SampleSet shifted = set;
    std::copy(small.spare.content().begin(), small.spare.content().end(),
              shifted.spare.content().begin());
    SampleOptions others = options;
    others.seed = 77;
    return {{"nothing", blank},
            {"an older state", SampleSet(options)},
            {"the set itself, damaged", damaged},
            {"the set without superblocks", headless},
            {"the set with a dead copy", dead},
            {"the set with blocks behind its end", longer},
            {"another set", SampleSet(others)},
            {"another set of another size", shifted}};
}

}  // namespace

TEST_CASE("restore: a power cut leaves the former set, none, or the new one, and can be undone",
          "[restore][undo][crash][long]") {
    SampleSet newer({1024, 2400, 9, 8, 300, 4});
    newer.entries[20] = Entry::make(REMAP_ENTRY_MAPPED, 900, REMAP_CAUSE_WRITE, 5, 999, 1);
    newer.write_all();
    const std::string dump = dump_of(newer.spare, false);
    const SpareJob restore = restore_of(set_from(dump));
    const fixture::Job again = [&restore](BlockIo&, BlockIo& spare) {
        Observer quiet;
        restore(spare, quiet);
    };

    for (const auto& [name, target] : targets(newer)) {
        const fixture::Pair before = pair_of(target);
        const std::string old = fixture::dump_text(before);
        const fixture::Holds whole = [&](const fixture::Pair& state) {
            const std::string now = fixture::dump_text(state);
            return now.empty() || now == old || now == dump;
        };
        const fixture::Holds restored = [&](const fixture::Pair& state) {
            return fixture::dump_text(state) == dump;
        };
        const fixture::LoggedRun made = fixture::run_with_undo(before, restore);
        const auto job = fixture::replay(before, made.log, again, whole, restored);
        const auto undo = fixture::replay_undo(before, made, whole);
        INFO(name << ": " << job.states << " and " << undo.states << " states, " << job.wrong
                  << " and " << undo.wrong << " wrong, " << job.unfinished << " not restored, "
                  << undo.unfinished << " not given back");
        CHECK(restored(made.after));
        CHECK(made.refused == 0);
        CHECK(job.good());
        CHECK(undo.good());
    }
}

TEST_CASE("restore wipes what is left of the set's earlier life", "[restore]") {
    SampleSet set({4096, 16384, 9, 8, 20, 4});
    const std::string dump = dump_of(set.spare, true);
    const Superblock& sb = set.superblock;
    // A block behind the length that would verify.
    const std::vector<Entry> entries(REMAP_ENTRIES_PER_BLOCK,
                                     Entry::make(REMAP_ENTRY_BAD, 1, REMAP_CAUSE_NONE, 0, 1, 1));
    for (unsigned int copy = 0; copy < 2; copy++)
        write_table_copy(set.spare, sb, copy, sb.table_length + 2, set.generation, entries);
    Observer quiet;
    write_set(set.spare, set_from(dump), quiet);
    for (unsigned int copy = 0; copy < 2; copy++) {
        const auto bytes = set.spare.BlockIo::read(sb.table_sector(sb.table_length + 2, copy), 8);
        CHECK(std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; }));
    }
}

TEST_CASE("restore onto what is newer is refused", "[restore]") {
    SampleSet set;
    const StagedSet old = set_from(dump_of(set.spare, true));
    set.write_all();
    const RestoreTarget found = look_at_target(set.spare, old);
    CHECK(found.same_spare);
    CHECK_THROWS_WITH(require_restorable(set.spare, old, found),
                      Catch::Matchers::Contains("newer than the dump"));
    // Also when only one table block is left of it.
    wipe_superblocks(set.spare);
    const std::uint64_t sectors = set.superblock.table_length * 8;
    scribble(set.spare, set.superblock.table_sector(0, 0), sectors);
    CHECK_THROWS_WITH(require_restorable(set.spare, old, look_at_target(set.spare, old)),
                      Catch::Matchers::Contains("newer than the dump"));
    scribble(set.spare, set.superblock.table_sector(0, 1), sectors);
    CHECK_NOTHROW(require_restorable(set.spare, old, look_at_target(set.spare, old)));
}

TEST_CASE("restore with lost slots: no former content of a slot is ever read", "[restore]") {
    SampleSet set;
    StagedSet lost = set_from(dump_of(set.spare, true));
    const std::uint64_t before = lost.highest_generation();
    lose_slots(lost);
    for (const Entry& e : lost.entries)
        CHECK(e.state() != REMAP_ENTRY_MAPPED);
    CHECK(lost.generations[0] > before);
    CHECK(lost.superblock.head.generation > lost.generations[0]);
}

TEST_CASE("remap-dump restore as a user calls it", "[restore][cli]") {
    const scratch::Folder folder;
    const SampleSet set;
    const std::string tool = REMAP_BIN_DIR "/remap-dump";
    const std::string spare = folder.file("spare");
    const std::string dump = folder.file("dump");
    const std::string blank = folder.file("blank");
    const auto image = [](const SampleSet& s) {
        return std::string(s.spare.content().begin(), s.spare.content().end());
    };
    scratch::spill(spare, image(set));
    const auto exported = scratch::run({tool, "export", spare});
    REQUIRE(exported.code == 0);
    scratch::spill(dump, exported.out);

    SECTION("a blank target needs to be told where the data is") {
        scratch::make_image(blank, set.spare.size() * 512);
        const auto refused = scratch::run({tool, "restore", "-y", dump, blank});
        CHECK(refused.code == 16);
        CHECK(refused.err.find("--slots-in-place") != std::string::npos);
        CHECK(scratch::slurp(blank) == std::string(set.spare.size() * 512, '\0'));
        CHECK(scratch::run({tool, "restore", "-y", "--slots-in-place", dump, blank}).code == 0);
        CHECK(scratch::run({tool, "export", blank}).out == exported.out);
        CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "-n", blank}).code == 0);
        const auto lost =
            scratch::run({tool, "restore", "-y", "--force", "--slots-lost", dump, blank});
        CHECK(lost.code == 0);
        CHECK(scratch::run({tool, "export", blank}).out.find("mapped") == std::string::npos);
        CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "-n", blank}).code == 0);
    }
    SECTION("the spare itself, its metadata damaged") {
        SampleSet damaged = set;
        wipe_superblocks(damaged.spare);
        scratch::spill(spare, image(damaged));
        CHECK(scratch::run({tool, "restore", "-n", dump, spare}).code == 0);
        CHECK(scratch::slurp(spare) == image(damaged));
        CHECK(scratch::run({tool, "restore", dump, spare}).code == 16);
        CHECK(scratch::slurp(spare) == image(damaged));
        CHECK(scratch::run({tool, "restore", "-y", dump, spare}).code == 0);
        CHECK(scratch::slurp(spare) == image(set));
    }
    SECTION("and back again") {
        SampleSet damaged = set;
        wipe_superblocks(damaged.spare);
        scribble(damaged.spare, set.superblock.table_sector(0, 1), 8);
        scratch::spill(spare, image(damaged));
        const std::string undo = folder.file("undo");
        CHECK(scratch::run({tool, "restore", "-y", "-z", undo, dump, spare}).code == 0);
        CHECK(scratch::slurp(spare) == image(set));
        CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "--undo", undo, spare}).code == 0);
        CHECK(scratch::slurp(spare) == image(damaged));
        // It is never overwritten.
        CHECK(scratch::run({tool, "restore", "-y", "-z", undo, dump, spare}).code == 8);
        CHECK(scratch::slurp(spare) == image(damaged));
    }
    SECTION("a set that is in order, another set, a main, a payload are not overwritten") {
        const SampleSet other({4096, 4096, 9, 8, 20, 77});
        SampleSet changed = set;
        scribble(changed.spare, set.superblock.table_sector(0, 0), 8);
        const std::string main = folder.file("main");
        scratch::spill(main, {set.main.content().begin(), set.main.content().end()});
        for (const SampleSet& s : {changed, other}) {
            scratch::spill(blank, image(s));
            const auto refused = scratch::run({tool, "restore", "-y", dump, blank});
            CHECK(refused.code == 16);
            CHECK(refused.err.find("--force") != std::string::npos);
            CHECK(scratch::slurp(blank) == image(s));
        }
        const auto on_main = scratch::run({tool, "restore", "-y", "--force", dump, main});
        CHECK(on_main.code == 2);
        CHECK(on_main.err.find("main of set") != std::string::npos);
        scratch::spill(blank, image(changed));
        CHECK(scratch::run({tool, "restore", "-y", "--force", dump, blank}).code == 0);
        CHECK(scratch::slurp(blank) == image(set));
    }
    SECTION("a main whose label is newer than the dump") {
        SampleSet later = set;
        later.new_epoch();
        const std::string main = folder.file("main");
        scratch::spill(main, {later.main.content().begin(), later.main.content().end()});
        scratch::make_image(blank, set.spare.size() * 512);
        const auto refused =
            scratch::run({tool, "restore", "-y", "--slots-in-place", "--main", main, dump, blank});
        CHECK(refused.code == 2);
        CHECK(refused.err.find("old copy") != std::string::npos);
    }
    SECTION("a hostile dump leaves the target alone") {
        scratch::spill(dump, exported.out.substr(0, exported.out.size() - 20));
        scratch::make_image(blank, set.spare.size() * 512);
        const auto refused =
            scratch::run({tool, "restore", "-y", "--force", "--slots-in-place", dump, blank});
        CHECK(refused.code == 2);
        CHECK(refused.err.find("line ") != std::string::npos);
        CHECK(scratch::slurp(blank) == std::string(set.spare.size() * 512, '\0'));
    }
}
