// SPDX-License-Identifier: GPL-2.0-or-later
//
// Bad sectors from and for other programs: their lists are read strictly and written as these
// programs read them, and an import is safe at every moment.
#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/bad_list.hpp"
#include "libremap/error.hpp"
#include "libremap/export.hpp"
#include "libremap/import.hpp"
#include "replay.hpp"
#include "sample_set.hpp"
#include "scratch.hpp"

using namespace remap;
using namespace remap::test;

namespace {

constexpr const char* bin = REMAP_BIN_DIR "/remap-dump";

BadList list_from(const std::string& text, const std::string& format,
                  std::uint64_t block_size = 0) {
    std::istringstream in(text);
    if (format == "ddrescue")
        return read_ddrescue_map(*in.rdbuf(), "list");
    if (format == "md")
        return read_md_bad_blocks(*in.rdbuf(), "list");
    return read_badblocks(*in.rdbuf(), "list", block_size);
}

std::string refusal(const std::string& text, const std::string& format) {
    try {
        list_from(text, format, 1024);
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

/// State of each block of the main by what the spare says: 0, or the entry's state.
std::vector<std::uint8_t> states(BlockIo& spare) {
    const Superblock sb = load_superblock(spare);
    std::vector<std::uint8_t> all(sb.main_blocks());
    for (const Mapping& mapping : live_mappings(load_intact_table(spare, sb)))
        all[mapping.block] = mapping.entry.state();
    return all;
}

std::vector<std::uint8_t> states_of(const fixture::Pair& pair) {
    MemoryIo spare("spare", pair.spare);
    return states(spare);
}

bool have(const std::string& program) {
    try {
        scratch::run({program, "-V"});
        return true;
    } catch (const std::runtime_error&) {
        WARN(program << " is not installed; compared with nothing");
        return false;
    }
}

std::string text_of(const std::vector<std::uint8_t>& bytes) {
    return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("lists of bad sectors", "[badlist]") {
    using Runs = std::vector<SectorRun>;

    CHECK(
        list_from("# made by hand\n0x400 + 1\n0 0x400 +\n0x400 0x200 -\n0x600 01000 /\n2048 1 -\n",
                  "ddrescue")
            .runs == Runs{{2, 1}, {4, 1}});
    CHECK(list_from("0 ?\n0 100 *\n100 512 -\n", "ddrescue").runs == Runs{{0, 2}});
    CHECK(list_from("0 ?\n0 100 *\n100 512 ?\n", "ddrescue").undecided_bytes == 612);
    CHECK(list_from("3\n4\n\n 7 \n# no more\n", "badblocks", 1024).runs == Runs{{6, 4}, {14, 2}});
    CHECK(list_from("8\n", "badblocks", 4096).runs == Runs{{64, 8}});
    CHECK(list_from("16640 8\n16650 1\n", "md").runs == Runs{{16640, 8}, {16650, 1}});
    CHECK(list_from("", "badblocks", 512).runs.empty());
}

TEST_CASE("what is no list of bad sectors is refused with its line", "[badlist]") {
    struct Row {
        const char* format;
        const char* text;
        const char* says;
    };
    const std::vector<Row> rows = {
        {"ddrescue", "", "line 1"},
        {"ddrescue", "0 512 -\n", "line 1"},
        {"ddrescue", "0 +\n0 512 x\n", "line 2"},
        {"ddrescue", "0 +\n0 512\n", "line 2"},
        {"ddrescue", "0 +\n0 512 -\n1024 512 -\n", "line 3"},
        {"ddrescue", "0 +\n512 512 -\n0 512 -\n", "line 3"},
        {"ddrescue", "0 +\n0 0 -\n", "line 2"},
        {"ddrescue", "0 +\n0 0x8000000000000000 -\n", "line 2"},
        {"ddrescue", "0 +\n0x7fffffffffffffff 1 -\n", "size from 1 to 0"},
        {"ddrescue", "0 +\n-1 512 -\n", "line 2"},
        {"ddrescue", "0 +\n0 09 -\n", "line 2"},
        {"badblocks", "3 4\n", "line 1"},
        {"badblocks", "1\nx\n", "line 2, byte 3"},
        {"badblocks", "1.5\n", "line 1"},
        {"badblocks", "-1\n", "line 1"},
        {"badblocks", "99999999999999999999\n", "line 1"},
        {"badblocks", "9223372036854775807\n", "below"},
        {"md", "1\n", "line 1"},
        {"md", "1 0\n", "line 1"},
        {"md", "18014398509481983 2\n", "line 1"},
        {"md", "1 2 3\n", "line 1"},
    };

    for (const Row& row : rows) {
        CAPTURE(row.format, row.text, refusal(row.text, row.format));
        CHECK(refusal(row.text, row.format).find(row.says) != std::string::npos);
    }
}

TEST_CASE("import: listed blocks become lost, others stay", "[import]") {
    SampleSet set;
    const auto before = states(set.spare);
    const BadList list{{{100, 3}, {208, 1}, {300, 1}, {8, 1}}, 0};
    ImportPlan plan = plan_import(set.spare, list, false);
    std::vector<std::uint64_t> wanted;
    for (const std::uint64_t block : {8U, 100U, 101U, 102U, 208U, 300U}) {
        if (before[block] == 0)
            wanted.push_back(block);
    }
    CHECK(plan.blocks == wanted);
    CHECK(plan.known == 6 - wanted.size());
    CHECK(plan.known > 0);
    Observer quiet;
    run_import(set.spare, plan, 1700000001, quiet);

    const auto after = states(set.spare);
    for (std::uint64_t block = 0; block < after.size(); block++) {
        const bool imported = std::find(wanted.begin(), wanted.end(), block) != wanted.end();
        CHECK(after[block] == (imported ? std::uint8_t{REMAP_ENTRY_LOST} : before[block]));
    }
    const CheckResult check = check_set(set.spare, &set.main);
    CHECK(ids(check).empty());
    CHECK(plan_import(set.spare, list, false).blocks.empty());
}

TEST_CASE("import into a table that must grow, up to the last slot", "[import]") {
    SampleSet set({32768, 4096, 9, 8, 20, 1});
    const ImportPlan empty = plan_import(set.spare, {}, false);
    const std::uint64_t free = empty.free_slots;
    Observer quiet;
    REQUIRE(free > 3 * REMAP_ENTRIES_PER_BLOCK);
    REQUIRE(free < 30000);

    std::uint64_t end = 0;
    ImportPlan plan;
    // As many blocks as there are slots, whatever has an entry among them.
    for (end = free; plan.blocks.size() < free; end++)
        plan = plan_import(set.spare, {{{9, end - 9}}, 0}, false);
    CHECK(plan.free_slots == 0);
    CHECK_THROWS_WITH(plan_import(set.spare, {{{9, end}}, 0}, false),
                      Catch::Matchers::Contains("free slots"));
    run_import(set.spare, plan, 1700000001, quiet);
    CHECK(ids(check_set(set.spare, &set.main)).empty());
    CHECK(load_superblock(set.spare).table_length > set.superblock.table_length);
    CHECK(plan_import(set.spare, {}, false).free_slots == 0);
}

TEST_CASE("import: hidden sectors and those beyond the end are refused or left out", "[import]") {
    SampleSet set;
    // A hidden block whose entry is gone must not become an ordinary lost one.
    set.entries[3] = Entry{};
    set.write_all();

    CHECK_THROWS_WITH(plan_import(set.spare, {{{3, 1}}, 0}, false),
                      Catch::Matchers::Contains("expected a set without damage") ||
                          Catch::Matchers::Contains("hidden"));
    SampleSet whole;
    CHECK_THROWS_WITH(plan_import(whole.spare, {{{4090, 7}}, 0}, false),
                      Catch::Matchers::Contains("found sector 4096"));
    const ImportPlan plan = plan_import(whole.spare, {{{4095, 100}, {500, 1}}, 0}, true);
    CHECK(plan.blocks == std::vector<std::uint64_t>{500});
    CHECK(plan.skipped == 99);
    CHECK(plan.known == 1);
}

TEST_CASE("import into blocks of 4096 bytes takes whole blocks", "[import]") {
    SampleSet set({65536, 16384, 12, 4, 20, 1});
    const ImportPlan plan = plan_import(set.spare, {{{8007, 2}}, 0}, false);
    CHECK(plan.blocks == std::vector<std::uint64_t>{1000, 1001});
}

TEST_CASE("import refuses what is damaged, half done or has no copy to spare", "[import]") {
    SampleSet damaged;
    scribble(damaged.spare, damaged.superblock.table_sector(0, 1), 8);
    CHECK_THROWS_WITH(plan_import(damaged.spare, {}, false),
                      Catch::Matchers::Contains("remap-fsck"));
    SampleSet single;
    single.superblock.live_copies = 1;
    single.write_all();
    CHECK_THROWS_WITH(plan_import(single.spare, {}, false),
                      Catch::Matchers::Contains("remap-fsck"));
    SampleSet adopting;
    adopting.superblock.head.state = REMAP_STATE_ADOPTING;
    adopting.write_all();
    CHECK_THROWS_WITH(plan_import(adopting.spare, {}, false),
                      Catch::Matchers::Contains("adopting"));
    SampleSet frozen;
    frozen.superblock.head.flags |= REMAP_FLAG_READ_ONLY;
    frozen.write_all();
    CHECK_THROWS_AS(plan_import(frozen.spare, {}, false), Error);
}

TEST_CASE("import: a power cut leaves each block as before or lost, and can be undone",
          "[import][undo][crash][long]") {
    // One table block is one commit behind in its second copy, as a cut leaves it.
    SampleSet set({4096, 2048, 9, 8, 20, 6});
    const Superblock& sb = set.superblock;
    set.entries[100] = Entry::make(REMAP_ENTRY_MAPPED, 3000, REMAP_CAUSE_WRITE, 5, 999, 1);
    write_table_copy(set.spare, sb, 0, 0, set.generation + 1,
                     std::span(set.entries).first(REMAP_ENTRIES_PER_BLOCK));
    const fixture::Pair before{set.main.content(), set.spare.content(), 512};
    const BadList list{{{1000, 600}}, 0};
    const SpareJob import = [&list](BlockIo& spare, Observer& observer) {
        run_import(spare, plan_import(spare, list, false), 1700000001, observer);
    };
    const fixture::Job again = [&import](BlockIo&, BlockIo& spare) {
        Observer quiet;
        repair(spare);
        import(spare, quiet);
    };
    const fixture::LoggedRun made = fixture::run_with_undo(before, import);
    const auto old = fixture::meaning(before);
    const auto imported = fixture::meaning(made.after);
    REQUIRE(old);
    REQUIRE(imported);
    CHECK(old->at(3000) == imported->at(3000));
    for (std::uint64_t block = 1000; block < 1600; block++)
        CHECK(imported->count(block) == 1);
    const fixture::Holds whole = [&](const fixture::Pair& state) {
        const auto now = fixture::meaning(state);
        return now && fixture::between(*now, *old, *imported);
    };
    const fixture::Holds finished = [&](const fixture::Pair& state) {
        const auto now = fixture::meaning(state);
        return now && now->size() == imported->size() && states_of(state) == states_of(made.after);
    };

    const auto job = fixture::replay(before, made.log, again, whole, finished);
    const auto undo = fixture::replay_undo(before, made, whole);
    INFO(job.states << " and " << undo.states << " states, " << job.wrong << " and " << undo.wrong
                    << " wrong, " << job.unfinished << " not imported, " << undo.unfinished
                    << " not given back");
    CHECK(made.refused == 0);
    CHECK(job.good());
    CHECK(undo.good());
}

TEST_CASE("what is exported for other programs is what the set says", "[export]") {
    SampleSet set({16384, 8192, 9, 8, 300, 2});
    const auto expected = states(set.spare);
    const MainView view = view_main(set.spare);
    std::uint64_t next = 0;

    for (const MainView::Run& run : view.runs) {
        REQUIRE(run.block == next);
        next += run.count;
        for (std::uint64_t block = run.block; block < next; block++) {
            using Place = MainView::Run::Place;
            const Place place = expected[block] == REMAP_ENTRY_MAPPED ? Place::slot
                                : expected[block] == REMAP_ENTRY_LOST ? Place::lost
                                                                      : Place::main;
            REQUIRE(run.place == place);
        }
    }
    CHECK(next == expected.size());

    SECTION("a ddrescue mapfile, read back and by ddrescue itself") {
        std::ostringstream out;
        write_ddrescue_map(view, "spare.img", out);
        std::vector<bool> bad(expected.size());
        for (const SectorRun& run : list_from(out.str(), "ddrescue").runs)
            std::fill_n(bad.begin() + static_cast<std::ptrdiff_t>(run.start), run.count, true);
        for (std::size_t block = 0; block < bad.size(); block++)
            REQUIRE(bad[block] == (expected[block] != 0));
        if (have("ddrescuelog")) {
            const scratch::Folder folder;
            scratch::spill(folder.file("map"), out.str());
            const auto listed = scratch::run({"ddrescuelog", "-b512", "-l-", folder.file("map")});
            CHECK(listed.code == 0);
            std::istringstream in(listed.out);
            std::size_t count = 0;
            for (std::size_t block = 0; in >> block; count++)
                REQUIRE(expected.at(block) != 0);
            CHECK(count == static_cast<std::size_t>(std::count_if(expected.begin(), expected.end(),
                                                                  [](auto s) { return s != 0; })));
        }
    }
    SECTION("a badblocks list in several units, without hidden blocks") {
        for (const std::uint64_t unit : {512U, 1024U, 4096U}) {
            std::ostringstream out;
            write_badblocks(view, unit, out);
            std::vector<bool> bad(expected.size());
            std::vector<bool> wanted(expected.size());
            for (const SectorRun& run : list_from(out.str(), "badblocks", unit).runs)
                std::fill_n(bad.begin() + static_cast<std::ptrdiff_t>(run.start), run.count, true);
            for (std::size_t block = 0; block < expected.size(); block++) {
                if (expected[block] == 0 || set.superblock.block_hidden(block))
                    continue;
                const std::size_t first = block / (unit / 512) * (unit / 512);
                std::fill_n(wanted.begin() + static_cast<std::ptrdiff_t>(first), unit / 512, true);
            }
            CHECK(bad == wanted);
        }
    }
    SECTION("mke2fs takes the list") {
        if (have("mke2fs")) {
            const scratch::Folder folder;
            std::ostringstream out;
            // Its own first blocks must be good.
            SampleSet late({65536, 8192, 9, 8, 2, 2});
            late.entries[16] = Entry::make(REMAP_ENTRY_MAPPED, 40000, REMAP_CAUSE_WRITE, 5, 99, 1);
            late.entries[17] = Entry::make(REMAP_ENTRY_LOST, 40003, REMAP_CAUSE_WRITE, 5, 100, 1);
            late.write_all();
            write_badblocks(view_main(late.spare), 1024, out);
            CHECK(out.str() == "20000\n20001\n");
            scratch::spill(folder.file("list"), out.str());
            scratch::make_image(folder.file("fs"), 32U << 20);
            CHECK(scratch::run({"mke2fs", "-q", "-F", "-b", "1024", "-l", folder.file("list"),
                                folder.file("fs")})
                      .code == 0);
            CHECK(scratch::run({"dumpe2fs", "-b", folder.file("fs")}).out == out.str());
        }
    }
    SECTION("a dm table: every block from where the set has it") {
        std::ostringstream out;
        write_dm_table(view, "/dev/a b", "/dev/spare", out);
        std::istringstream in(out.str());
        std::uint64_t at = 0;
        for (std::string line; std::getline(in, line);) {
            std::istringstream words(line);
            std::uint64_t start = 0;
            std::uint64_t length = 0;
            std::string kind;
            words >> start >> length >> kind;
            REQUIRE(start == at);
            at += length;
            if (kind == "error") {
                REQUIRE(expected[start] == REMAP_ENTRY_LOST);
                continue;
            }
            REQUIRE(kind == "linear");
            const bool spare = line.find("/dev/spare") != std::string::npos;
            REQUIRE(spare == (expected[start] == REMAP_ENTRY_MAPPED));
            if (!spare)
                REQUIRE(line.find(" /dev/a\\ b ") != std::string::npos);
            const std::uint64_t to = std::stoull(line.substr(line.rfind(' ')));
            for (std::uint64_t i = 0; spare && i < length; i++) {
                const std::uint64_t slot = (to + i - set.superblock.segment().data_start);
                REQUIRE(set.entries[slot].block() == start + i);
            }
            if (!spare)
                REQUIRE(to == start);
        }
        CHECK(at == set.superblock.main_size);
    }
}

TEST_CASE("exports of what cannot be told", "[export]") {
    SampleSet set({16384, 8192, 9, 8, 300, 2});
    // A hidden block without an entry must never come from the main.
    set.entries[2] = Entry{};
    set.write_all();
    const MainView view = view_main(set.spare);
    CHECK(view.runs[1].block == 2);
    CHECK(view.runs[1].place == MainView::Run::Place::lost);

    const scratch::Folder folder;
    scratch::spill(folder.file("main"), text_of(set.main.content()));
    scratch::spill(folder.file("spare"),
                   text_of(SampleSet({16384, 8192, 9, 8, 300, 2}).spare.content()));
    const std::vector<std::string> table = {
        bin, "export", "--format", "dmtable", "--main", folder.file("main"), folder.file("spare")};
    CHECK(scratch::run(table).code == 0);
    // One table block is gone: what it mapped would be read stale.
    for (unsigned int copy = 0; copy < 2; copy++)
        scribble(set.spare, set.superblock.table_sector(1, copy), 8);
    scratch::spill(folder.file("spare"), text_of(set.spare.content()));
    const auto refused = scratch::run(table);
    CHECK(refused.code == 2);
    CHECK(refused.out.empty());
    CHECK(refused.err.find("stale") != std::string::npos);
    const auto map = scratch::run({bin, "export", "--format", "ddrescue", folder.file("spare")});
    CHECK(map.code == 1);
    CHECK(map.err.find("missing") != std::string::npos);
    // And of another set's main.
    scratch::spill(folder.file("main"),
                   text_of(SampleSet({16384, 8192, 9, 8, 300, 9}).main.content()));
    scratch::spill(folder.file("spare"),
                   text_of(SampleSet({16384, 8192, 9, 8, 300, 2}).spare.content()));
    const auto foreign = scratch::run(table);
    CHECK(foreign.code == 2);
    CHECK(foreign.out.empty());
}

TEST_CASE("remap-dump import and export as a user calls them", "[import][export][cli]") {
    const scratch::Folder folder;
    const SampleSet set;
    const std::string spare = folder.file("spare");
    const std::string list = folder.file("list");
    scratch::spill(spare, text_of(set.spare.content()));
    scratch::spill(list, "60\n61\n");
    const auto import = [&](std::vector<std::string> words) {
        words.insert(words.begin(), {bin, "import"});
        return scratch::run(words);
    };

    CHECK(import({"--format", "badblocks", list, spare}).code == 16);
    CHECK(import({"--format", "md", "--block-size", "512", list, spare}).code == 16);
    CHECK(import({"--format", "badblocks", "--block-size", "1000", list, spare}).code == 16);
    CHECK(import({list, spare}).code == 16);
    const auto asked = import({"--format", "badblocks", "--block-size", "1024", list, spare});
    CHECK(asked.code == 16);
    CHECK(asked.err.find("--yes") != std::string::npos);
    const auto dry = import({"-n", "--format", "badblocks", "--block-size", "1024", list, spare});
    CHECK(dry.code == 0);
    CHECK(dry.err.find("4 blocks of the main become lost") != std::string::npos);
    CHECK(scratch::slurp(spare) == text_of(set.spare.content()));
    const std::string undo = folder.file("undo");
    CHECK(import({"-y", "-z", undo, "--format", "badblocks", "--block-size", "1024", list, spare})
              .code == 0);
    CHECK(scratch::slurp(spare) != text_of(set.spare.content()));
    CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "--undo", undo, spare}).code == 0);
    CHECK(scratch::slurp(spare) == text_of(set.spare.content()));
    // It is never overwritten.
    CHECK(import({"-y", "-z", undo, "--format", "badblocks", "--block-size", "1024", list, spare})
              .code == 8);
    CHECK(scratch::slurp(spare) == text_of(set.spare.content()));
    CHECK(import({"-y", "--format", "badblocks", "--block-size", "1024", list, spare}).code == 0);
    CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "-n", spare}).code == 0);
    const auto exported =
        scratch::run({bin, "export", "--format", "badblocks", "--block-size", "1024", spare});
    CHECK(exported.code == 0);
    CHECK(exported.out.find("\n60\n61\n") != std::string::npos);
    const auto history = scratch::run({bin, "show", "--timeline", spare});
    CHECK(history.code == 0);
    CHECK(history.out.find("cause import, state lost, block 120, count 4") != std::string::npos);

    scratch::spill(list, "60\nno number\n");
    const std::string before = scratch::slurp(spare);
    const auto bad = import({"-y", "--format", "badblocks", "--block-size", "1024", list, spare});
    CHECK(bad.code == 2);
    CHECK(bad.err.find("line 2") != std::string::npos);
    CHECK(scratch::slurp(spare) == before);
    CHECK(scratch::run({bin, "export", "--format", "badblocks", spare}).code == 16);
    CHECK(scratch::run({bin, "export", "--format", "dmtable", spare}).code == 16);
    CHECK(scratch::run({bin, "export", "--format", "xml", spare}).code == 16);
}

TEST_CASE("output: what does not get there is noticed, a reader who goes is not", "[export][cli]") {
    const scratch::Folder folder;
    const SampleSet set({65536, 65536, 9, 8, 3000, 2});
    const std::string spare = folder.file("spare");
    scratch::spill(spare, text_of(set.spare.content()));

    for (const std::string& verb :
         {std::string("show"), std::string("show --timeline --json"), std::string("export"),
          std::string("export --format text"), std::string("export --format ddrescue"),
          std::string("export --format badblocks --block-size 512"), std::string("scan"),
          std::string("scan --json"), std::string("hexdump --sector 8"),
          std::string("hexdump --json --sector 8")}) {
        CAPTURE(verb);
        const std::string call = std::string(bin) + " " + verb + " " + spare;
        const auto full = scratch::run({"sh", "-c", call + " >/dev/full"});
        CHECK(full.code == 8);
        CHECK(full.err.find("No space left") != std::string::npos);
        const auto closed = scratch::run({"sh", "-c", call + " | head -c 1 >/dev/null"});
        CHECK(closed.code == 0);
        CHECK(closed.err.empty());
        // Also where the signal was switched off by the caller.
        const auto ignored =
            scratch::run({"sh", "-c", "trap '' PIPE; " + call + " | head -c 1 >/dev/null"});
        CHECK(ignored.err.empty());
    }
}
