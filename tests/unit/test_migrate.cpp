// SPDX-License-Identifier: GPL-2.0-or-later
//
// Spares of the older project, as it really wrote them: recognised, shown for what they are, and
// brought over without anything that they do not say.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/dump.hpp"
#include "libremap/error.hpp"
#include "libremap/io_doubles.hpp"
#include "libremap/metadata.hpp"
#include "libremap/migrate.hpp"
#include "libremap/older_format.hpp"
#include "replay.hpp"
#include "sample_set.hpp"
#include "scratch.hpp"

using namespace remap;

namespace {

using Image = std::vector<std::uint8_t>;
using Outcome = OlderVerdict::Outcome;
constexpr const char* bin = REMAP_BIN_DIR "/remap-dump";

std::string path_of(const std::string& sample) {
    for (const auto& entry :
         std::filesystem::directory_iterator(REMAP_SOURCE_DIR "/tests/data/older-formats")) {
        const std::string name = entry.path().filename();
        const bool main = name.find(".MAIN.") != std::string::npos;
        if (name.starts_with(sample.substr(0, 3)) && main == (sample.size() > 3))
            return entry.path();
    }
    throw std::runtime_error("no sample " + sample);
}

void unpack_to(const std::string& sample, const std::string& path) {
    REQUIRE(scratch::run({"zstd", "-q", "-d", "-f", path_of(sample), "-o", path}).code == 0);
}

/// The pattern of the samples.
Image pattern(std::uint64_t sector, std::uint64_t seed) {
    Image bytes(sector_size);
    for (std::uint64_t k = 0; k < 64; k++) {
        const std::uint64_t word =
            k == 0   ? 0x5041545430303030ULL
            : k == 1 ? sector
            : k == 2 ? seed
                     : (sector * 0x9e3779b97f4a7c15ULL) ^ (seed * 0xc2b2ae3d27d4eb4fULL + k);
        for (std::uint64_t i = 0; i < 8; i++)
            bytes[k * 8 + i] = static_cast<std::uint8_t>(word >> 8 * i);
    }
    return bytes;
}

/// "s01", or "s01.MAIN". Of the spares the first 16 MiB, behind which there is nothing. Mains get
/// data where the truth is on the main: behind entries that were never used.
MemoryIo image(const std::string& sample) {
    const scratch::Folder folder;
    unpack_to(sample, folder.file("image"));
    std::ifstream in(folder.file("image"), std::ios::binary);
    const bool main = sample.size() > 3;
    Image bytes(main ? 64U << 20 : 16U << 20);
    in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    REQUIRE(in.gcount() == static_cast<std::streamsize>(bytes.size()));
    for (const std::uint64_t sector : {77777U, 88888U}) {
        const Image truth = pattern(sector, 1000);
        if (main)
            std::copy(truth.begin(), truth.end(),
                      bytes.begin() + static_cast<std::ptrdiff_t>(sector * sector_size));
    }
    return {sample, std::move(bytes)};
}

AdoptPlan bare_plan(BlockIo& main, BlockIo& spare, std::uint32_t block_size = 512) {
    AdoptRequest request;
    request.block_size = block_size;
    request.bare = true;
    request.now = 1700000000;
    return plan_adoption(main, spare, request);
}

/// What a set says of one block of the main: its data, nothing for lost, or the main's.
struct View {
    std::uint8_t state = 0;
    Image bytes;

    friend bool operator==(const View&, const View&) = default;
};

std::map<std::uint64_t, View> view_of(BlockIo& spare) {
    const Superblock sb = load_superblock(spare);
    std::map<std::uint64_t, View> view;
    for (const Mapping& m : live_mappings(load_intact_table(spare, sb)))
        view[m.block] = {m.entry.state(),
                         spare.BlockIo::read(sb.slot_sector(m.slot), sb.block_sectors())};
    return view;
}

std::map<std::uint64_t, View> migrated(const std::string& sample, MemoryIo& main,
                                       const MigrateRules& rules = {}) {
    MemoryIo old_spare = image(sample);
    MemoryIo spare("new", 8192);
    Observer quiet;
    const auto older = read_older(old_spare);
    REQUIRE(older);
    const MigratePlan plan = plan_migration(old_spare, main, *older, rules);
    const AdoptPlan adopt = bare_plan(main, spare, rules.block_size);
    RecordingIo read_old(old_spare);
    RecordingIo read_main(main);
    const Superblock sb = write_migrated(read_old, read_main, spare, adopt, plan, quiet);
    CHECK(sb.is_bare());
    CHECK(read_old.events().empty());
    CHECK(read_main.events().empty());
    return view_of(spare);
}

std::map<Outcome, int> outcomes(const std::string& sample, MemoryIo& main,
                                const MigrateRules& rules = {}) {
    MemoryIo old_spare = image(sample);
    std::map<Outcome, int> count;
    for (const auto& verdict :
         plan_migration(old_spare, main, *read_older(old_spare), rules).verdicts)
        count[verdict.outcome]++;
    return count;
}

/// An empty main of the size that the sample records.
MemoryIo empty_main(const std::string& sample) {
    MemoryIo old_spare = image(sample);
    const std::uint64_t recorded = read_older(old_spare)->best()->main_size;
    return {"main", recorded ? recorded : 131072};
}

}  // namespace

TEST_CASE("the older project's spares are recognised and read", "[older]") {
    struct Row {
        const char* sample;
        OlderKind kind;
        unsigned int valid;
        std::uint64_t sequence;
        std::size_t entries;
    };
    const std::vector<Row> rows = {
        {"s01", OlderKind::dmr4, 5, 14, 12}, {"s02", OlderKind::dmr4, 5, 8, 3},
        {"s03", OlderKind::dmr4, 5, 43, 21}, {"s04", OlderKind::dmr4, 5, 2114, 2048},
        {"s05", OlderKind::dmr4, 4, 17, 9},  {"s07", OlderKind::dmr4, 5, 0, 0},
        {"s09", OlderKind::dmr4, 3, 14, 12}, {"s11", OlderKind::dmremap3, 1, 0, 3},
        {"s14", OlderKind::dmr4, 5, 5, 3},
    };
    for (const Row& row : rows) {
        CAPTURE(row.sample);
        MemoryIo spare = image(row.sample);
        CHECK(recognise_older(spare) == row.kind);
        const auto older = read_older(spare);
        REQUIRE(older);
        REQUIRE(older->best());
        CHECK(older->kind == row.kind);
        CHECK_FALSE(older->disagree);
        CHECK(older->best()->entries.size() == row.entries);
        if (row.sequence)
            CHECK(older->best()->sequence == row.sequence);
        CHECK(std::count_if(older->copies.begin(), older->copies.end(), [](const OlderCopy& c) {
                  return c.kind != OlderKind::script && c.verdict == Verdict::current;
              }) == row.valid);
        std::ostringstream out;
        JsonEmitter emitter(out);
        const bool whole = row.valid == 5 || row.kind == OlderKind::dmremap3;
        CHECK(dump_device(spare, emitter) == (whole ? Exit::ok : Exit::damage));
        const auto json = nlohmann::json::parse(out.str());
        CHECK(json["entries"].size() == row.entries);
        CHECK(json["cannot_tell"].size() > 0);
    }
    // Damaged beyond use it is still not to be overwritten by mistake.
    MemoryIo damaged = image("s11");
    for (std::uint64_t sector = 0; sector < 64; sector++)
        REQUIRE(damaged.try_write(sector, std::vector<std::uint8_t>(512)) == 0);
    REQUIRE_FALSE(recognise_older(damaged));
    std::vector<std::uint8_t> magic_alone(512);
    std::copy_n("4RMD", 4, magic_alone.begin());
    REQUIRE(damaged.try_write(0, magic_alone) == 0);
    CHECK(recognise_older(damaged) == OlderKind::dmr4);
    CHECK(read_older(damaged));
    MemoryIo nothing("zeroes", 4096);
    CHECK_FALSE(recognise_older(nothing));
    CHECK_FALSE(read_older(nothing));
    MemoryIo tiny("tiny", 1);
    CHECK_FALSE(recognise_older(tiny));
    CHECK_FALSE(read_older(tiny));
}

TEST_CASE("the older metadata: every flipped bit of a header is noticed", "[older]") {
    MemoryIo spare = image("s01");
    const Image good = spare.BlockIo::read(0, 165);
    REQUIRE(decode_dmr4(good, 0).verdict == Verdict::current);
    for (std::size_t bit = 0; bit < 312 * 8; bit++) {
        Image bad = good;
        bad[bit / 8] = static_cast<std::uint8_t>(bad[bit / 8] ^ 1U << bit % 8);
        CHECK(decode_dmr4(bad, 0).verdict != Verdict::current);
    }
}

TEST_CASE("migrate DMR4: data comes over, what was never used does not", "[migrate]") {
    MemoryIo main = image("s01.MAIN");
    const auto view = migrated("s01", main);
    const std::vector<std::uint64_t> used = {100,   101,   102,    5000, 5007,
                                             60000, 99999, 131071, 7,    1048};
    for (const std::uint64_t sector : used) {
        CAPTURE(sector);
        REQUIRE(view.count(sector) == 1);
        CHECK(view.at(sector).state == REMAP_ENTRY_MAPPED);
        CHECK(view.at(sector).bytes == pattern(sector, sector + 7));
    }
    CHECK(view.size() == 12);
    CHECK(view.at(77777).state == REMAP_ENTRY_LOST);
    CHECK(view.at(88888).state == REMAP_ENTRY_LOST);

    SECTION("unless the user knows better") {
        MigrateRules rules;
        rules.doubtful = Doubt::main;
        CHECK(migrated("s01", main, rules).size() == 10);
        rules.doubtful = Doubt::spare;
        const auto zeroes = migrated("s01", main, rules);
        CHECK(zeroes.at(77777).state == REMAP_ENTRY_MAPPED);
        CHECK(zeroes.at(77777).bytes == Image(512));
    }
    SECTION("with the setup script's headers on it, the same") {
        const auto same = migrated("s09", main);
        CHECK(same.size() == view.size());
        CHECK(same.at(100).bytes == view.at(100).bytes);
    }
    SECTION("in blocks of 4096 bytes: the rest of a block comes from the main") {
        MigrateRules rules;
        rules.block_size = 4096;
        const auto blocks = migrated("s01", main, rules);
        Image expected;
        for (std::uint64_t s = 96; s < 104; s++) {
            const Image part = s >= 100 && s <= 102 ? pattern(s, s + 7) : pattern(s, 1000);
            expected.insert(expected.end(), part.begin(), part.end());
        }
        CHECK(blocks.at(12).bytes == expected);
        CHECK(blocks.at(77777 / 8).state == REMAP_ENTRY_LOST);
    }
}

TEST_CASE("migrate: an entry of unknown length is not guessed", "[migrate]") {
    MemoryIo main = image("s14.MAIN");
    CHECK_THROWS_WITH(migrated("s14", main), Catch::Matchers::Contains("--entry-sectors"));

    MigrateRules rules;
    rules.entry_sectors = 8;
    const auto view = migrated("s14", main, rules);
    for (std::uint64_t s = 8000; s < 8008; s++)
        CHECK(view.at(s).bytes == pattern(s, 42));
    // Only the first of its eight sectors was written; of the others the spare has zeroes and, as
    // far as 9007, the main has data.
    CHECK(view.at(9001).bytes == pattern(9001, 43));
    for (std::uint64_t s = 9002; s < 9008; s++)
        CHECK(view.at(s).state == REMAP_ENTRY_LOST);
    CHECK(view.at(9008).state == REMAP_ENTRY_MAPPED);
    rules.entry_sectors = 1;
    const auto single = migrated("s14", main, rules);
    CHECK(single.at(8000).bytes == pattern(8000, 42));
    CHECK(single.at(9001).bytes == pattern(9001, 43));
    CHECK(single.count(8001) == 0);
}

TEST_CASE("migrate never takes data from entries that contradict each other", "[migrate]") {
    SECTION("slots in the older metadata") {
        MemoryIo main = empty_main("s02");
        for (const Doubt doubt : {Doubt::lost, Doubt::spare}) {
            MigrateRules rules;
            rules.doubtful = doubt;
            const auto view = migrated("s02", main, rules);
            CHECK(view.size() == 3);
            for (const auto& [block, seen] : view)
                CHECK(seen.state == REMAP_ENTRY_LOST);
        }
    }
    SECTION("originals that share a spare sector, and duplicates") {
        MemoryIo right = empty_main("s03");
        const auto count = outcomes("s03", right);
        CHECK(count.count(Outcome::copied) == 0);
        const auto view = migrated("s03", right);
        for (const std::uint64_t block : {4472U, 8568U, 6336U, 6328U, 40U, 272U, 18816U})
            CHECK(view.at(block).state == REMAP_ENTRY_LOST);
        MigrateRules rules;
        rules.doubtful = Doubt::main;
        CHECK(migrated("s03", right, rules).empty());
    }
    SECTION("duplicates: the last one counts, and its slot is in the metadata") {
        MemoryIo main = empty_main("s05");
        const auto count = outcomes("s05", main);
        CHECK(count.at(Outcome::superseded) == 5);
        CHECK(count.at(Outcome::conflict) == 4);
    }
    SECTION("a full table") {
        MemoryIo old_spare = image("s04");
        MemoryIo main = empty_main("s04");
        const auto older = read_older(old_spare);
        const auto limits = older_limits(*older);
        CHECK(std::any_of(limits.begin(), limits.end(), [](const std::string& text) {
            return text.find("full") != std::string::npos;
        }));
        CHECK(outcomes("s04", main).at(Outcome::copied) == 2048);
    }
    SECTION("nothing to bring over") {
        MemoryIo main = empty_main("s07");
        CHECK(migrated("s07", main).empty());
    }
}

TEST_CASE("migrate: copies of the table that disagree", "[migrate]") {
    // Two loads of the older module: copies of s07, without entries, remain beside those of s01.
    MemoryIo spare = image("s01");
    MemoryIo empty = image("s07");
    MemoryIo main = image("s01.MAIN");
    spare.write(768, empty.BlockIo::read(768, 165));
    const auto older = read_older(spare);
    REQUIRE(older);
    CHECK(older->disagree);
    CHECK_THROWS_WITH(plan_migration(spare, main, *older, {}),
                      Catch::Matchers::Contains("different ones"));
}

TEST_CASE("migrate DMREMAP3: what is left of it", "[migrate]") {
    MemoryIo main = empty_main("s11");
    const auto view = migrated("s11", main);
    CHECK(view.size() == 2);
    CHECK(view.at(6000).bytes == pattern(6000, 6));
    CHECK(view.at(7000).bytes == pattern(7000, 7));
    CHECK(outcomes("s11", main).at(Outcome::unknown) == 1);
}

TEST_CASE("migrate refuses what is not a table or not the main", "[migrate]") {
    MemoryIo wrong("main", 65536);
    CHECK_THROWS_WITH(migrated("s01", wrong), Catch::Matchers::Contains("131072"));

    // Headers of the setup script alone.
    MemoryIo spare = image("s09");
    MemoryIo main("main", 131072);
    for (const std::uint64_t place : {256U, 512U, 768U})
        spare.write(place, Image(165 * 512));
    const auto older = read_older(spare);
    REQUIRE(older);
    CHECK(older->kind == OlderKind::script);
    CHECK_THROWS_WITH(plan_migration(spare, main, *older, {}),
                      Catch::Matchers::Contains("setup script"));
    // A table that cannot be verified.
    MemoryIo torn = image("s01");
    for (const std::uint64_t place : dmr4_places)
        torn.write(place + 100, Image(512, 1));
    CHECK_THROWS_WITH(plan_migration(torn, main, *read_older(torn), {}),
                      Catch::Matchers::Contains("no copy that can be verified"));
}

TEST_CASE("migrate: sectors that cannot be read are lost, slots that fail are bad", "[migrate]") {
    MemoryIo old_spare = image("s01");
    MemoryIo main = image("s01.MAIN");
    MemoryIo fresh("new", 8192);
    FaultIo bad_old(old_spare);
    FaultIo bad_new(fresh);
    Observer quiet;
    const auto older = read_older(old_spare);
    const AdoptPlan adopt = bare_plan(main, fresh);
    bad_old.bad_reads = {20000};
    const MigratePlan plan = plan_migration(bad_old, main, *older, {});
    bad_new.bad_writes = {adopt.superblock.slot_sector(adopt.skip_slots + 1)};
    bad_new.bad_reads = {adopt.superblock.slot_sector(adopt.skip_slots + 2)};
    write_migrated(bad_old, main, bad_new, adopt, plan, quiet);
    const auto view = view_of(fresh);
    CHECK(view.at(100).state == REMAP_ENTRY_LOST);
    CHECK(view.at(101).bytes == pattern(101, 108));
    CHECK(view.at(1048).bytes == pattern(1048, 1055));
    const Table table = load_intact_table(fresh, load_superblock(fresh));
    CHECK(std::count_if(table.entries.begin(), table.entries.end(),
                        [](const Entry& e) { return e.state() == REMAP_ENTRY_BAD; }) == 2);
}

TEST_CASE("migrate: a power cut leaves the former set, none or the new one, and can be undone",
          "[migrate][undo][crash][long]") {
    MemoryIo old_spare = image("s01");
    MemoryIo main = image("s01.MAIN");
    const auto older = read_older(old_spare);
    const MigratePlan plan = plan_migration(old_spare, main, *older, {});
    const test::SampleSet other(test::SampleOptions{4096, 4096, 9, 8, 20, 77});
    MemoryIo blank("new", 4096);
    const AdoptPlan adopt = bare_plan(main, blank);
    const SpareJob migrate = [&](BlockIo& spare, Observer& observer) {
        write_migrated(old_spare, main, spare, adopt, plan, observer);
    };
    const fixture::Job again = [&](BlockIo&, BlockIo& spare) {
        Observer quiet;
        migrate(spare, quiet);
    };
    const auto view = [](const fixture::Pair& pair) {
        MemoryIo spare("new", pair.spare);
        return view_of(spare);
    };

    for (const bool over_another_set : {false, true}) {
        const fixture::Pair before{
            {}, over_another_set ? other.spare.content() : blank.content(), 512};
        const fixture::LoggedRun made =
            fixture::run_with_undo(before, migrate, migration_reserve(adopt, plan));
        const std::string old = fixture::dump_text(before);
        const auto migrated = view(made.after);
        const fixture::Holds finished = [&](const fixture::Pair& state) {
            return view(state) == migrated;
        };
        const fixture::Holds whole = [&](const fixture::Pair& state) {
            const std::string now = fixture::dump_text(state);
            return now.empty() || now == old || finished(state);
        };
        const auto job = fixture::replay(before, made.log, again, whole, finished);
        const auto undo = fixture::replay_undo(before, made, whole);
        INFO(job.states << " and " << undo.states << " states, " << job.wrong << " and "
                        << undo.wrong << " wrong, " << job.unfinished << " not migrated, "
                        << undo.unfinished << " not given back");
        CHECK(migrated.size() == 12);
        CHECK(made.refused == 0);
        CHECK(job.good());
        CHECK(undo.good());
    }
}

TEST_CASE("migrate: slots that fail are others' turn also when there is an undo file",
          "[migrate][undo]") {
    MemoryIo old_spare = image("s01");
    MemoryIo main = image("s01.MAIN");
    const test::SampleSet other(test::SampleOptions{4096, 4096, 9, 8, 20, 77});
    MemoryIo fresh = other.spare;
    const AdoptPlan adopt = bare_plan(main, fresh);
    const MigratePlan plan = plan_migration(old_spare, main, *read_older(old_spare), {});
    const scratch::Folder folder;
    FaultIo bad(fresh);
    Observer quiet;
    bad.bad_writes = {adopt.superblock.slot_sector(adopt.skip_slots + 1)};
    bad.bad_reads = {adopt.superblock.slot_sector(adopt.skip_slots + 2)};
    std::string told;
    const UndoWish wish{folder.file("undo"), {}, [&told](const std::string& text) { told = text; }};
    run_logged(
        bad, wish, migration_reserve(adopt, plan),
        [&](BlockIo& spare, Observer& observer) {
            write_migrated(old_spare, main, spare, adopt, plan, observer);
        },
        quiet);
    CHECK(told.find("remap-fsck --undo " + folder.file("undo")) != std::string::npos);
    const Table table = load_intact_table(fresh, load_superblock(fresh));
    CHECK(std::count_if(table.entries.begin(), table.entries.end(),
                        [](const Entry& e) { return e.state() == REMAP_ENTRY_BAD; }) == 2);
    CHECK(view_of(fresh).size() == 12);
    // The sector that could not be read is the only one that is not given back.
    const UndoLog log = read_undo(folder.file("undo"));
    CHECK(log.unreadable_sectors() == 1);
    CHECK(undo_repair(log, fresh, nullptr).errors.empty());
    MemoryIo expected = other.spare;
    const std::uint64_t lost = *bad.bad_reads.begin();
    expected.write(lost, fresh.BlockIo::read(lost, 1));
    CHECK(fresh.content() == expected.content());
}

TEST_CASE("remap-dump migrate and its neighbours as a user calls them", "[migrate][cli]") {
    const scratch::Folder folder;
    const std::string old_spare = folder.file("old");
    const std::string main = folder.file("main");
    const std::string fresh = folder.file("new");
    unpack_to("s01", old_spare);
    {
        const MemoryIo with_truth = image("s01.MAIN");
        std::ofstream(main, std::ios::binary)
            .write(reinterpret_cast<const char*>(with_truth.content().data()),
                   static_cast<std::streamsize>(with_truth.content().size()));
    }
    scratch::make_image(fresh, 8U << 20);
    const std::string before = scratch::slurp(old_spare);
    const auto migrate = [&](std::vector<std::string> words) {
        words.insert(words.begin(), {bin, "migrate"});
        return scratch::run(words);
    };

    const auto shown = scratch::run({bin, old_spare});
    CHECK(shown.code == 0);
    CHECK(shown.out.find("DMR4") != std::string::npos);
    const auto probed = scratch::run({REMAP_BIN_DIR "/remapsetup", "probe", old_spare});
    CHECK(probed.code == 2);
    CHECK(probed.err.find("older project (DMR4)") != std::string::npos);
    const auto format =
        scratch::run({REMAP_BIN_DIR "/remapsetup", "format", "-y", "--bare", main, old_spare});
    CHECK(format.code == 16);
    CHECK(format.err.find("older project") != std::string::npos);
    CHECK(scratch::slurp(old_spare) == before);

    CHECK(migrate({old_spare, fresh}).code == 16);
    CHECK(migrate({"-y", "--main", main, old_spare, old_spare}).code == 16);
    CHECK(migrate({"-y", "--main", main, old_spare, main}).code == 16);
    CHECK(migrate({"-y", "--main", main, fresh, old_spare}).code != 0);
    CHECK(scratch::slurp(old_spare) == before);
    const auto dry = migrate({"-n", "--json", "--main", main, old_spare, fresh});
    CHECK(dry.code == 1);
    CHECK(scratch::slurp(fresh) == std::string(8U << 20, '\0'));
    const auto json = nlohmann::json::parse(dry.out);
    CHECK(json["entries"].size() == 12);
    CHECK(json["copied"] == 10);
    CHECK(json["lost"] == 2);
    const std::string undo = folder.file("undo");
    const std::string main_before = scratch::slurp(main);
    CHECK(migrate({"-y", "-z", undo, "--main", main, old_spare, fresh}).code == 1);
    CHECK(scratch::slurp(fresh) != std::string(8U << 20, '\0'));
    CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "--undo", undo, fresh}).code == 0);
    CHECK(scratch::slurp(fresh) == std::string(8U << 20, '\0'));
    CHECK(scratch::slurp(main) == main_before);
    const auto done = migrate({"-y", "--main", main, old_spare, fresh});
    CHECK(done.code == 1);
    CHECK(done.out.find("outcome doubtful") != std::string::npos);
    CHECK(scratch::run({REMAP_BIN_DIR "/remap-fsck", "-n", "--main", main, fresh}).code == 0);
    // Not over what it has made.
    const auto again = migrate({"-y", "--main", main, old_spare, fresh});
    CHECK(again.code == 16);
    CHECK(again.err.find("--force") != std::string::npos);
}
