// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "libremap/assemble.hpp"
#include "libremap/error.hpp"
#include "libremap/remaptab.hpp"
#include "libremap/text.hpp"

namespace {

namespace fs = std::filesystem;

const char* const first_uuid = "11111111-2222-3333-4444-555555555555";
const char* const second_uuid = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

remap::Uuid uuid(const char* text) {
    return *remap::Uuid::parse(text);
}

/// A folder that is gone at the end of the test.
class Folder {
  public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "remaptab.XXXXXX").string();
        path_ = ::mkdtemp(name.data());
    }
    ~Folder() { fs::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string file(const char* name) const { return (path_ / name).string(); }
    const fs::path& path() const { return path_; }

  private:
    fs::path path_;
};

std::string slurp(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void spill(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
}

}  // namespace

TEST_CASE("remaptab: name, set and options are read, comments are not", "[remaptab]") {
    const auto tab = remap::Remaptab::parse(
        std::string("# comment\n\nroot UUID=") + first_uuid +
            " noauto,timeout=30  # why\n  data\tUUID=" + "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE -\n",
        "tab");
    REQUIRE(tab.entries().size() == 2);
    CHECK(tab.problems().empty());
    CHECK(tab.entries()[0].name == "root");
    CHECK(tab.entries()[0].set == uuid(first_uuid));
    CHECK(tab.entries()[0].has("noauto"));
    CHECK(tab.entries()[0].has("timeout"));
    CHECK_FALSE(tab.entries()[0].has("time"));
    CHECK(tab.entries()[1].set == uuid(second_uuid));
    CHECK(tab.entries()[1].options.empty());
}

TEST_CASE("remaptab: what is not understood is named with its line and kept", "[remaptab]") {
    const std::string text = std::string("one\n") + "../evil UUID=" + first_uuid +
                             " -\nx UUID=12 -\n" + "a UUID=" + first_uuid +
                             "\nb UUID=" + first_uuid + "\na UUID=" + second_uuid + "\n";
    const auto tab = remap::Remaptab::parse(text, "tab");
    REQUIRE(tab.entries().size() == 1);
    CHECK(tab.entries()[0].name == "a");
    REQUIRE(tab.problems().size() == 5);
    CHECK(tab.problems()[0].find("tab:1:") == 0);
    CHECK(tab.problems()[1].find("../evil") != std::string::npos);
    CHECK(tab.problems()[2].find("UUID=12") != std::string::npos);
    CHECK(tab.text() == text);
}

TEST_CASE("remaptab: device names that device-mapper or a shell would trip over are refused",
          "[remaptab]") {
    for (const char* name : {"root", "a.b-c_d", "remap-1234abcd", "x+1"}) {
        CHECK(remap::valid_device_name(name));
    }
    for (const char* name :
         {"", ".", "..", "control", "a/b", "a b", "-x", "#x", "a\nb", "\xc3\xa4"}) {
        CHECK_FALSE(remap::valid_device_name(name));
    }
    CHECK_FALSE(remap::valid_device_name(std::string(128, 'a')));
}

TEST_CASE("remaptab: a line is added and removed without touching the others", "[remaptab]") {
    const Folder folder;
    const std::string file = folder.file("tab");
    const std::string before = std::string("# mine\nroot UUID=") + first_uuid + " -\nnonsense\n";
    spill(file, before);
    ::chmod(file.c_str(), 0600);

    auto tab = remap::Remaptab::load(file);
    tab.add({"data", uuid(second_uuid), {"noauto", "fua"}});
    tab.save();
    CHECK(slurp(file) == before + "data UUID=" + second_uuid + " noauto,fua\n");
    struct stat st {};
    REQUIRE(::stat(file.c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0600);

    auto again = remap::Remaptab::load(file);
    CHECK(again.remove(uuid(second_uuid)));
    CHECK_FALSE(again.remove(uuid(second_uuid)));
    again.save();
    CHECK(slurp(file) == before);
    // Nothing is left beside it.
    CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("remaptab: a name or a set is listed once", "[remaptab]") {
    auto tab = remap::Remaptab::parse(std::string("root UUID=") + first_uuid + " -\n", "tab");
    CHECK_THROWS_AS(tab.add({"root", uuid(second_uuid), {}}), remap::Error);
    CHECK_THROWS_AS(tab.add({"other", uuid(first_uuid), {}}), remap::Error);
    CHECK_THROWS_AS(tab.add({"a/b", uuid(second_uuid), {}}), remap::Error);
}

TEST_CASE("remaptab: a link stays a link, a missing file is created", "[remaptab]") {
    const Folder folder;
    fs::create_symlink("real", folder.file("link"));
    spill(folder.file("real"), "");
    auto tab = remap::Remaptab::load(folder.file("link"));
    tab.add({"root", uuid(first_uuid), {}});
    tab.save();
    CHECK(fs::is_symlink(folder.file("link")));
    CHECK(slurp(folder.file("real")) == std::string("root UUID=") + first_uuid + " -\n");

    auto missing = remap::Remaptab::load(folder.file("new"));
    CHECK(missing.entries().empty());
    missing.add({"root", uuid(first_uuid), {}});
    missing.save();
    CHECK(fs::exists(folder.file("new")));
}

TEST_CASE("remaptab: a file that cannot be replaced stays as it was", "[remaptab]") {
    auto tab = remap::Remaptab::load("/nonexistent-folder/tab");
    tab.add({"root", uuid(first_uuid), {}});
    CHECK_THROWS_AS(tab.save(), remap::Error);
}

TEST_CASE("Known sets: listed without noauto, or named on the kernel command line", "[remaptab]") {
    const auto tab = remap::Remaptab::parse(
        std::string("root UUID=") + first_uuid + " noauto\ndata UUID=" + second_uuid + " fua\n",
        "tab");
    const auto plain = remap::known_sets(tab, remap::parse_command_line("quiet ro"));
    REQUIRE(plain.size() == 1);
    CHECK(plain[0].name == "data");

    const auto named = remap::known_sets(
        tab, remap::parse_command_line(std::string("rd.remap.uuid=") + first_uuid +
                                       " rd.remap.uuid=99999999-0000-0000-0000-000000000000\n"));
    REQUIRE(named.size() == 3);
    CHECK(named[0].name == "root");
    CHECK(named[2].name == "remap-99999999");

    CHECK(remap::parse_command_line("a rd.remap=0 b").disabled);
    CHECK_FALSE(remap::parse_command_line("rd.remap=01").disabled);
    CHECK(remap::parse_command_line("rd.remap.uuid=xyz").problems.size() == 1);
}

TEST_CASE("remaptab: of updates at the same time none is lost", "[remaptab]") {
    const Folder folder;
    const std::string file = folder.file("remaptab");
    constexpr unsigned int writers = 8;
    constexpr unsigned int each = 10;
    std::vector<std::thread> threads;

    for (unsigned int w = 0; w < writers; w++) {
        threads.emplace_back([&file, w] {
            for (unsigned int i = 0; i < each; i++) {
                remap::update_remaptab(file, [&](remap::Remaptab& tab) {
                    tab.add({remap::cat("set-", w, "-", i), remap::Uuid::random(), {}});
                    return true;
                });
            }
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    CHECK(remap::Remaptab::load(file).entries().size() == writers * each);
}
