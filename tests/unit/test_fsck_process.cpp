// SPDX-License-Identifier: GPL-2.0-or-later
//
// remap-fsck as a process: on a terminal and without one, interrupted, beside others that use the
// device, and into a new image.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/block_io.hpp"
#include "libremap/device_use.hpp"
#include "libremap/error.hpp"
#include "libremap/fsck.hpp"
#include "libremap/undo.hpp"
#include "process.hpp"
#include "sample_set.hpp"
#include "scratch.hpp"

using namespace remap;
using namespace remap::test;
namespace fs = std::filesystem;

namespace {

const std::string program = REMAP_BIN_DIR "/remap-fsck";

std::string text_of(const MemoryIo& io) {
    return {io.content().begin(), io.content().end()};
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

scratch::Result run_fsck_tool(std::vector<std::string> words) {
    words.insert(words.begin(), program);
    return scratch::run(words);
}

/// A spare in a file, with two superblocks that can be repaired.
struct DamagedSpare {
    scratch::Folder folder;
    SampleSet set;
    std::string good = text_of(set.spare);
    std::string path = folder.file("spare");
    std::string bad;

    DamagedSpare() {
        flip(set.spare, set.superblock.sb_sector[1], 5000);
        flip(set.spare, set.superblock.sb_sector[3], 5000);
        bad = text_of(set.spare);
        scratch::spill(path, bad);
    }
    std::string now() const { return scratch::slurp(path); }
};

/// A loop device, or none where this machine gives none. Detached at the end.
class Loop {
  public:
    explicit Loop(const std::string& over) {
        const auto result = scratch::run({"losetup", "--find", "--show", over});
        if (result.code == 0)
            path_ = result.out.substr(0, result.out.size() - 1);
    }
    ~Loop() {
        if (!path_.empty())
            scratch::run({"losetup", "--detach", path_});
    }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;
    bool there() const { return !path_.empty(); }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

}  // namespace

TEST_CASE("on a terminal each repair is asked for, and only yes is yes", "[fsck]") {
    DamagedSpare spare;
    {
        auto process = scratch::Process::on_terminal({program, spare.path});
        REQUIRE(process.saw("copy 1"));
        REQUIRE(process.saw("(y/n)"));
        process.type("n\n");
        REQUIRE(process.saw("copy 3"));
        REQUIRE(process.saw("(y/n)"));
        process.type("\n");
        CHECK(process.wait() == 4);
        CHECK(spare.now() == spare.bad);
    }
    auto process = scratch::Process::on_terminal({program, spare.path});
    REQUIRE(process.saw("(y/n)"));
    process.type("n\n");
    REQUIRE(process.saw("(y/n)"));
    process.type("yes\n");
    REQUIRE(process.saw("1 repaired"));
    REQUIRE(process.saw("--undo"));
    CHECK(process.wait() == (1 | 4));
    CHECK(spare.now() != spare.bad);
    CHECK(run_fsck_tool({"-y", spare.path}).code == 1);
    CHECK(spare.now() == spare.good);
}

TEST_CASE("without a terminal on both ends, or with a mode, nothing is asked", "[fsck]") {
    DamagedSpare spare;

    CHECK(run_fsck_tool({spare.path}).code == 4);
    CHECK(spare.now() == spare.bad);
    for (const char* option : {"-n", "--json"}) {
        auto process = scratch::Process::on_terminal({program, option, spare.path});
        CHECK_FALSE(process.saw("(y/n)"));
        CHECK(process.wait() == 4);
        CHECK(spare.now() == spare.bad);
    }
    // Input is a terminal, output is not.
    const std::string line = program + " " + spare.path + " | cat >" + spare.folder.file("out");
    auto piped = scratch::Process::on_terminal({"/bin/sh", "-c", line});
    CHECK(piped.wait() == 0);
    CHECK_FALSE(contains(scratch::slurp(spare.folder.file("out")), "(y/n)"));
    CHECK(contains(scratch::slurp(spare.folder.file("out")), "RMF-0101"));
    CHECK(spare.now() == spare.bad);
    auto preened = scratch::Process::on_terminal({program, "-p", spare.path});
    CHECK_FALSE(preened.saw("(y/n)"));
    CHECK(preened.wait() == 1);
    CHECK(spare.now() == spare.good);
}

TEST_CASE("a question ends with the terminal, or with a signal, and nothing is changed", "[fsck]") {
    DamagedSpare spare;

    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
        auto process = scratch::Process::on_terminal({program, spare.path});
        REQUIRE(process.saw("(y/n)"));
        process.type("y\n");
        REQUIRE(process.saw("(y/n)"));
        process.send(signal);
        REQUIRE(process.saw("interrupted"));
        REQUIRE(process.saw("RMF-0101"));
        CHECK(process.wait() == (32 | 4));
        CHECK(spare.now() == spare.bad);
    }
    // Control-D.
    auto process = scratch::Process::on_terminal({program, spare.path});
    REQUIRE(process.saw("(y/n)"));
    process.type("\4");
    REQUIRE(process.saw("(y/n)"));
    process.type("\4");
    CHECK(process.wait() == 4);
    CHECK(spare.now() == spare.bad);
}

TEST_CASE("a signal ends a repair between two steps, and what was done can be undone", "[fsck]") {
    const scratch::Folder folder;
    SampleSet set(SampleOptions{60000, 60000, 9, 8, 40000, 3});
    // No two neighbours in one copy, so each is a step by itself: more than the pipe has room for.
    REQUIRE(set.superblock.table_length > 150);
    for (std::uint64_t index = 0; index < set.superblock.table_length; index++)
        flip(set.spare, set.superblock.table_sector(index, index % 2), 5000);
    const std::string before = text_of(set.spare);
    const std::string spare = folder.file("spare");
    const std::string undo = folder.file("undo");
    scratch::spill(spare, before);

    // The progress pipe is read up to the tenth step only, so the repair waits there.
    std::array<int, 2> ends{};
    REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
    REQUIRE(fcntl(ends[1], F_SETPIPE_SZ, 4096) >= 4096);
    auto process = scratch::Process::without_terminal({program, "-y", "-z", undo, "-C", "7", spare},
                                                      folder.file("out"), ends[1]);
    close(ends[1]);
    std::string lines;
    while (!contains(lines, "\n2 10 ")) {
        char c = 0;
        REQUIRE(read(ends[0], &c, 1) == 1);
        lines += c;
    }
    process.send(SIGTERM);
    const int code = process.wait();
    close(ends[0]);
    INFO(scratch::slurp(folder.file("out")).substr(0, 500));
    CHECK(code == (32 | 4 | 1));
    const std::string out = scratch::slurp(folder.file("out"));
    CHECK(contains(out, "interrupted"));
    CHECK(contains(out, "repaired: write it again"));
    CHECK(contains(out, "not repaired: interrupted"));

    // Whole structures only: each copy is either damaged as before or valid.
    const auto io = open_block_io(spare, Mode::read_only);
    const CheckResult left = check_set(*io, nullptr);
    CHECK(left.table.lost.empty());
    CHECK(left.findings.size() < set.superblock.table_length);
    CHECK_FALSE(ids(left).empty());
    for (const std::string& id : ids(left))
        CHECK(id == "RMF-0201");
    CHECK(run_fsck_tool({"--undo", undo, spare}).code == 0);
    CHECK((scratch::slurp(spare) == before));
}

TEST_CASE("a signal during the check ends it with what was found so far", "[fsck]") {
    DamagedSpare spare;
    std::array<int, 2> ends{};
    REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
    const int size = fcntl(ends[1], F_SETPIPE_SZ, 4096);
    const std::vector<char> full(static_cast<std::size_t>(size), 'x');
    REQUIRE(write(ends[1], full.data(), full.size()) == size);
    auto process = scratch::Process::without_terminal({program, "-y", "-C7", spare.path},
                                                      spare.folder.file("out"), ends[1]);
    REQUIRE(process.sleeps());  // in its first line of progress
    process.send(SIGINT);
    CHECK(process.wait() == (32 | 4));
    const std::string out = scratch::slurp(spare.folder.file("out"));
    CHECK(contains(out, "interrupted"));
    CHECK(contains(out, "RMF-0101"));
    CHECK(spare.now() == spare.bad);
    close(ends[0]);
    close(ends[1]);
}

TEST_CASE("option -o repairs a copy and leaves the input alone", "[fsck]") {
    DamagedSpare spare;
    const std::string out = spare.folder.file("repaired");

    fs::permissions(spare.path, fs::perms::owner_read);
    const auto time = fs::last_write_time(spare.path);
    const auto made = run_fsck_tool({"-y", "-o", out, spare.path});
    CHECK(made.code == 1);
    CHECK(contains(made.out, out + ": the repaired copy"));
    CHECK((scratch::slurp(out) == spare.good));
    CHECK(spare.now() == spare.bad);
    CHECK(fs::last_write_time(spare.path) == time);
    CHECK(run_fsck_tool({"-n", out}).code == 0);
    // Never over anything.
    CHECK(run_fsck_tool({"-y", "-o", out, spare.path}).code == (8 | 4));
    CHECK(run_fsck_tool({"-y", "-o", spare.path, spare.path}).code == (8 | 4));
    CHECK(run_fsck_tool({"-n", "-o", out, spare.path}).code == 16);
    CHECK(run_fsck_tool({"-y", "-z", out, "-o", out, spare.path}).code == 16);
    CHECK(spare.now() == spare.bad);
    // Without a terminal and a mode: as -p.
    fs::remove(out);
    CHECK(run_fsck_tool({"-o", out, spare.path}).code == 1);
    CHECK((scratch::slurp(out) == spare.good));
    fs::remove(out);
    CHECK(run_fsck_tool({"-y", "-o", out, "/dev/null"}).code == 8);
    CHECK_FALSE(fs::exists(out));
    // An undamaged set is copied as it is; a locked one is not.
    scratch::spill(spare.folder.file("good"), spare.good);
    CHECK(run_fsck_tool({"-p", "-o", out, spare.folder.file("good")}).code == 0);
    CHECK((scratch::slurp(out) == spare.good));
    fs::remove(out);
    const int fd = open(spare.path.c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(flock(fd, LOCK_EX | LOCK_NB) == 0);
    CHECK(run_fsck_tool({"-p", "-o", out, spare.path}).code == 8);
    CHECK_FALSE(fs::exists(out));
    close(fd);
    // As a virtual machine that only reads.
    const int reader = open(spare.path.c_str(), O_RDONLY | O_CLOEXEC);
    struct flock range {};
    range.l_type = F_RDLCK;
    range.l_whence = SEEK_SET;
    range.l_start = 100;
    range.l_len = 1;
    REQUIRE(fcntl(reader, F_OFD_SETLK, &range) == 0);
    CHECK(run_fsck_tool({"-p", "-o", out, spare.path}).code == 8);
    CHECK_FALSE(fs::exists(out));
    close(reader);
}

TEST_CASE("option -o with --main says that the main is not written to", "[fsck]") {
    const scratch::Folder folder;
    SampleSet set;
    flip(set.main, 0, 1000);
    flip(set.spare, set.superblock.sb_sector[1], 5000);
    const std::string bad = text_of(set.main);
    scratch::spill(folder.file("spare"), text_of(set.spare));
    scratch::spill(folder.file("main"), bad);
    const auto result = run_fsck_tool(
        {"-y", "--main", folder.file("main"), "-o", folder.file("out"), folder.file("spare")});
    CHECK(result.code == (1 | 4));
    CHECK(contains(result.err, "with -o the main is not written to"));
    CHECK(scratch::slurp(folder.file("main")) == bad);
    CHECK((scratch::slurp(folder.file("out")) == text_of(SampleSet().spare)));
}

TEST_CASE("what lies under a loop device is not written to", "[fsck]") {
    DamagedSpare spare;
    const Loop first(spare.path);

    if (!first.there()) {
        WARN("not checked: this machine gives no loop device");
        return;
    }
    const auto refused = run_fsck_tool({"-y", spare.path});
    CHECK(refused.code == 8);
    CHECK(contains(refused.err, "it backs " + first.path()));
    // Other names of the same file.
    fs::create_hard_link(spare.path, spare.folder.file("link"));
    fs::create_symlink(spare.path, spare.folder.file("symlink"));
    CHECK(run_fsck_tool({"-y", spare.folder.file("link")}).code == 8);
    CHECK(run_fsck_tool({"-y", spare.folder.file("symlink")}).code == 8);
    CHECK(spare.now() == spare.bad);
    {
        // A loop device over a block device does not hold it.
        const Loop second(first.path());
        REQUIRE(second.there());
        const auto busy = run_fsck_tool({"-y", first.path()});
        CHECK(busy.code == 8);
        CHECK(contains(busy.err, "it backs " + second.path()));
        CHECK(run_fsck_tool({"-p", "-o", spare.folder.file("o"), first.path()}).code == 8);
        CHECK(run_fsck_tool({"-n", first.path()}).code == 4);
        CHECK(spare.now() == spare.bad);
        struct stat status {};
        REQUIRE(stat(first.path().c_str(), &status) == 0);
        CHECK(loop_over(first.path(), status) == second.path());
        CHECK(whole_disk(status.st_rdev) == status.st_rdev);
    }
    CHECK(run_fsck_tool({"-y", first.path()}).code == 1);
}

TEST_CASE("an undo file does not go onto what is repaired", "[fsck]") {
    const scratch::Folder folder;
    const std::string image = folder.file("image");
    scratch::make_image(image, 4 << 20);
    const Loop loop(image);
    const std::string mount_point = folder.file("mnt");
    fs::create_directory(mount_point);
    if (!loop.there() || scratch::run({"mkfs.ext4", "-q", loop.path()}).code != 0 ||
        mount(loop.path().c_str(), mount_point.c_str(), "ext4", 0, nullptr) != 0) {
        WARN("not checked: this machine mounts no loop device");
        return;
    }
    struct stat device {};
    struct stat file {};
    struct stat other {};
    CHECK(stat(loop.path().c_str(), &device) == 0);
    CHECK(stat(image.c_str(), &file) == 0);
    CHECK(stat("/dev/loop-control", &other) == 0);
    CHECK(lies_on(mount_point + "/x.undo", device));
    CHECK(lies_on(mount_point + "/x.undo", file));
    CHECK_FALSE(lies_on(folder.file("x.undo"), device));
    CHECK_FALSE(lies_on(folder.file("x.undo"), file));
    CHECK_FALSE(lies_on(mount_point + "/x.undo", other));
    CHECK(run_fsck_tool({"-y", loop.path()}).code == 8);
    CHECK(run_fsck_tool({"-y", image}).code == 8);
    CHECK(umount(mount_point.c_str()) == 0);
}

TEST_CASE("readers never write a byte, whatever the damage", "[fsck]") {
    using Damage = std::function<void(SampleSet&)>;
    const std::map<std::string, Damage> damages = {
        {"none", [](SampleSet&) {}},
        {"a torn superblock",
         [](SampleSet& s) { scribble(s.spare, s.superblock.sb_sector[1], 3); }},
        {"one superblock left",
         [](SampleSet& s) {
             for (unsigned int i = 0; i < 4; i++)
                 scribble(s.spare, s.superblock.sb_sector.at(i), 8);
         }},
        {"no superblock left",
         [](SampleSet& s) {
             for (const std::uint64_t sector : s.superblock.sb_sector)
                 scribble(s.spare, sector, 8);
         }},
        {"a lost table block",
         [](SampleSet& s) {
             scribble(s.spare, s.superblock.table_sector(0, 0), 8);
             scribble(s.spare, s.superblock.table_sector(0, 1), 8);
         }},
        {"a dead copy",
         [](SampleSet& s) {
             s.superblock.live_copies = 2;
             s.superblock.head.generation++;
             write_superblock(s.spare, s.superblock);
         }},
        {"half adopted",
         [](SampleSet& s) {
             s.superblock.head.state = REMAP_STATE_ADOPTING;
             s.superblock.head.generation++;
             write_superblock(s.spare, s.superblock);
         }},
        {"a newer format",
         [](SampleSet& s) {
             for (const std::uint64_t sector : s.superblock.sb_sector)
                 s.spare.content()[sector * 512 + offsetof(remap_head, version)] = 9;
         }},
        {"a main without labels",
         [](SampleSet& s) {
             for (const std::uint64_t sector : s.superblock.label_sector)
                 scribble(s.main, sector, 1);
         }},
    };
    for (const auto& [name, damage] : damages) {
        const scratch::Folder folder;
        SampleSet set(SampleOptions{4096, 2048, 9, 4, 5, 3});
        damage(set);
        const std::string spare = folder.file("spare");
        const std::string main = folder.file("main");
        scratch::spill(spare, text_of(set.spare));
        scratch::spill(main, text_of(set.main));
        const auto time = fs::last_write_time(spare);
        INFO(name);
        for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
                 {"remap-fsck", "-n", spare},
                 {"remap-fsck", spare},
                 {"remap-fsck", "-n", "--json", "--main", main, spare},
                 {"remap-fsck", "-y", "-o", folder.file("out"), "--main", main, spare},
                 {"remap-dump", spare},
                 {"remap-dump", main}}) {
            auto line = words;
            line[0] = REMAP_BIN_DIR "/" + line[0];
            CHECK(scratch::run(line).code >= 0);
            CHECK((scratch::slurp(spare) == text_of(set.spare)));
            CHECK((scratch::slurp(main) == text_of(set.main)));
            CHECK(fs::last_write_time(spare) == time);
            CHECK(fs::last_write_time(main) >= time);
            fs::remove(folder.file("out"));
        }
    }
}
