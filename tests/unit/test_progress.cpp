// SPDX-License-Identifier: GPL-2.0-or-later
//
// How a long job tells how far it is.
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/block_io.hpp"
#include "libremap/fsck.hpp"
#include "libremap/metadata.hpp"
#include "process.hpp"
#include "sample_set.hpp"
#include "scratch.hpp"

using namespace remap;
using namespace remap::test;

namespace {

const std::string bin = REMAP_BIN_DIR "/";

/// A spare in a file, whose table takes a while to read.
std::string large_spare(const scratch::Folder& folder) {
    constexpr std::uint64_t blocks = 2000;
    const std::string main = folder.file("main");
    const std::string spare = folder.file("spare");

    scratch::make_image(main, 1ULL << 30);
    scratch::make_image(spare, 400ULL << 20);
    const auto made = scratch::run({bin + "remapsetup", "format", "--yes", "--bare",
                                    "--rescue-file", "none", "--remaptab", "none", main, spare});
    INFO(made.err);
    REQUIRE(made.code == 0);
    const auto io = open_block_io(spare, Mode::read_write);
    Superblock superblock = load_superblock(*io);
    superblock.table_length = blocks;
    REQUIRE(superblock.segment().table_blocks() >= blocks);
    const std::uint64_t generation = superblock.head.generation++;
    write_table(*io, superblock, generation, std::vector<Entry>(blocks * REMAP_ENTRIES_PER_BLOCK));
    write_superblock(*io, superblock);
    return std::filesystem::canonical(spare).string();
}

struct Step {
    std::string what;
    std::uint64_t done;
    std::uint64_t total;
};

/// Runs it and notes what it tells; each step must go up, and end with all of it.
std::vector<std::string> steps_of(const FsckOptions& options) {
    std::ostringstream out;
    std::ostringstream err;
    std::vector<Step> told;
    std::vector<std::string> names;
    FsckFrontend frontend{out, err, {}, {}, {}};

    frontend.progress = [&told](const std::string& what, std::uint64_t done, std::uint64_t total) {
        told.push_back({what, done, total});
    };
    run_fsck(options, frontend);
    INFO(err.str());
    for (std::size_t i = 0; i < told.size(); i++) {
        CHECK(told[i].done <= told[i].total);
        const bool last = i + 1 == told.size() || told[i].done == told[i].total;
        if (!last) {
            CHECK(told[i + 1].what == told[i].what);
            CHECK(told[i + 1].done >= told[i].done);
        }
        if (names.empty() || names.back() != told[i].what)
            names.push_back(told[i].what);
    }
    REQUIRE_FALSE(told.empty());
    CHECK(told.back().done == told.back().total);
    return names;
}

}  // namespace

TEST_CASE("every step of a run of fsck is told to its end", "[progress]") {
    const scratch::Folder folder;
    SampleSet set;
    FsckOptions options;

    flip(set.spare, set.superblock.sb_sector[1], 5000);
    options.spare = folder.file("spare");
    scratch::spill(options.spare, {set.spare.content().begin(), set.spare.content().end()});
    CHECK(steps_of(options) == std::vector<std::string>{"checking"});
    options.mode = FsckMode::preen;
    options.out = folder.file("out");
    CHECK(steps_of(options) == std::vector<std::string>{"checking", "repairing", "copying"});
    options.out.reset();
    options.undo_file = folder.file("undo");
    CHECK(steps_of(options) == std::vector<std::string>{"checking", "repairing"});
}

TEST_CASE("a check that takes long has a bar on the terminal, which goes away", "[progress]") {
    const scratch::Folder folder;
    const std::string spare = large_spare(folder);
    bool seen = false;

    // Stopped in the middle it takes as long as is needed; it may have been through before.
    for (int tries = 0; tries < 20 && !seen; tries++) {
        auto process = scratch::Process::on_terminal({bin + "remap-fsck", "-n", "-C0", spare});
        REQUIRE(process.opened(spare));
        process.send(SIGSTOP);
        ::usleep(700000);
        process.send(SIGCONT);
        if (process.saw("% checking")) {
            seen = true;
            CHECK(process.saw("\r\033[K"));
            CHECK(process.saw("clean"));
        }
        CHECK(process.wait() == 0);
    }
    CHECK(seen);
}

TEST_CASE("without a terminal there is no bar, and lines for fsck go where it says", "[progress]") {
    const scratch::Folder folder;
    const std::string spare = large_spare(folder);

    const auto silent = scratch::run({bin + "remap-fsck", "-n", "-C0", spare});
    CHECK(silent.code == 0);
    CHECK(silent.err.empty());
    CHECK(silent.out.find('\r') == std::string::npos);

    const auto told = scratch::run({"sh", "-c", "exec 5>\"$1\"; exec \"$2\" -n -C5 \"$3\"", "sh",
                                    folder.file("lines"), bin + "remap-fsck", spare});
    CHECK(told.code == 0);
    CHECK(told.err.empty());
    std::istringstream lines(scratch::slurp(folder.file("lines")));
    std::uint64_t last = 0;
    int count = 0;
    for (std::string line; std::getline(lines, line); count++) {
        std::istringstream words(line);
        int pass = 0;
        std::uint64_t done = 0;
        std::uint64_t total = 0;
        std::string device;
        REQUIRE(words >> pass >> done >> total >> device);
        CHECK(pass == 1);
        CHECK(done >= last);
        CHECK(done <= total);
        CHECK(total == 2000);
        CHECK(device == spare);
        last = done;
    }
    CHECK(count > 10);
    CHECK(last == 2000);
}
