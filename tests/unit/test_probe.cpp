// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/probe.hpp"
#include "libremap/rescue_file.hpp"
#include "scratch.hpp"
#include "set_fixture.hpp"

namespace {

using fixture::Image;

/// A device that counts what is read from it.
class CountingIo : public remap::StackedIo {
  public:
    using StackedIo::StackedIo;
    int try_read(std::uint64_t sector, remap::Bytes to) override {
        bytes += to.size();
        ++reads;
        return StackedIo::try_read(sector, to);
    }
    std::size_t bytes = 0;
    std::size_t reads = 0;
};

struct Set {
    Set() : main("main", fixture::random_image(fixture::main_sectors, 3)), spare("spare", 2048) {
        superblock = fixture::adopt_now(main, spare, fixture::ext_payload(), 512).superblock;
    }
    remap::MemoryIo main;
    remap::MemoryIo spare;
    remap::Superblock superblock;
};

void damage(remap::MemoryIo& io, std::uint64_t sector) {
    io.content()[sector * 512 + 200] ^= 1;
}

}  // namespace

TEST_CASE("Both members are recognised, by any of their signatures at either end", "[probe]") {
    Set set;
    const auto spare = remap::probe_member(set.spare);
    REQUIRE(spare);
    CHECK(spare->role == REMAP_ROLE_SPARE);
    CHECK(spare->set == set.superblock.head.set_uuid);
    CHECK(spare->label == "test");
    auto main = remap::probe_member(set.main);
    REQUIRE(main);
    CHECK(main->role == REMAP_ROLE_MAIN);
    CHECK(main->partner == spare->member);
    CHECK(main->member == spare->partner);

    damage(set.spare, set.superblock.sb_sector[0]);
    REQUIRE(remap::probe_member(set.spare));
    damage(set.spare, set.superblock.sb_sector[4]);
    REQUIRE(remap::probe_member(set.spare));  // found further inside: what is at the ends is ours
    damage(set.main, 0);
    damage(set.main, 2);
    main = remap::probe_member(set.main);
    REQUIRE(main);
    CHECK(main->sector == 2047);
    damage(set.main, 2047);
    CHECK_FALSE(remap::probe_member(set.main));
}

TEST_CASE("A member is no leg of a RAID for what its data looks like, and a leg is no member",
          "[probe]") {
    Set set;
    const auto main = remap::probe_member(set.main);
    const auto spare = remap::probe_member(set.spare);
    REQUIRE(main);
    REQUIRE(spare);
    for (const char* type : {"ddf_raid_member", "linux_raid_member", "drbd"}) {
        CHECK_FALSE(remap::is_leg(*main, type, set.main.size()));
        CHECK_FALSE(remap::is_leg(*spare, type, set.spare.size()));
        CHECK(remap::is_leg(*main, type, set.main.size() + 1));
        CHECK(remap::is_leg(*spare, type, set.spare.size() + 256));
    }
    // a path is as long as its map
    CHECK(remap::is_leg(*main, "mpath_member", set.main.size()));
    for (const char* type : {"", "ext4", "remap_member"}) {
        CHECK_FALSE(remap::is_leg(*main, type, set.main.size() + 1));
    }
}

TEST_CASE("A probe of what is not ours reads 8 KiB at either end and no more", "[probe]") {
    remap::MemoryIo io("disk", fixture::random_image(fixture::main_sectors, 5));
    CountingIo counting(io);
    CHECK_FALSE(remap::probe_member(counting));
    CHECK(counting.reads == 2);
    CHECK(counting.bytes == 16384);
}

TEST_CASE("A label that lies at another place than it says is not taken for a member", "[probe]") {
    Set set;
    // A partition that reaches to the end of its disk: the whole disk ends with its label.
    Image disk(std::size_t{64} * 512);
    disk.insert(disk.end(), set.main.content().begin(), set.main.content().end());
    remap::MemoryIo whole("disk", disk);
    CHECK_FALSE(remap::probe_member(whole));
}

TEST_CASE("Tiny and unreadable devices are not members", "[probe]") {
    remap::MemoryIo tiny("tiny", 8);
    CHECK_FALSE(remap::probe_member(tiny));
    Set set;
    remap::FaultIo bad(set.main);
    for (std::uint64_t sector = 0; sector < 2048; ++sector) {
        bad.bad_reads.insert(sector);
    }
    CHECK_FALSE(remap::probe_member(bad));
    bad.bad_reads.erase(2);
    CHECK(remap::probe_member(bad));
}

TEST_CASE("What enters the udev database is encoded", "[probe]") {
    remap::MemberInfo info;
    info.role = REMAP_ROLE_SPARE;
    info.state = REMAP_STATE_COMPLETE;
    info.version = 1;
    info.label = "a b\nID_EVIL=1\"$(x)'`y`\\";
    const std::string text = remap::udev_properties(info);
    CHECK(text.find("\nID_EVIL") == std::string::npos);
    CHECK(text.find("ID_FS_LABEL=a_b_ID_EVIL=1__(x)__y__\n") != std::string::npos);
    CHECK(text.find("ID_FS_TYPE=remap_member\n") != std::string::npos);
    CHECK(text.find("ID_FS_USAGE=raid\n") != std::string::npos);
    CHECK(text.find("ID_REMAP_ROLE=spare\n") != std::string::npos);
    CHECK(
        text.find(
            "ID_FS_LABEL_ENC=a\\x20b\\x0aID_EVIL=1\\x22\\x24\\x28x\\x29\\x27\\x60y\\x60\\x5c\n") !=
        std::string::npos);

    info.label = "a\x03\x1b[2J\x7f";
    const std::string hostile = remap::udev_properties(info);
    CHECK(std::none_of(hostile.begin(), hostile.end(), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return (byte < ' ' && c != '\n') || byte == 0x7f;
    }));
}

TEST_CASE("libblkid's signatures are seen behind one another", "[probe]") {
    const scratch::Folder folder;
    const std::string image = folder.file("disk");
    scratch::make_image(image, 16U << 20);
    REQUIRE(scratch::run({"mkfs.ext4", "-q", "-F", "-L", "root", image}).code == 0);
    auto io = remap::open_block_io(image, remap::Mode::read_only);
    const auto seen = remap::signatures_on(*io);
    REQUIRE(seen.size() == 1);
    CHECK(seen[0].type == "ext4");
    CHECK(seen[0].label == "root");
    CHECK(seen[0].magic.offset == 1080);
    CHECK_FALSE(seen[0].partition_table);

    // A stale LUKS header in the last place where LUKS2 looks, as a patch.
    std::vector<std::uint8_t> bytes(512);
    const std::string magic("SKUL\xba\xbe\x00\x02", 8);
    std::copy(magic.begin(), magic.end(), bytes.begin());
    const auto both = remap::signatures_if(*io, {{0x400000 / 512, bytes}});
    CHECK(both.size() == 2);
    const std::vector<std::uint8_t> nothing(512);
    CHECK(remap::signatures_if(*io, {{2, nothing}}).empty());
    CHECK(remap::visible_signatures(image).size() == 1);
}

TEST_CASE("A rescue file gives back what was hidden, and one flipped bit is seen", "[adopt]") {
    const scratch::Folder folder;
    const std::string file = folder.file("rescue");
    remap::MemoryIo main("main", fixture::random_image(fixture::main_sectors, 3));
    remap::MemoryIo spare("spare", 2048);
    remap::FaultIo bad(main);
    bad.bad_reads = {40};
    remap::Observer quiet;
    const auto plan =
        remap::plan_adoption(bad, spare, fixture::request_for(fixture::ext_payload(), 512));
    remap::HiddenContent taken;
    remap::adopt(
        bad, spare, plan,
        [&](const remap::Superblock& superblock, const remap::HiddenContent& content) {
            taken = content;
            remap::write_rescue_file(file, superblock, content);
        },
        quiet);
    const auto rescue = remap::read_rescue_file(file);
    CHECK(rescue.superblock.head.set_uuid == plan.superblock.head.set_uuid);
    CHECK(rescue.superblock.hidden == plan.superblock.hidden);
    CHECK(rescue.content.blocks == taken.blocks);
    CHECK(rescue.content.bytes == taken.bytes);
    CHECK(rescue.content.lost == std::set<std::uint64_t>{40});

    // It is never overwritten.
    CHECK_THROWS_AS(remap::write_rescue_file(file, plan.superblock, taken), remap::Error);

    std::string bytes = scratch::slurp(file);
    for (const std::size_t at :
         {std::size_t{0}, std::size_t{20}, std::size_t{5000}, bytes.size() - 1}) {
        std::string flipped = bytes;
        flipped[at] = static_cast<char>(flipped[at] ^ 1);
        scratch::spill(folder.file("bad"), flipped);
        CHECK_THROWS_AS(remap::read_rescue_file(folder.file("bad")), remap::Error);
    }
    taken.lost = {fixture::main_sectors};
    remap::write_rescue_file(folder.file("other block"), plan.superblock, taken);
    CHECK_THROWS_AS(remap::read_rescue_file(folder.file("other block")), remap::Error);
    scratch::spill(folder.file("short"), bytes.substr(0, 9000));
    CHECK_THROWS_AS(remap::read_rescue_file(folder.file("short")), remap::Error);
    CHECK_THROWS_AS(remap::read_rescue_file(folder.file("none")), remap::Error);
}
