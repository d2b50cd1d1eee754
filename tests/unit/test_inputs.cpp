// SPDX-License-Identifier: GPL-2.0-or-later
//
// One table for all tools: what each verb makes of inputs that it cannot use. Every cell is a run
// of the program: its exit code, a message on standard error that names the input and the trouble,
// and not a byte changed anywhere.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/file_util.hpp"
#include "sample_set.hpp"
#include "scratch.hpp"

namespace {

namespace fs = std::filesystem;

enum Input : std::size_t {
    missing,
    folder,
    pipe_end,
    unreadable,  ///< the spare of a set, without permission
    empty,
    hundred,  ///< bytes
    noise,
    zeroes,
    read_only,  ///< a spare with one bad superblock copy that may not be written
    busy,       ///< the same, locked by another program
    nr_inputs,
};

constexpr std::array<const char*, nr_inputs> names = {"missing",   "folder",  "pipe",  "unreadable",
                                                      "empty",     "hundred", "noise", "zeroes",
                                                      "read-only", "busy"};

/// What the message says about an input that cannot even be read, or else what was expected.
constexpr std::array<const char*, unreadable + 1> troubles = {
    "No such file or directory", "a directory", ": expected ", "Permission denied"};

/// The input is good enough for the verb: not a case of this table.
constexpr int usable = -1;

struct Row {
    const char* tool;
    /// Words; "{}" is the input, "{main}" and "{spare}" are members of a sound set, "{damaged}" is
    /// its spare with damage, "{other}" the spare of another set, "{blank}" an image of zeroes,
    /// "{old}" a spare of the older project, "{dump}", "{list}" and "{undo}" are files for this
    /// set,
    /// "{new}" does not exist.
    const char* words;
    std::array<int, nr_inputs> codes;
};

// What an exit code means is documented once: 1 damage seen, 2 not ours, 8 trouble, 16 wrong use;
// remap-fsck's are those of fsck(8), 4 damage left.
const std::vector<Row> rows = {
    // missing, folder, pipe, unreadable, empty, hundred, noise, zeroes, read-only, busy
    {"remap-fsck", "{}", {8, 8, 8, 8, 8, 8, 8, 8, 4, 4}},
    {"remap-fsck", "-n {}", {8, 8, 8, 8, 8, 8, 8, 8, 4, 4}},
    {"remap-fsck", "-p {}", {8, 8, 8, 8, 8, 8, 8, 8, 12, 8}},
    {"remap-fsck", "-y {}", {8, 8, 8, 8, 8, 8, 8, 8, 12, 8}},
    {"remap-fsck", "--json {}", {8, 8, 8, 8, 8, 8, 8, 8, 4, 4}},
    {"remap-fsck", "-n --main {} {spare}", {8, 8, 8, 8, 4, 4, 4, 4, 4, 4}},
    {"remap-fsck", "--undo {} {spare}", {8, 8, 8, 8, 8, 8, 8, 8, 8, 8}},
    {"remap-fsck", "--undo {undo} {}", {8, 8, 8, 8, 8, 8, 8, 8, 8, 8}},
    {"remap-fsck", "--confirm-loss {}", {8, 8, 8, 8, 8, 8, 8, 8, 4, 4}},
    {"remap-fsck", "-y -o {new} {}", {8, 8, 8, 8, 8, 8, 8, 8, usable, 8}},
    {"remap-fsck", "-y -z {new} {}", {8, 8, 8, 8, 8, 8, 8, 8, 12, 8}},
    {"remap-fsck", "-y -o {} {damaged}", {usable, 12, 12, 12, 12, 12, 12, 12, 12, 12}},
    {"remap-fsck", "-y -z {} {damaged}", {usable, 12, 12, 12, 12, 12, 12, 12, 12, 12}},
    {"remap-dump", "{}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "--json {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "show {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "show --timeline {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "show --timeline --json {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "export {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "export --format text {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "export --format ddrescue {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "export --format badblocks --block-size 512 {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "export --format dmtable --main {main} {}", {8, 8, 8, 8, 2, 2, 2, 2, 1, 1}},
    {"remap-dump", "export --format dmtable --main {} {spare}", {8, 8, 8, 8, 2, 2, 2, 2, 2, 2}},
    {"remap-dump",
     "restore -y --slots-in-place {dump} {}",
     {8, 8, 8, 8, 2, 2, usable, usable, 8, 8}},
    {"remap-dump", "restore -y --slots-in-place {} {blank}", {8, 8, usable, 8, 2, 2, 2, 2, 2, 2}},
    {"remap-dump",
     "restore -y --slots-in-place --main {} {dump} {blank}",
     {8, 8, 8, 8, 2, 2, 2, 2, 2, 2}},
    {"remap-dump",
     "restore -y --slots-in-place --force -z {} {dump} {other}",
     {usable, 8, 8, 8, 8, 8, 8, 8, 8, 8}},
    {"remap-dump", "import -y --format md {} {spare}", {8, 8, usable, 8, 0, 2, 2, 2, 2, 2}},
    {"remap-dump", "import -y --format ddrescue {} {spare}", {8, 8, usable, 8, 2, 2, 2, 2, 2, 2}},
    {"remap-dump",
     "import -y --format badblocks --block-size 512 {} {spare}",
     {8, 8, usable, 8, 0, 2, 2, 2, 2, 2}},
    {"remap-dump", "import -y --format md {list} {}", {8, 8, 8, 8, 2, 2, 2, 2, 8, 8}},
    {"remap-dump", "import -n --format md {list} {}", {8, 8, 8, 8, 2, 2, 2, 2, 2, 2}},
    {"remap-dump",
     "import -y --format md -z {} {list} {spare}",
     {usable, 8, 8, 8, 8, 8, 8, 8, 8, 8}},
    {"remap-dump",
     "migrate -y --doubtful main --main {} {old} {blank}",
     {8, 8, 8, 8, 16, 16, usable, usable, 2, 2}},
    {"remap-dump",
     "migrate -y --doubtful main --main {noise} {} {blank}",
     {8, 8, 8, 8, 2, 2, 16, 2, 2, 2}},
    {"remap-dump",
     "migrate -y --doubtful main --main {noise} {old} {}",
     {8, 8, 8, 8, 16, 16, 16, usable, 8, 8}},
    {"remap-dump", "scan {}", {8, 8, 8, 8, 2, 2, 2, 2, 0, 0}},
    {"remap-dump", "scan --json {}", {8, 8, 8, 8, 2, 2, 2, 2, 0, 0}},
    {"remap-dump", "hexdump {} superblock 0", {8, 8, 8, 8, 2, 2, 1, 1, 0, 0}},
    {"remap-dump", "hexdump --json {} superblock 0", {8, 8, 8, 8, 2, 2, 1, 1, 0, 0}},
    {"remap-dump", "hexdump {} table 0", {8, 8, 8, 8, 2, 2, 2, 2, 0, 0}},
    {"remap-dump", "hexdump {} label 0", {8, 8, 8, 8, 2, 2, 2, 2, 2, 2}},
    {"remap-dump", "hexdump {} --sector 8", {8, 8, 8, 8, 8, 8, 2, 2, 0, 0}},
    {"remapsetup", "probe {}", {8, 8, 8, 8, 2, 2, 2, 2, 0, 0}},
    {"remapsetup", "probe --udev {}", {8, 8, 8, 8, 2, 2, 2, 2, 0, 0}},
    {"remapsetup",
     "format --yes --rescue-file none {} {blank}",
     {8, 8, 8, 8, 16, 16, 2, usable, 8, 8}},
    {"remapsetup",
     "format --yes --rescue-file none {blank} {}",
     {8, 8, 8, 8, 16, 16, usable, usable, 8, 8}},
    {"remapsetup", "open {} name", {8, 16, 16, 16, 16, 16, 16, 16, 16, 16}},
    {"remapsetup", "open --all --remaptab {}", {0, 8, 8, 8, 0, 0, 0, 0, 0, 0}},
    {"remapsetup", "list --remaptab {}", {0, 8, 8, 8, 0, 0, 0, 0, 0, 0}},
    {"remapsetup", "status {}", {2, 2, 2, 2, 2, 2, 2, 2, 2, 2}},
    {"remapsetup", "close {}", {2, 2, 2, 2, 2, 2, 2, 2, 2, 2}},
    {"remapsetup", "release --yes --main {main} {}", {8, 8, 8, 8, 2, 2, 2, 2, 8, 8}},
    {"remapsetup", "release --yes --main {} {spare}", {8, 8, 8, 8, 2, 2, 2, 2, 8, 8}},
};

class Machine {
  public:
    Machine();
    std::string path(Input input) const { return folder_.file(names.at(input)); }
    scratch::Result run(const Row& row, Input input) const;
    /// Every file below the folder: what it holds, or its type.
    std::map<std::string, std::string> everything() const;

  private:
    void spill(const std::string& name, const std::vector<std::uint8_t>& bytes) const {
        scratch::spill(folder_.file(name), std::string(bytes.begin(), bytes.end()));
    }

    scratch::Folder folder_;
    std::unique_ptr<remap::FileHandle> lock_;
};

/// As the older project's setup script leaves a spare: a header, and no table.
std::vector<std::uint8_t> header_of_setup_script() {
    constexpr std::array<std::uint8_t, 8> magic_and_version = {0x34, 0x52, 0x4d, 0x44, 4, 0, 0, 0};
    std::vector<std::uint8_t> bytes(1 << 21);
    std::copy(magic_and_version.begin(), magic_and_version.end(), bytes.begin());
    bytes[33] = 2048 >> 8;
    return bytes;
}

Machine::Machine() {
    using remap::test::SampleSet;
    const SampleSet sound;
    SampleSet damaged;
    remap::test::scribble(damaged.spare, damaged.superblock.sb_sector[1], 8);
    std::vector<std::uint8_t> random(1 << 21);
    for (std::size_t i = 0; i < random.size(); i++)
        random[i] = static_cast<std::uint8_t>(i * 2654435761U >> 13);

    spill("main", sound.main.content());
    spill("spare", sound.spare.content());
    spill("blank", std::vector<std::uint8_t>(1 << 21));
    spill("damaged", damaged.spare.content());
    spill("other", SampleSet({4096, 4096, 9, 8, 20, 77}).spare.content());
    spill("old", header_of_setup_script());
    scratch::spill(folder_.file("list"), "3000 8\n");
    scratch::spill(
        folder_.file("dump"),
        scratch::run({REMAP_BIN_DIR "/remap-dump", "export", folder_.file("spare")}).out);
    // An undo file of a repair that was not made on any of the inputs.
    spill("repaired", damaged.spare.content());
    REQUIRE(scratch::run({REMAP_BIN_DIR "/remap-fsck", "-y", "-z", folder_.file("undo"),
                          folder_.file("repaired")})
                .code == 1);
    fs::create_directory(path(folder));
    REQUIRE(mkfifo(path(pipe_end).c_str(), 0600) == 0);
    spill(names[unreadable], sound.spare.content());
    fs::permissions(path(unreadable), fs::perms::none);
    spill(names[empty], {});
    spill(names[hundred], std::vector<std::uint8_t>(100, 'x'));
    spill(names[noise], random);
    spill(names[zeroes], std::vector<std::uint8_t>(1 << 21));
    spill(names[read_only], damaged.spare.content());
    fs::permissions(path(read_only), fs::perms::owner_read);
    spill(names[busy], damaged.spare.content());
    lock_ = std::make_unique<remap::FileHandle>(open(path(busy).c_str(), O_RDWR | O_CLOEXEC));
    REQUIRE(flock(lock_->get(), LOCK_EX | LOCK_NB) == 0);
}

scratch::Result Machine::run(const Row& row, Input input) const {
    std::vector<std::string> words;
    // To root permissions mean nothing, unless it gives up that privilege.
    if (geteuid() == 0)
        words = {"setpriv", "--bounding-set=-dac_override,-dac_read_search"};
    words.push_back(std::string(REMAP_BIN_DIR) + "/" + row.tool);
    std::istringstream in(row.words);
    for (std::string word; in >> word;) {
        const auto named = [&word](const char* place) { return word == place; };
        words.push_back(named("{}")           ? path(input)
                        : word.front() == '{' ? folder_.file(word.substr(1, word.size() - 2))
                                              : word);
    }
    return scratch::run(words);
}

std::map<std::string, std::string> Machine::everything() const {
    std::map<std::string, std::string> all;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder_.path()))
        all[entry.path()] = entry.is_regular_file() ? scratch::slurp(entry.path()) : "no file";
    return all;
}

/// Is the input a file that the verb would make?
bool makes_it(const Row& row) {
    return std::strstr(row.words, "-o {}") || std::strstr(row.words, "-z {}");
}

/// Is the input the name of a remap device, whatever file has the same?
bool takes_a_name(const Row& row) {
    return row.words == std::string("status {}") || row.words == std::string("close {}");
}

/// remap-fsck's findings are what it prints, whatever they mean; all other trouble is on standard
/// error, and then there is nothing else.
bool reports_on_stdout(const Row& row, Input input) {
    return row.tool == std::string("remap-fsck") && (input >= empty || makes_it(row));
}

void check_rows_of(const std::string& tool) {
    const Machine machine;
    const auto before = machine.everything();
    for (const Row& row : rows) {
        if (row.tool != tool)
            continue;
        for (std::size_t i = 0; i < nr_inputs; i++) {
            const auto input = static_cast<Input>(i);
            if (row.codes.at(i) == usable)
                continue;
            const auto result = machine.run(row, input);
            INFO(row.tool << " " << row.words << " with " << names.at(i) << ":\n"
                          << result.out << result.err);
            CHECK(result.code == row.codes.at(i));
            if (result.code <= 1)
                continue;
            const std::string said =
                reports_on_stdout(row, input) ? result.out + result.err : result.err;
            const bool quiet = std::strstr(row.words, "--udev") && result.code == 2;
            if (!quiet)
                CHECK(said.find(machine.path(input)) != std::string::npos);
            if (makes_it(row))
                CHECK(said.find("File exists") != std::string::npos);
            else if (takes_a_name(row))
                CHECK(said.find(" device") != std::string::npos);
            else if (input <= unreadable)
                CHECK((said.find(troubles.at(input)) != std::string::npos ||
                       said.find(": expected ") != std::string::npos));
            if (!reports_on_stdout(row, input))
                CHECK(result.out.empty());
        }
    }
    CHECK(machine.everything() == before);
}

}  // namespace

TEST_CASE("what remap-fsck cannot use: exit code, message, and nothing written", "[inputs]") {
    check_rows_of("remap-fsck");
}

TEST_CASE("what remap-dump cannot use: exit code, message, and nothing written", "[inputs]") {
    check_rows_of("remap-dump");
}

TEST_CASE("what remapsetup cannot use: exit code, message, and nothing written", "[inputs]") {
    check_rows_of("remapsetup");
}
