// SPDX-License-Identifier: GPL-2.0-or-later
//
// The programs as a user or a script calls them: exit codes, messages, and files left alone.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/assemble.hpp"
#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/fsck.hpp"
#include "libremap/report.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;
namespace fs = std::filesystem;

namespace {

class Folder {
  public:
    Folder() {
        std::string pattern = (fs::temp_directory_path() / "remap-unit-XXXXXX").string();
        if (!mkdtemp(pattern.data()))
            throw std::runtime_error("mkdtemp");
        path_ = pattern;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }

    std::string file(const std::string& name) const { return (path_ / name).string(); }

    std::string put(const std::string& name, const std::vector<std::uint8_t>& content) const {
        std::ofstream out(file(name), std::ios::binary);
        out.write(reinterpret_cast<const char*>(content.data()),
                  static_cast<std::streamsize>(content.size()));
        return file(name);
    }

    std::vector<std::uint8_t> get(const std::string& name) const {
        std::ifstream in(file(name), std::ios::binary);
        return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    }

  private:
    fs::path path_;
};

struct Outcome {
    int code = -1;
    std::string out;
    std::string err;
};

std::string slurp(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// Runs a tool through the shell, without a terminal. `line` is what follows the tool's name.
Outcome run(const Folder& folder, const std::string& tool, const std::string& line) {
    const std::string command = REMAP_BIN_DIR "/" + tool + " " + line + " </dev/null 2>" +
                                folder.file("err") + " >" + folder.file("out");
    const int status = std::system(command.c_str());  // NOLINT(cert-env33-c)
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status),
            slurp(folder.file("out")), slurp(folder.file("err"))};
}

/// The same, with standard output going to `out`.
int run_to(const Folder& folder, const std::string& tool, const std::string& line,
           const std::string& out) {
    const std::string command =
        REMAP_BIN_DIR "/" + tool + " " + line + " </dev/null >" + out + " 2>" + folder.file("err");
    const int status = std::system(command.c_str());  // NOLINT(cert-env33-c)
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

}  // namespace

TEST_CASE("wrong use ends with 16 and help with 0") {
    const Folder folder;

    for (const char* tool : {"remap-fsck", "remap-dump"}) {
        INFO(tool);
        CHECK(run(folder, tool, "").code == 16);
        CHECK(run(folder, tool, "--no-such-option x").code == 16);
        CHECK(run(folder, tool, "a b").code == 16);
        CHECK(run(folder, tool, "--help").code == 0);
        CHECK(run(folder, tool, "--help").out.find("Exit status") != std::string::npos);
        CHECK(run(folder, tool, "--version").out.find(tool) == 0);
    }
    CHECK(run(folder, "remap-fsck", "-n -p x").code == 16);
    CHECK(run(folder, "remap-fsck", "-p -y x").code == 16);
}

TEST_CASE("remap-fsck: check, repair, and clean again") {
    const Folder folder;
    SampleSet set;
    const std::string spare = folder.put("spare", set.spare.content());

    CHECK(run(folder, "remap-fsck", "-n " + spare).code == 0);
    flip(set.spare, set.superblock.sb_sector[1], 5000);
    scribble(set.spare, set.superblock.table_sector(0, 1), 8);
    folder.put("spare", set.spare.content());

    for (const char* options : {"-n ", "", "--json ", "-n -f "}) {
        const Outcome checked = run(folder, "remap-fsck", options + spare);
        CHECK(checked.code == 4);
        CHECK(checked.out.find("RMF-0101") != std::string::npos);
        CHECK(checked.out.find("RMF-0205") != std::string::npos);
        CHECK(folder.get("spare") == set.spare.content());
    }
    const Outcome repaired = run(folder, "remap-fsck", "-a -T -l -M " + spare);
    CHECK(repaired.code == 1);
    CHECK(repaired.out.find("repaired") != std::string::npos);
    CHECK(folder.get("spare") == SampleSet().spare.content());
    CHECK(run(folder, "remap-fsck", "-p " + spare).code == 0);
}

TEST_CASE("remap-fsck as systemd-fsck calls it") {
    const Folder folder;
    const SampleSet set;
    const std::string spare = folder.put("spare", set.spare.content());

    CHECK(run(folder, "remap-fsck", "-a -T -l -M -f -C7 " + spare + " 7>" + folder.file("progress"))
              .code == 0);
    CHECK(run(folder, "remap-fsck", "-a -r -V -C 7 " + spare + " 7>/dev/null").code == 0);
    // The descriptor may be gone.
    CHECK(run(folder, "remap-fsck", "-a -C9 " + spare).code == 0);
}

TEST_CASE("remap-fsck --main checks the pair") {
    const Folder folder;
    SampleSet set;
    const SampleSet other(SampleOptions{4096, 4096, 9, 8, 20, 5});
    const std::string spare = folder.put("spare", set.spare.content());
    const std::string main = folder.put("main", set.main.content());
    const std::string wrong = folder.put("wrong", other.main.content());

    CHECK(run(folder, "remap-fsck", "-n --main " + main + " " + spare).code == 0);
    const Outcome foreign = run(folder, "remap-fsck", "-y --main " + wrong + " " + spare);
    CHECK(foreign.code == 4);
    CHECK(foreign.out.find("RMF-0502") != std::string::npos);
    CHECK(foreign.out.find(other.superblock.head.set_uuid.str()) != std::string::npos);
    CHECK(folder.get("wrong") == other.main.content());
    const Outcome swapped = run(folder, "remap-fsck", "-n --main " + spare + " " + main);
    CHECK(swapped.code == 8);

    flip(set.main, 0, 1200);
    folder.put("main", set.main.content());
    CHECK(run(folder, "remap-fsck", "-p --main " + main + " " + spare).code == 1);
    CHECK(folder.get("main") == SampleSet().main.content());
}

TEST_CASE("remap-fsck --json") {
    const Folder folder;
    SampleSet set;

    scribble(set.spare, set.superblock.table_sector(1, 0), 8);
    const std::string spare = folder.put("spare", set.spare.content());
    const Outcome outcome = run(folder, "remap-fsck", "-n --json " + spare);
    const auto json = nlohmann::json::parse(outcome.out);
    CHECK(outcome.code == 4);
    CHECK(json["exit_code"] == 4);
    CHECK(json["set_uuid"] == set.superblock.head.set_uuid.str());
    bool found = false;
    for (const auto& finding : json["findings"]) {
        if (finding["id"] == "RMF-0205") {
            found = true;
            CHECK(finding["index"] == 1);
            CHECK(finding["copy"] == 0);
            CHECK(finding["verdict"] == "absent");
            CHECK(finding["repairable"] == true);
        }
    }
    CHECK(found);
}

TEST_CASE("an image that is in use is checked but not repaired") {
    const Folder folder;
    SampleSet set;

    flip(set.spare, set.superblock.sb_sector[1], 5000);
    const std::string spare = folder.put("spare", set.spare.content());
    const int fd = open(spare.c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(flock(fd, LOCK_EX | LOCK_NB) == 0);
    CHECK(run(folder, "remap-fsck", "-n " + spare).code == 4);
    const Outcome busy = run(folder, "remap-fsck", "-y " + spare);
    CHECK(busy.code == 8);
    CHECK(busy.err.find("in use") != std::string::npos);
    CHECK(busy.out.find("RMF-0101") != std::string::npos);
    CHECK(folder.get("spare") == set.spare.content());
    close(fd);
    CHECK(run(folder, "remap-fsck", "-y " + spare).code == 1);
}

TEST_CASE("an image on which a virtual machine runs is in use") {
    const Folder folder;
    const std::string path = folder.put("image", std::vector<std::uint8_t>(4096));
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct flock range {};

    REQUIRE(fd >= 0);
    range.l_type = F_RDLCK;
    range.l_whence = SEEK_SET;
    range.l_start = 100;
    range.l_len = 1;
    REQUIRE(fcntl(fd, F_OFD_SETLK, &range) == 0);
    CHECK_THROWS_AS(open_block_io(path, Mode::read_write), BusyError);
    CHECK_NOTHROW(open_block_io(path, Mode::read_only));
    close(fd);
    CHECK_NOTHROW(open_block_io(path, Mode::read_write));
}

TEST_CASE("two writers exclude each other") {
    const Folder folder;
    const std::string path = folder.put("image", std::vector<std::uint8_t>(4096));
    const auto first = open_block_io(path, Mode::read_write);

    CHECK_THROWS_AS(open_block_io(path, Mode::read_write), BusyError);
    CHECK_NOTHROW(open_block_io(path, Mode::read_only));
}

TEST_CASE("output that cannot be written is noticed") {
    const Folder folder;
    const SampleSet set;
    const std::string spare = folder.put("spare", set.spare.content());

    for (const char* options : {"", "--json "}) {
        CHECK(run_to(folder, "remap-dump", options + spare, "/dev/full") == 8);
        CHECK(slurp(folder.file("err")).find("No space left") != std::string::npos);
        CHECK((run_to(folder, "remap-fsck", std::string("-n ") + options + spare, "/dev/full") &
               8) == 8);
    }
}

TEST_CASE("remap-dump shows a spare and a main, and says so when they are damaged") {
    const Folder folder;
    SampleSet set;
    const std::string spare = folder.put("spare", set.spare.content());
    const std::string main = folder.put("main", set.main.content());

    CHECK(run(folder, "remap-dump", spare).code == 0);
    CHECK(run(folder, "remap-dump", main).code == 0);
    CHECK(nlohmann::json::parse(run(folder, "remap-dump", "--json " + spare).out)["role"] ==
          "spare");
    flip(set.spare, set.superblock.sb_sector[1], 5000);
    folder.put("spare", set.spare.content());
    const Outcome damaged = run(folder, "remap-dump", spare);
    CHECK(damaged.code == 1);
    CHECK(damaged.out.find("bad-crc") != std::string::npos);
    CHECK(folder.get("spare") == set.spare.content());
}

TEST_CASE("preen writes only if there is damage and says what it did") {
    const Folder folder;
    SampleSet set;
    const std::string spare = folder.put("spare", set.spare.content());
    std::vector<std::string> messages;
    const auto note = [&messages](const std::string& text) { messages.push_back(text); };

    fs::permissions(spare, fs::perms::owner_read);
    const auto before = fs::last_write_time(spare);
    CHECK(preen(spare, std::nullopt, note) == fsck::ok);
    CHECK(messages.empty());
    CHECK(fs::last_write_time(spare) == before);
    fs::permissions(spare, fs::perms::owner_read | fs::perms::owner_write);

    flip(set.spare, set.superblock.sb_sector[1], 5000);
    folder.put("spare", set.spare.content());
    CHECK(preen(spare, std::nullopt, note) == fsck::corrected);
    CHECK_FALSE(messages.empty());
    CHECK(folder.get("spare") == SampleSet().spare.content());
    CHECK(preen(folder.file("missing"), std::nullopt, note) == fsck::operational);
}

TEST_CASE("what is checked for reading only is not written, and only errors count") {
    const Folder folder;
    SampleSet set;
    std::vector<std::string> messages;
    const auto note = [&messages](const std::string& text) { messages.push_back(text); };
    const std::string main = folder.put("main", set.main.content());

    flip(set.spare, set.superblock.sb_sector[1], 5000);
    const std::string spare = folder.put("spare", set.spare.content());
    CHECK(inspect(spare, main, note) == fsck::ok);
    CHECK(messages.size() == 1);
    CHECK(folder.get("spare") == set.spare.content());

    set.entries[2] = {};
    set.write_all();
    folder.put("spare", set.spare.content());
    CHECK(inspect(spare, main, note) == fsck::uncorrected);
    CHECK(folder.get("spare") == set.spare.content());
    CHECK(folder.get("main") == set.main.content());
    CHECK(inspect(folder.file("missing"), main, note) == fsck::operational);
}

TEST_CASE("of several spares that claim a set the main's label decides") {
    const Uuid uuid = Uuid::random();
    const auto seen = [&uuid](std::uint8_t role, const Uuid& member, const Uuid& partner) {
        SeenMember result;
        result.info.role = role;
        result.info.set = uuid;
        result.info.member = member;
        result.info.partner = partner;
        result.info.nonce = 7;
        return result;
    };
    const Uuid ours = Uuid::random();
    const Uuid main_uuid = Uuid::random();
    const SeenMember main = seen(REMAP_ROLE_MAIN, main_uuid, ours);
    const SeenMember spare = seen(REMAP_ROLE_SPARE, ours, main_uuid);
    const SeenMember stranger = seen(REMAP_ROLE_SPARE, Uuid::random(), main_uuid);

    CHECK_FALSE(choose_spare({main}, uuid));
    CHECK(choose_spare({spare}, uuid) == ours);
    CHECK(choose_spare({stranger, spare, main}, uuid) == ours);
    CHECK(choose_spare({main, spare, stranger}, uuid) == ours);
    CHECK_THROWS_AS(choose_spare({stranger, spare}, uuid), Error);
    SeenMember earlier = main;
    earlier.info.nonce = 6;
    CHECK_THROWS_AS(choose_spare({stranger, spare, earlier}, uuid), Error);
}

TEST_CASE("text from a disk cannot drive a terminal") {
    CHECK(printable("\x1b]0;x\a\x9b"
                    "2J\xc2\x9b"
                    "A\r\n") == "?]0;x??2J?A??");
    CHECK(printable("gr\xc3\xbc\xc3\x9f") == "gr\xc3\xbc\xc3\x9f");
}

TEST_CASE("interactive: only what was answered with yes is repaired") {
    const Folder folder;
    SampleSet set;
    const SampleSet good;
    std::ostringstream out;
    std::ostringstream err;
    int questions = 0;
    const auto ask = [&questions](const std::string& question) {
        questions++;
        return question.find("copy 1") != std::string::npos;
    };
    FsckFrontend frontend{out, err, ask};
    FsckOptions options;

    flip(set.spare, set.superblock.sb_sector[1], 5000);
    flip(set.spare, set.superblock.sb_sector[3], 5000);
    options.spare = folder.put("spare", set.spare.content());
    options.mode = FsckMode::interactive;
    CHECK(run_fsck(options, frontend) == (fsck::corrected | fsck::uncorrected));
    CHECK(questions == 2);
    const auto check = open_block_io(options.spare, Mode::read_only);
    const CheckResult left = check_set(*check, nullptr);
    CHECK(ids(left) == std::vector<std::string>{"RMF-0101"});
    CHECK(left.findings.front().copy == 3U);
}

TEST_CASE("block devices: past the page cache, exclusive, in whole logical blocks") {
    const Folder folder;
    const std::string image = folder.put("image", std::vector<std::uint8_t>(1 << 20, 1));
    const std::string attach = "losetup --find --show --sector-size 4096 " + image + " >" +
                               folder.file("loop") + " 2>/dev/null";

    if (std::system(attach.c_str()) != 0) {  // NOLINT(cert-env33-c)
        WARN("not checked: this machine gives no loop device");
        return;
    }
    std::string loop = slurp(folder.file("loop"));
    loop.pop_back();
    {
        const auto io = open_block_io(loop, Mode::read_write);
        CHECK(io->is_block_device());
        CHECK(io->logical_block_size() == 4096);
        CHECK(io->size() == 2048);
        CHECK_THROWS_AS(open_block_io(loop, Mode::read_write), BusyError);
        CHECK(in_use(*io));
        CHECK_THROWS_AS(open_block_io(image, Mode::read_write), BusyError);
        CHECK(io->try_write(1, std::vector<std::uint8_t>(512)) == EINVAL);
        io->write(8, std::vector<std::uint8_t>(409600, 7));
        io->flush();
        // Single sectors inside a logical block, and a read longer than the bounce buffer.
        CHECK(io->read(7, 1) == std::vector<std::uint8_t>(512, 1));
        CHECK(io->read(9, 1) == std::vector<std::uint8_t>(512, 7));
        auto expected = std::vector<std::uint8_t>(512512, 1);
        std::fill_n(expected.begin() + 512, 409600, std::uint8_t{7});
        CHECK(io->read(7, 1001) == expected);
        CHECK_THROWS_AS(io->read(2047, 2), IoError);
    }
    const auto again = open_block_io(loop, Mode::read_only);
    CHECK_FALSE(in_use(*again));
    CHECK(std::system(("losetup -d " + loop).c_str()) == 0);  // NOLINT(cert-env33-c)
}

TEST_CASE("images are read and written where they should be") {
    const Folder folder;
    std::vector<std::uint8_t> content(10 * 512 + 100);
    for (std::size_t i = 0; i < content.size(); i++)
        content[i] = static_cast<std::uint8_t>(i / 512);
    const std::string path = folder.put("image", content);
    const auto io = open_block_io(path, Mode::read_write);

    CHECK(io->size() == 10);
    CHECK_FALSE(io->is_block_device());
    CHECK(io->read(9, 1) == std::vector<std::uint8_t>(512, 9));
    CHECK_THROWS_AS(io->read(10, 1), IoError);
    CHECK_THROWS_AS(io->read(~0ULL, 1), IoError);
    CHECK_THROWS_AS(io->read(9, 2), IoError);
    io->write(3, std::vector<std::uint8_t>(1024, 77));
    io->flush();
    CHECK_THROWS_AS(io->write(10, std::vector<std::uint8_t>(512)), IoError);
    std::fill_n(content.begin() + 1536, 1024, std::uint8_t{77});
    CHECK(folder.get("image") == content);
    try {
        io->read(10, 4);
        FAIL("no error");
    } catch (const IoError& error) {
        const std::string text = error.what();
        for (const char* part : {path.c_str(), "4 sectors", "sector 10", "Input/output error"})
            CHECK(text.find(part) != std::string::npos);
    }
}
