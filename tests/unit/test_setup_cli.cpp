// SPDX-License-Identifier: GPL-2.0-or-later
//
// remapsetup as a program, on image files: exit codes, refusals, and that a real file system
// comes through adoption and release byte for byte.
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "libremap/crc.hpp"
#include "libremap/release.hpp"
#include "scratch.hpp"
#include "set_fixture.hpp"

namespace {

constexpr std::uintmax_t mib = 1U << 20;

scratch::Result setup(std::vector<std::string> words) {
    words.insert(words.begin(), std::string(REMAP_BIN_DIR) + "/remapsetup");
    return scratch::run(words);
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// A main with ext4 and a spare, as image files.
struct Images {
    explicit Images(bool with_ext = true) : main(folder.file("main")), spare(folder.file("spare")) {
        scratch::make_image(main, 24 * mib);
        scratch::make_image(spare, 4 * mib);
        if (with_ext) {
            const std::string tree = folder.file("tree");
            std::filesystem::create_directory(tree);
            scratch::spill(tree + "/file", std::string(300000, 'x'));
            REQUIRE(scratch::run({"mkfs.ext4", "-q", "-F", "-L", "root", "-d", tree, main}).code ==
                    0);
        }
        original = scratch::slurp(main);
    }

    scratch::Result format(std::vector<std::string> more = {}) const {
        std::vector<std::string> words = {"format", "--yes", "--rescue-file",
                                          folder.file("rescue")};
        words.insert(words.end(), more.begin(), more.end());
        words.push_back(main);
        words.push_back(spare);
        return setup(words);
    }

    fixture::Pair pair() const {
        const std::string m = scratch::slurp(main);
        const std::string s = scratch::slurp(spare);
        return {{m.begin(), m.end()}, {s.begin(), s.end()}, 512};
    }

    scratch::Folder folder;
    std::string main;
    std::string spare;
    std::string original;
};

bool shows_nothing(const std::string& image) {
    return scratch::run({"blkid", "-p", image}).code == 2 &&
           scratch::run({"wipefs", "--no-act", image}).out.empty();
}

}  // namespace

TEST_CASE(
    "An adopted ext4 is invisible on both members, whole in the composed view, and comes "
    "back byte for byte",
    "[cli]") {
    for (const char* block_size : {"512", "4096"}) {
        const Images images;
        const auto formatted = images.format({"--label", "root", "--block-size", block_size});
        INFO(formatted.err);
        REQUIRE(formatted.code == 0);
        CHECK(formatted.err.empty());
        CHECK(shows_nothing(images.main));
        CHECK(shows_nothing(images.spare));

        const auto view = fixture::composed_view(images.pair());
        REQUIRE(view);
        const std::string shown(view->begin(), view->end());
        CHECK(shown == images.original);
        scratch::spill(images.folder.file("view"), shown);
        CHECK(scratch::run({"e2fsck", "-fn", images.folder.file("view")}).code == 0);
        CHECK(scratch::run({std::string(REMAP_BIN_DIR) + "/remap-fsck", "-n", "--main", images.main,
                            images.spare})
                  .code == 0);

        const auto released = setup({"release", "--yes", "--main", images.main, images.spare});
        INFO(released.err);
        REQUIRE(released.code == 0);
        CHECK(scratch::slurp(images.main) == images.original);
        CHECK(setup({"probe", images.main}).code == 2);
        CHECK(setup({"probe", images.spare}).code == 2);
    }
}

TEST_CASE("An adopted empty main is recognised, and both members tell of each other", "[cli]") {
    const Images images(false);
    REQUIRE(images.format().code == 0);
    const auto main = setup({"probe", "--udev", images.main});
    const auto spare = setup({"probe", "--udev", images.spare});
    CHECK(main.code == 0);
    CHECK(spare.code == 0);
    CHECK(contains(main.out, "ID_REMAP_ROLE=main\n"));
    CHECK(contains(spare.out, "ID_REMAP_ROLE=spare\n"));
    const auto set_of = [](const std::string& text) {
        const auto at = text.find("ID_REMAP_SET=");
        return text.substr(at, text.find('\n', at) - at);
    };
    CHECK(set_of(main.out) == set_of(spare.out));
    CHECK(shows_nothing(images.main));
}

TEST_CASE("mkfs on the composed view of an empty main leaves nothing to see on the raw main",
          "[cli]") {
    const Images images(false);
    REQUIRE(images.format().code == 0);
    auto pair = images.pair();
    // mkfs.ext4 runs on the view; what it wrote to hidden blocks goes to their slots, the rest to
    // the main, as the target does.
    const auto view = fixture::composed_view(pair);
    REQUIRE(view);
    const std::string file = images.folder.file("view");
    scratch::spill(file, std::string(view->begin(), view->end()));
    REQUIRE(scratch::run({"mkfs.ext4", "-q", "-F", file}).code == 0);
    const std::string made = scratch::slurp(file);
    remap::MemoryIo spare("spare", pair.spare);
    const auto superblock = remap::load_superblock(spare);
    for (std::uint64_t block = 0; block < superblock.main_blocks(); ++block) {
        if (!superblock.block_hidden(block)) {
            std::copy_n(made.begin() + static_cast<std::ptrdiff_t>(block * 512), 512,
                        pair.main.begin() + static_cast<std::ptrdiff_t>(block * 512));
        }
    }
    scratch::spill(images.main, std::string(pair.main.begin(), pair.main.end()));
    CHECK(shows_nothing(images.main));
    CHECK(setup({"probe", images.main}).code == 0);
}

TEST_CASE("Without --yes and without a terminal nothing is displaced", "[cli]") {
    const Images images;
    const auto refused = setup({"format", images.main, images.spare});
    CHECK(refused.code == 16);
    CHECK(contains(refused.err, "everything on it will be lost"));
    CHECK(contains(refused.err, "ext4 (label root"));
    CHECK(contains(refused.err, "--yes"));
    CHECK(scratch::slurp(images.main) == images.original);

    REQUIRE(images.format().code == 0);
    const std::string adopted = scratch::slurp(images.main);
    const auto kept = setup({"release", "--main", images.main, images.spare});
    CHECK(kept.code == 16);
    CHECK(scratch::slurp(images.main) == adopted);
}

TEST_CASE("A label with control characters is refused", "[cli]") {
    const Images images;
    for (const char* label : {"a\x7f", "a\xc2\x9b", "a\n"}) {
        CHECK(images.format({"--label", label}).code == 16);
    }
    CHECK(images.format({"--label", "gr\xc3\xbc\xc3\x9f"}).code == 0);
}

TEST_CASE("A spare that holds something is refused by name, unless --force", "[cli]") {
    const Images images;
    REQUIRE(scratch::run({"mkfs.ext2", "-q", "-F", "-L", "precious", images.spare}).code == 0);
    const std::string before = scratch::slurp(images.spare);
    const auto refused = images.format();
    CHECK(refused.code == 16);
    CHECK(contains(refused.err, "ext2 (label precious"));
    CHECK(contains(refused.err, "--force"));
    CHECK(scratch::slurp(images.spare) == before);
    CHECK(scratch::slurp(images.main) == images.original);

    REQUIRE(images.format({"--force"}).code == 0);
    CHECK(shows_nothing(images.spare));
    CHECK(fixture::composed_view(images.pair()));
}

TEST_CASE("Members of a set are not taken for another one", "[cli]") {
    const Images first;
    const Images second;
    REQUIRE(first.format({"--label", "one"}).code == 0);
    const std::string rescue = second.folder.file("rescue");
    const auto taken =
        setup({"format", "--yes", "--rescue-file", rescue, second.main, first.spare});
    CHECK(taken.code == 16);
    CHECK(contains(taken.err, "the spare of set"));
    CHECK(contains(taken.err, "(one)"));
    const auto adopted =
        setup({"format", "--yes", "--rescue-file", rescue, first.main, second.spare});
    CHECK(adopted.code == 16);
    CHECK(contains(adopted.err, "the main of set"));

    // Not even by force: the labels are no payload.
    const std::string before = scratch::slurp(first.main);
    for (const std::string& spare : {first.spare, second.spare}) {
        const std::string spare_before = scratch::slurp(spare);
        const auto forced =
            setup({"format", "--yes", "--force", "--rescue-file", rescue, first.main, spare});
        CHECK(forced.code == 16);
        CHECK(contains(forced.err, "release it first"));
        CHECK(scratch::slurp(first.main) == before);
        CHECK(scratch::slurp(spare) == spare_before);
    }

    // The copies between the ends are enough to be known by.
    std::string damaged = scratch::slurp(first.spare);
    std::fill_n(damaged.begin(), 8192, '\0');
    std::fill_n(damaged.end() - 8192, 8192, '\0');
    scratch::spill(first.spare, damaged);
    const auto half = setup({"format", "--yes", "--rescue-file", rescue, second.main, first.spare});
    CHECK(half.code == 16);
    CHECK(contains(half.err, "is the spare of set"));
    CHECK(scratch::slurp(first.spare) == damaged);
}

TEST_CASE("Payloads that cannot be adopted are refused by name, with both devices untouched",
          "[cli]") {
    struct Case {
        std::vector<std::string> make;
        const char* said;
    };
    const std::vector<Case> cases = {
        {{"mkfs.minix"}, "minix"},
        {{"mkfs.ext4", "-q", "-F", "-O", "journal_dev"}, "jbd"},
    };
    for (const Case& c : cases) {
        const Images images(false);
        std::vector<std::string> make = c.make;
        make.push_back(images.main);
        REQUIRE(scratch::run(make).code == 0);
        const std::string before = scratch::slurp(images.main);
        const auto refused = images.format();
        CHECK(refused.code == 2);
        CHECK(contains(refused.err, c.said));
        CHECK(scratch::slurp(images.main) == before);
    }
}

namespace {

/// A DOS table with one partition, of 16 MiB at 1 MiB.
void put_dos_table(std::string& disk, char type) {
    std::string entry("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x80\x00\x00", 16);
    entry[4] = type;
    disk.replace(446, entry.size(), entry);
    disk.replace(510, 2, "\x55\xaa");
}

/// An empty GUID partition table (UEFI Specification, 5.3), the first of its two copies.
void put_gpt(std::string& disk) {
    constexpr std::uint32_t header_size = 92;
    constexpr std::uint32_t entries = 128;
    constexpr std::uint32_t entry_size = 128;
    put_dos_table(disk, '\xee');
    std::vector<std::uint8_t> header(header_size);
    const auto put = [&header](std::size_t at, std::uint64_t value, std::size_t bytes) {
        for (std::size_t i = 0; i < bytes; ++i) {
            header[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
        }
    };
    const std::uint64_t last = disk.size() / 512 - 1;
    const std::string magic = "EFI PART";
    std::copy(magic.begin(), magic.end(), header.begin());
    put(8, 0x10000, 4);
    put(12, header_size, 4);
    put(24, 1, 8);             // where this header is
    put(32, last, 8);          // and its copy
    put(40, 34, 8);            // the first sector for partitions
    put(48, last - 33, 8);     // and the last
    put(56, 0x0123456789, 8);  // part of the disk's GUID
    put(72, 2, 8);
    put(80, entries, 4);
    put(84, entry_size, 4);
    put(88, remap::crc_of(std::vector<std::uint8_t>(entries * entry_size)), 4);
    put(16, remap::crc_of(header), 4);
    disk.replace(512, header_size, std::string(header.begin(), header.end()));
}

}  // namespace

TEST_CASE("A partition table is refused with what to do instead", "[cli]") {
    const Images images(false);
    std::string dos = images.original;
    put_dos_table(dos, '\x83');
    std::string gpt = images.original;
    put_gpt(gpt);
    for (const auto& [disk, name] : {std::pair(dos, "dos"), std::pair(gpt, "gpt")}) {
        scratch::spill(images.main, disk);
        const auto refused = images.format();
        INFO(refused.err);
        CHECK(refused.code == 2);
        CHECK(contains(refused.err, std::string("partition table ") + name));
        CHECK(contains(refused.err, "adopt its partitions"));
        CHECK(scratch::slurp(images.main) == disk);
    }
}

TEST_CASE("Data that is not recognised is adopted by force only, and comes back", "[cli]") {
    const Images images(false);
    std::string data = images.original;
    data.replace(70000, 5, "hello");
    scratch::spill(images.main, data);
    const auto refused = images.format();
    CHECK(refused.code == 2);
    CHECK(contains(refused.err, "the first of it at byte 70000"));
    REQUIRE(images.format({"--force"}).code == 0);
    REQUIRE(setup({"release", "--yes", "--main", images.main, images.spare}).code == 0);
    CHECK(scratch::slurp(images.main) == data);
}

TEST_CASE("A rescue file is never overwritten", "[cli]") {
    const Images images;
    scratch::spill(images.folder.file("rescue"), "mine");
    const auto refused = images.format();
    CHECK(refused.code == 16);
    CHECK(contains(refused.err, "exists already"));
    CHECK(scratch::slurp(images.folder.file("rescue")) == "mine");
    CHECK(scratch::slurp(images.main) == images.original);
    CHECK(setup({"format", "--yes", "--rescue-file", "none", images.main, images.spare}).code == 0);
}

TEST_CASE("The set is listed in the remaptab that was named, and unlisted by release", "[cli]") {
    const Images images;
    const std::string tab = images.folder.file("tab");
    REQUIRE(images.format({"--label", "root", "--remaptab", tab}).code == 0);
    CHECK(scratch::slurp(tab).substr(0, 10) == "root UUID=");
    REQUIRE(
        setup({"release", "--yes", "--remaptab", tab, "--main", images.main, images.spare}).code ==
        0);
    CHECK(scratch::slurp(tab).empty());

    // A name that is taken is refused before anything is changed.
    scratch::spill(tab, "root UUID=11111111-2222-3333-4444-555555555555 -\n");
    std::filesystem::remove(images.folder.file("rescue"));
    const auto refused = images.format({"--label", "root", "--remaptab", tab});
    CHECK(refused.code == 16);
    CHECK(contains(refused.err, "already stands for set 11111111"));
    CHECK(scratch::slurp(images.main) == images.original);
}

TEST_CASE("A dry run says what would be done and changes nothing", "[cli]") {
    const Images images;
    const auto said = images.format({"--dry-run"});
    INFO(said.err);
    CHECK(said.code == 0);
    CHECK(contains(said.out, "ext4 (label root"));
    CHECK(contains(said.out, "everything on it will be lost"));
    CHECK(scratch::slurp(images.main) == images.original);
    CHECK(scratch::slurp(images.spare) == std::string(4 * mib, '\0'));
    CHECK_FALSE(std::filesystem::exists(images.folder.file("rescue")));
    // What would be refused is refused.
    const std::string small = images.folder.file("small");
    scratch::make_image(small, 4096);
    CHECK(setup({"format", "-n", images.main, small}).code == 16);
}

TEST_CASE("A set that is listed before it exists keeps its line", "[cli]") {
    const Images images;
    const std::string tab = images.folder.file("tab");
    const std::string line = "root UUID=01234567-89ab-cdef-0123-456789abcdef fua\n";
    scratch::spill(tab, line);
    const std::vector<std::string> set = {"--remaptab", tab, "--uuid",
                                          "01234567-89ab-cdef-0123-456789abcdef"};
    auto other = set;
    other.insert(other.end(), {"--label", "other"});
    const auto refused = images.format(other);
    CHECK(refused.code == 16);
    CHECK(contains(refused.err, "is listed as root already"));
    auto same = set;
    same.insert(same.end(), {"--label", "root"});
    const auto formatted = images.format(same);
    INFO(formatted.err);
    CHECK(formatted.code == 0);
    CHECK(scratch::slurp(tab) == line);
}

TEST_CASE("Release to another disk leaves the file system there, and the set as it was", "[cli]") {
    const Images images;
    const std::string tab = images.folder.file("tab");
    REQUIRE(images.format({"--remaptab", tab, "--label", "root"}).code == 0);
    const std::string main = scratch::slurp(images.main);
    const std::string spare = scratch::slurp(images.spare);
    const std::string target = images.folder.file("target");
    const std::vector<std::string> words = {
        "release", "--yes", "--to", target, "--main", images.main, "--remaptab", tab, images.spare};

    scratch::make_image(target, 23 * mib);
    const auto small = setup(words);
    CHECK(small.code == 16);
    CHECK(contains(small.err, "expected at least 49152 sectors, found 47104"));
    CHECK(scratch::slurp(tab).find("root") != std::string::npos);

    scratch::make_image(target, 30 * mib);
    REQUIRE(scratch::run({"mkfs.ext2", "-q", "-F", target}).code == 0);
    const auto full = setup(words);
    CHECK(full.code == 16);
    CHECK(contains(full.err, "holds ext2"));
    auto forced = words;
    forced.insert(forced.begin() + 1, "--force");
    const auto copied = setup(forced);
    INFO(copied.err);
    REQUIRE(copied.code == 0);
    CHECK(contains(copied.out, target));
    CHECK(scratch::slurp(target).substr(0, images.original.size()) == images.original);
    CHECK(scratch::run({"e2fsck", "-fn", target}).code == 0);
    CHECK(scratch::slurp(images.main) == main);
    CHECK(scratch::slurp(images.spare) == spare);
    CHECK(scratch::slurp(tab).find("root") == std::string::npos);
    CHECK(scratch::run({std::string(REMAP_BIN_DIR) + "/remap-fsck", "-n", "--main", images.main,
                        images.spare})
              .code == 0);

    for (const std::string& own : {images.main, images.spare}) {
        const auto refused = setup(
            {"release", "--yes", "--force", "--to", own, "--main", images.main, images.spare});
        CHECK(refused.code == 16);
        CHECK(contains(refused.err, "a member of the set; --to wants another disk"));
    }
    CHECK(setup({"release", "--yes", "--force", "--main", images.main, images.spare}).code == 16);
    CHECK(scratch::slurp(images.main) == main);
    CHECK(scratch::slurp(images.spare) == spare);
}

namespace {

struct Ends {
    std::size_t without = 0;  ///< the main alone, as it was or is to be
    std::size_t complete = 0;
};

/// Cuts `log` at every flush and lets remap-fsck -p end what is left: always with a set that shows
/// `shown`, or with none and a main that holds it.
Ends end_each(const fixture::Pair& before, const std::vector<fixture::Event>& log,
              const fixture::Image& shown) {
    const scratch::Folder folder;
    const std::string main = folder.file("main");
    const std::string spare = folder.file("spare");
    const auto save = [](const std::string& file, const fixture::Image& image) {
        scratch::spill(file, std::string(image.begin(), image.end()));
    };
    fixture::Pair state = before;
    Ends ends;
    for (const fixture::Event& event : log) {
        if (!event.flush) {
            fixture::apply(state, event, event.data.size());
            continue;
        }
        if (!fixture::has_set(state)) {
            continue;
        }
        save(main, state.main);
        save(spare, state.spare);
        const bool complete = fixture::composed_view(state).has_value();
        const auto fsck =
            scratch::run({std::string(REMAP_BIN_DIR) + "/remap-fsck", "-p", "--main", main, spare});
        INFO(fsck.out << fsck.err);
        CHECK((fsck.code == 1 || (complete && fsck.code == 0)));
        const std::string m = scratch::slurp(main);
        const std::string s = scratch::slurp(spare);
        const fixture::Pair after{{m.begin(), m.end()}, {s.begin(), s.end()}, 512};
        if (fixture::has_set(after)) {
            const auto view = fixture::composed_view(after);
            REQUIRE(view);
            CHECK(*view == shown);
            ++ends.complete;
        } else {
            CHECK(after.main == shown);
            ++ends.without;
        }
    }
    return ends;
}

}  // namespace

TEST_CASE(
    "remap-fsck -p ends what a power cut left of an adoption or a release, one way or the other",
    "[cli]") {
    const fixture::Pair before{fixture::random_image(fixture::main_sectors, 11),
                               fixture::Image(fixture::spare_sectors * 512), 512};
    const fixture::Job adoption = [](remap::BlockIo& main, remap::BlockIo& spare) {
        const auto superblock =
            fixture::adopt_now(main, spare, fixture::ext_payload(), 512).superblock;
        fixture::remap_some(spare, superblock);
    };
    const Ends adopted =
        end_each(before,
                 fixture::record(before,
                                 [](remap::BlockIo& main, remap::BlockIo& spare) {
                                     fixture::adopt_now(main, spare, fixture::ext_payload(), 512);
                                 }),
                 before.main);
    CHECK(adopted.without > 2);
    CHECK(adopted.complete > 2);

    const fixture::Pair set = fixture::run(before, adoption);
    const Ends released =
        end_each(set,
                 fixture::record(set,
                                 [](remap::BlockIo& main, remap::BlockIo& spare) {
                                     remap::Observer quiet;
                                     remap::release_set(main, spare, false, quiet);
                                 }),
                 *fixture::composed_view(set));
    CHECK(released.without > 0);
    CHECK(released.complete > 2);
}

TEST_CASE("Wrong use exits with 16, missing and unsuitable files with what was found", "[cli]") {
    const Images images;
    struct Case {
        std::vector<std::string> words;
        int code;
        const char* said;
    };
    const std::string& main = images.main;
    const std::string& spare = images.spare;
    const std::string label(65, 'x');
    const std::string tiny = images.folder.file("tiny");
    scratch::make_image(tiny, 4096);
    const std::string folder = images.folder.path().string();
    const std::vector<Case> cases = {
        {{}, 16, "subcommand"},
        {{"explode"}, 16, "explode"},
        {{"format", "--yes", main}, 16, "SPARE"},
        {{"format", "--bogus", main, spare}, 16, "--bogus"},
        {{"format", "--yes", "--block-size", "1024", main, spare}, 16, "1024"},
        {{"format", "--yes", "--label", label, main, spare}, 16, "65 bytes"},
        {{"format", "--yes", "--label", "a\nb", main, spare}, 16, "--label"},
        {{"format", "--yes", main, main}, 16, "the same device"},
        {{"format", "--yes", main, "/nonexistent"}, 8, "/nonexistent: cannot open"},
        {{"format", "--yes", main, folder}, 8, "a directory"},
        {{"format", "--yes", "--rescue-file", "none", main, tiny}, 16, "tiny: too small"},
        {{"format", "--yes", "--rescue-file", "none", tiny, spare}, 16, "tiny: too small"},
        {{"open", spare}, 16, "SPARE and NAME"},
        {{"open", "--all", spare}, 16, "--all"},
        {{"open", spare, "x/y"}, 16, "not a valid device name"},
        {{"open", spare, "name"}, 16, "losetup"},
        {{"release", "--yes", spare}, 2, "superblock"},
        {{"probe", spare}, 2, "not a member"},
        {{"probe", "/nonexistent"}, 8, "cannot open"},
        {{"close", "no-such-device"}, 2, "no-such-device"},
        {{"status", "no-such-device"}, 2, "no-such-device"},
    };
    for (const Case& c : cases) {
        const auto result = setup(c.words);
        INFO((c.words.empty() ? "" : c.words[0]) << ": " << result.err);
        CHECK(result.code == c.code);
        CHECK(result.out.empty());
        CHECK(contains(result.err, c.said));
    }
    CHECK(scratch::slurp(main) == images.original);
}

TEST_CASE("Help shows examples, the version is one line, JSON is JSON", "[cli]") {
    const auto help = setup({"--help"});
    CHECK(help.code == 0);
    CHECK(contains(help.out, "Examples:"));
    CHECK(contains(help.out, "release"));
    CHECK(setup({"--version"}).out.rfind("remapsetup ", 0) == 0);
    const Images images;
    const auto list = setup({"list", "--json", "--remaptab", images.folder.file("none")});
    CHECK(list.code == 0);
    CHECK(nlohmann::json::parse(list.out).contains("sets"));
    const auto status = setup({"status", "--json"});
    CHECK(status.code == 0);
    CHECK(nlohmann::json::parse(status.out).contains("devices"));
}

TEST_CASE("Output that cannot be written is noticed", "[cli]") {
    const Images images;
    REQUIRE(images.format().code == 0);
    const std::string tool = REMAP_BIN_DIR "/remapsetup ";

    for (const std::string& verb :
         {std::string("list"), std::string("list --json"), std::string("status --json"),
          "probe " + images.spare, "probe --udev " + images.main}) {
        CAPTURE(verb);
        REQUIRE_FALSE(scratch::run({"sh", "-c", tool + verb}).out.empty());
        const auto full = scratch::run({"sh", "-c", tool + verb + " >/dev/full"});
        CHECK(full.code == 8);
        CHECK(contains(full.err, "No space left"));
    }
}

TEST_CASE("Without any known set open --all says so and succeeds", "[cli]") {
    const scratch::Folder folder;
    const auto all = setup({"open", "--all", "--remaptab", folder.file("none")});
    CHECK(all.code == 0);
    CHECK(contains(all.err, "nothing is opened"));
    CHECK(setup({"open", "--all", "--quiet", "--remaptab", folder.file("none")}).err.empty());

    scratch::spill(folder.file("tab"), "root UUID=11111111-2222-3333-4444-555555555555 -\n");
    const auto missing = setup({"open", "--all", "--remaptab", folder.file("tab")});
    CHECK(missing.code == 1);
    CHECK(
        contains(missing.err, "the spare of set 11111111-2222-3333-4444-555555555555 is missing"));
    const auto quiet = setup({"open", "--all", "--quiet", "--remaptab", folder.file("tab")});
    CHECK(quiet.code == 1);
    CHECK(quiet.err.empty());
}
