// SPDX-License-Identifier: GPL-2.0-or-later
//
// Rescue of a main whose spare is gone: from the rescue file, at any instant of a power cut; or the
// payload's own backups are named, with commands that work.
#include <cstring>

#include "catch.hpp"
#include "libremap/backups.hpp"
#include "libremap/error.hpp"
#include "libremap/payload.hpp"
#include "libremap/probe.hpp"
#include "libremap/rescue.hpp"
#include "scratch.hpp"
#include "set_fixture.hpp"

namespace {

namespace fs = std::filesystem;

using fixture::Image;
using fixture::Pair;

constexpr std::uintmax_t mib = 1U << 20;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

scratch::Result setup(std::vector<std::string> words) {
    words.insert(words.begin(), std::string(REMAP_BIN_DIR) + "/remapsetup");
    return scratch::run(words);
}

/// A LUKS2 header with its replica, or ext, as far as adoption cares.
remap::Payload luks_payload() {
    return {remap::PayloadKind::known, "LUKS2", 0, {{0, 6}, {0x4000, 512}}, {{0x4000, 512}}};
}

Image luks_image() {
    Image image = fixture::random_image(fixture::main_sectors, 6);
    const std::uint8_t size[8] = {0, 0, 0, 0, 0, 0, 0x40, 0};
    std::memcpy(image.data(), "LUKS\xba\xbe\0\2", 8);
    std::memcpy(image.data() + 8, size, sizeof(size));
    return image;
}

/// An adopted main, and the rescue file that was made of it.
struct Adopted {
    Adopted(const Image& image, const remap::Payload& payload, std::uint32_t block)
        : original(image) {
        remap::MemoryIo device("main", image, block);
        remap::MemoryIo spare("spare", fixture::random_image(fixture::spare_sectors, 2), block);
        remap::Observer quiet;
        const auto plan = remap::plan_adoption(device, spare, fixture::request_for(payload, block));
        remap::adopt(
            device, spare, plan,
            [this](const remap::Superblock& superblock, const remap::HiddenContent& content) {
                file = {superblock, content};
            },
            quiet);
        main = {device.content(), Image(512), block};
    }
    Image original;
    remap::RescueFile file;
    Pair main;  ///< with nothing for a spare
};

void rescue(remap::BlockIo& main, const remap::RescueFile& file) {
    remap::Observer quiet;
    remap::restore_hidden(main, file, remap::plan_rescue(main, file), quiet);
}

std::string refusal(remap::BlockIo& main, const remap::RescueFile& file) {
    try {
        rescue(main, file);
        return "";
    } catch (const remap::Error& error) {
        return error.what();
    }
}

struct Case {
    const char* name;
    Image image;
    remap::Payload payload;
    std::uint32_t block;
};

std::vector<Case> cases() {
    return {
        {"ext, 512", fixture::random_image(fixture::main_sectors, 1), fixture::ext_payload(), 512},
        {"ext, 4096", fixture::random_image(fixture::main_sectors, 1), fixture::ext_payload(),
         4096},
        {"LUKS2, 512", luks_image(), luks_payload(), 512}};
}

}  // namespace

TEST_CASE("Rescue puts the hidden blocks back as the file has them", "[rescue]") {
    for (const Case& c : cases()) {
        const Adopted set(c.image, c.payload, c.block);
        remap::MemoryIo main("main", set.main.main, c.block);
        REQUIRE(main.content() != set.original);
        rescue(main, set.file);
        CHECK(main.content() == set.original);
        // Once more changes nothing and is no error.
        rescue(main, set.file);
        CHECK(main.content() == set.original);
    }
}

TEST_CASE("A power cut at any write of a rescue leaves nothing to be seen or all of the payload",
          "[rescue][crash]") {
    for (const Case& c : cases()) {
        const Adopted set(c.image, c.payload, c.block);
        const auto log = fixture::record(
            set.main, [&](remap::BlockIo& main, remap::BlockIo&) { rescue(main, set.file); });
        remap::Superblock superblock = set.file.superblock;
        std::set<std::uint64_t> replicas;
        for (const auto& range : c.payload.replicas) {
            remap::hide_bytes(superblock, replicas, range);
        }
        std::size_t states = 0;
        std::size_t decided = 0;
        std::size_t wrong = 0;
        std::size_t early = 0;
        std::size_t stuck = 0;
        fixture::each_crash(set.main, log, [&](const Pair& crashed) {
            ++states;
            remap::MemoryIo main("main", crashed.main, c.block);
            remap::MainBlocks blocks(main, superblock.block_sectors());
            const bool label =
                remap::look_at_place(blocks, superblock, remap::deciding_block(superblock)) ==
                remap::Place::ours;
            for (const std::uint64_t block : remap::hidden_blocks_of(superblock)) {
                const bool ours =
                    remap::look_at_place(blocks, superblock, block) == remap::Place::ours;
                // Before it is decided no replica shows; after it only replicas are missing.
                early += label && replicas.count(block) != 0 && !ours ? 1 : 0;
                wrong += !label && replicas.count(block) == 0 && ours ? 1 : 0;
            }
            decided += label ? 0 : 1;
            if (states % 3 == 0) {
                rescue(main, set.file);
                stuck += main.content() == set.original ? 0 : 1;
            }
        });
        INFO(c.name << ": " << states << " states, " << decided << " decided");
        CHECK(early == 0);
        CHECK(wrong == 0);
        CHECK(stuck == 0);
        CHECK(decided > 0);
        CHECK(states > 50);
    }
}

TEST_CASE("Rescue refuses a device that is not the main of the file's set", "[rescue]") {
    const Adopted set(fixture::random_image(fixture::main_sectors, 1), fixture::ext_payload(), 512);
    const Adopted other(fixture::random_image(fixture::main_sectors, 7), fixture::ext_payload(),
                        512);
    const auto refused = [&](const Image& image, const char* why, std::uint32_t block = 512) {
        remap::MemoryIo main("main", image, block);
        const std::string text = refusal(main, set.file);
        INFO(text);
        CHECK(contains(text, why));
        CHECK(main.content() == image);
    };
    refused(other.main.main, "carries no label of set");
    refused(Image(fixture::main_sectors * 512), "carries no label of set");
    refused(fixture::random_image(fixture::main_sectors, 1), "");
    Image small = set.main.main;
    small.resize(small.size() - 4096);
    refused(small, "expected 2048 sectors, found 2040");
    refused(set.main.main, "expected logical blocks of at most 512 bytes, found 4096", 4096);
    // Somebody has made a file system on the raw main, which left labels standing.
    Image overwritten = set.main.main;
    std::fill_n(overwritten.begin() + 1024, 512, std::uint8_t{0x5a});
    refused(overwritten, "expected the label of set");
}

TEST_CASE(
    "Rescue leaves alone what is neither ours nor the file's, and names what cannot be written",
    "[rescue]") {
    const Adopted set(fixture::random_image(fixture::main_sectors, 1), fixture::ext_payload(), 512);
    Image image = set.main.main;
    std::fill_n(image.begin() + 50 * 512, 512, std::uint8_t{0x5a});
    remap::MemoryIo main("main", image);
    remap::FaultIo bad(main);
    bad.bad_writes = {60};
    const auto plan = remap::plan_rescue(bad, set.file);
    CHECK(plan.other == std::set<std::uint64_t>{50});
    remap::Observer quiet;
    // A write of several blocks that fails is no reason to give up those beside it.
    CHECK(remap::restore_hidden(bad, set.file, plan, quiet) == std::set<std::uint64_t>{60});
    Image expected = set.original;
    std::fill_n(expected.begin() + 50 * 512, 512, std::uint8_t{0x5a});
    std::copy_n(image.begin() + 60 * 512, 512, expected.begin() + 60 * 512);
    CHECK(main.content() == expected);

    // The deciding sector.
    remap::MemoryIo second("main", set.main.main);
    remap::FaultIo worse(second);
    worse.bad_writes = {2};
    const std::string text = refusal(worse, set.file);
    CHECK(contains(text, "sector 2: cannot be written"));
    CHECK(contains(text, "ddrescue"));
}

TEST_CASE("Unreadable places are restored by writing them, lost ones become zeroes", "[rescue]") {
    const Image image = fixture::random_image(fixture::main_sectors, 1);
    remap::MemoryIo device("main", image);
    remap::FaultIo failing(device);
    failing.bad_reads = {70};
    remap::MemoryIo spare("spare", fixture::random_image(fixture::spare_sectors, 2));
    remap::RescueFile file;
    remap::Observer quiet;
    const auto plan =
        remap::plan_adoption(failing, spare, fixture::request_for(fixture::ext_payload(), 512));
    remap::adopt(
        failing, spare, plan,
        [&](const remap::Superblock& superblock, const remap::HiddenContent& content) {
            file = {superblock, content};
        },
        quiet);
    CHECK(file.content.lost == std::set<std::uint64_t>{70});
    failing.bad_reads = {90};
    const auto restored = remap::plan_rescue(failing, file);
    CHECK(restored.to_restore.count(90) != 0);
    failing.bad_reads.clear();
    remap::restore_hidden(failing, file, restored, quiet);
    Image expected = image;
    std::fill_n(expected.begin() + 70 * 512, 512, std::uint8_t{0});
    CHECK(device.content() == expected);
}

TEST_CASE("remapsetup rescue: shows first, restores with --write, and says what to run",
          "[rescue]") {
    const scratch::Folder folder;
    const std::string main = folder.file("main");
    const std::string spare = folder.file("spare");
    const std::string file = folder.file("rescue");
    scratch::make_image(main, 24 * mib);
    scratch::make_image(spare, 4 * mib);
    REQUIRE(scratch::run({"mkfs.ext4", "-q", "-F", main}).code == 0);
    const std::string original = scratch::slurp(main);
    REQUIRE(setup({"format", "--yes", "--rescue-file", file, main, spare}).code == 0);
    const std::string adopted = scratch::slurp(main);
    fs::remove(spare);

    const auto shown = setup({"rescue", "--rescue-file", file, main});
    INFO(shown.err);
    CHECK(shown.code == 0);
    CHECK(contains(shown.out, "Nothing was changed; --write restores it."));
    CHECK(contains(shown.out, "KiB that were hidden are to be restored as they were on 20"));
    CHECK(scratch::slurp(main) == adopted);

    const auto done = setup({"rescue", "--write", "--rescue-file", file, main});
    INFO(done.err);
    CHECK(done.code == 0);
    CHECK(contains(done.out, "e2fsck -f " + main));
    CHECK(scratch::slurp(main) == original);

    CHECK(setup({"rescue", "--write", main}).code == 16);
    CHECK(setup({"rescue", main}).code == 2);
    CHECK(setup({"rescue", "--rescue-file", folder.file("none"), main}).code == 8);
    scratch::spill(file, "damaged");
    CHECK(setup({"rescue", "--rescue-file", file, main}).code == 2);
}

TEST_CASE(
    "remapsetup rescue: without a file the payload's own backups are named, and bring it back",
    "[rescue]") {
    struct Row {
        const char* size;
        std::vector<std::string> make;
        const char* found;
        std::vector<std::string> extra;  ///< put behind the command's first word
        std::vector<std::string> check;
    };
    const Row rows[] = {
        {"300M",
         {"mkfs.ext4", "-q", "-F", "-b", "4096"},
         "backup superblock in block 32768 of 4096",
         {"-y"},
         {"e2fsck", "-fn"}},
        {"40M",
         {"mkfs.ext4", "-q", "-F", "-b", "1024"},
         "backup superblock in block 8193 of 1024",
         {"-y"},
         {"e2fsck", "-fn"}},
        // An XFS without a file is not worth a root directory: xfs_repair stops at the end.
        {"320M", {"mkfs.xfs", "-q", "-f"}, "XFS (UUID ", {}, {}},
        {"120M", {"mkfs.btrfs", "-q", "-f"}, "Btrfs (UUID ", {}, {"btrfs", "check", "-q"}},
    };
    for (const Row& row : rows) {
        const scratch::Folder folder;
        const std::string main = folder.file("main");
        const std::string spare = folder.file("spare");
        REQUIRE(scratch::run({"truncate", "-s", row.size, main}).code == 0);
        scratch::make_image(spare, 4 * mib);
        auto make = row.make;
        make.push_back(main);
        const auto made = scratch::run(make);
        INFO(row.make.front() << ": " << made.err);
        REQUIRE(made.code == 0);
        REQUIRE(setup({"format", "--yes", "--rescue-file", "none", main, spare}).code == 0);
        fs::remove(spare);
        const auto said = setup({"rescue", main});
        INFO(said.out << said.err);
        CHECK(said.code == 0);
        CHECK(contains(said.out, row.found));
        // What it says is run as it says.
        std::istringstream in(said.out);
        for (std::string line; std::getline(in, line);) {
            if (line.compare(0, 4, "    ") != 0) {
                continue;
            }
            std::istringstream parts(line);
            std::vector<std::string> command{std::istream_iterator<std::string>(parts),
                                             std::istream_iterator<std::string>()};
            command.insert(command.begin() + 1, row.extra.begin(), row.extra.end());
            const auto ran = scratch::run(command);
            INFO(line << "\n" << ran.out << ran.err);
            CHECK(ran.code >= 0);
            CHECK(ran.code < 4);
            if (command.front() == "xfs_repair") {
                CHECK(contains(ran.err + ran.out, "verified secondary superblock"));
            }
        }
        if (row.check.empty()) {
            continue;
        }
        auto check = row.check;
        check.push_back(main);
        const auto checked = scratch::run(check);
        INFO(checked.out << checked.err);
        CHECK(checked.code == 0);
    }
}

TEST_CASE("Rescue: LVM's own backups are found by the size of the device", "[rescue]") {
    const scratch::Folder folder;
    fs::create_directories(folder.file("etc/lvm/backup"));
    scratch::spill(folder.file("etc/lvm/backup/vg0"),
                   "# Generated by LVM2\ncontents = \"Text Format Volume Group\"\n\nvg0 {\n"
                   "\tid = \"groupid\"\n\tphysical_volumes {\n\n\t\tpv0 {\n\t\t\tid = \"PVID-A\"\n"
                   "\t\t\tdevice = \"/dev/sdx\"\n\t\t\tdev_size = 9999\t# 5 Megabytes\n\t\t}\n"
                   "\t\tpv1 {\n\t\t\tid = \"PVID-B\"\n\t\t\tdev_size = 2048\t# 1 Megabytes\n\t\t}\n"
                   "\t}\n\tlogical_volumes {\n\t\troot {\n\t\t\tid = \"LV\"\n\t\t}\n\t}\n}\n");
    remap::MemoryIo main("main", 2048);
    const auto found = remap::find_backups(main, "/dev/sda2", folder.path().string());
    REQUIRE(found.size() == 1);
    CHECK(contains(found.front().text, "PVID-B"));
    CHECK(found.front().commands ==
          std::vector<std::string>{
              "pvcreate --uuid PVID-B --restorefile /etc/lvm/backup/vg0 /dev/sda2",
              "vgcfgrestore vg0"});
    remap::MemoryIo other("main", 2056);
    CHECK(remap::find_backups(other, "/dev/sda2", folder.path().string()).empty());
}
