// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the machine says about devices, from a recorded tree instead of hardware.
#include <sys/sysmacros.h>

#include "catch.hpp"
#include "libremap/assemble.hpp"
#include "libremap/error.hpp"
#include "libremap/identity.hpp"
#include "machine.hpp"
#include "scratch.hpp"

namespace {

namespace fs = std::filesystem;
using Match = remap::Identity::Match;

using fixture::Machine;

}  // namespace

TEST_CASE("Identities are compared by the fields that both sides have", "[identity]") {
    const remap::Identity a{"wwn1", "sn1", "", 10};
    CHECK(a.compare({"wwn1", "", "", 99}) == Match::same);
    CHECK(a.compare({"", "sn1", "part", 10}) == Match::same);
    CHECK(a.compare({"wwn1", "sn2", "", 10}) == Match::different);
    CHECK(a.compare({"", "", "part", 10}) == Match::unknown);
    CHECK(remap::Identity{}.compare(a) == Match::unknown);
    // the disk that the partition lies on has the same WWN and serial number
    const remap::Identity part{"wwn1", "sn1", "part", 10};
    CHECK(part.compare({"wwn1", "sn1", "", 99, true}) == Match::different);
    CHECK(remap::Identity{"wwn1", "sn1", "", 99, true}.compare(part) == Match::different);
    CHECK(a.compare({"wwn1", "sn1", "", 10, true}) == Match::same);
    CHECK(part.compare({"", "", "", 10, true}) == Match::unknown);
    CHECK(a.describe() == "wwn wwn1, serial sn1");
}

TEST_CASE("Block devices are listed without those that are never members", "[identity]") {
    const Machine machine;
    std::vector<std::string> names;
    for (const auto& device : remap::list_block_devices(machine.root)) {
        names.push_back(device.name);
    }
    CHECK(names == std::vector<std::string>{"dm-0", "md0", "sda", "sda1", "sdb", "sdc", "sdd"});
    const auto part = machine.device("sda1");
    CHECK(part.is_partition);
    CHECK(part.whole == "sda");
    CHECK(part.logical_block == 4096);
    CHECK(part.size == 50000);
    CHECK(part.devno == makedev(8, 1));
    CHECK(part.holders == std::vector<std::string>{"dm-0"});
    CHECK(machine.device("dm-0").dm_name == "vg-root");
}

TEST_CASE("Hardware identity comes from the kernel, PARTUUID from the udev database",
          "[identity]") {
    const Machine machine;
    const auto disk = remap::identify(machine.device("sda"), machine.root);
    CHECK(disk.wwn == "naa.5000c500a1b2c3d4");
    CHECK(disk.serial == "SERIAL1");
    CHECK(disk.partuuid.empty());
    CHECK(disk.size == 100000);
    const auto part = remap::identify(machine.device("sda1"), machine.root);
    CHECK(part.wwn == disk.wwn);
    CHECK(part.partuuid == "0cafe000-01");
    CHECK(remap::identify(machine.device("sdb"), machine.root).serial == "VIRTIO-SN");
    CHECK(remap::identify(machine.device("dm-0"), machine.root).serial == "LVM-abcdef");
    CHECK(remap::identify(machine.device("md0"), machine.root).empty());
}

TEST_CASE("Legs of MD and multipath are no members", "[identity]") {
    const Machine machine;
    CHECK(remap::is_leg_of_another_device(machine.device("sdc"), machine.root));
    CHECK(remap::is_leg_of_another_device(machine.device("sdd"), machine.root));
    CHECK_FALSE(remap::is_leg_of_another_device(machine.device("sda"), machine.root));
    CHECK_FALSE(remap::is_leg_of_another_device(machine.device("sda1"), machine.root));
}

TEST_CASE("Of copies of a member the one on the recorded hardware is chosen, or none",
          "[identity]") {
    Machine machine;
    remap::Member member;
    member.uuid = remap::Uuid::random();
    member.role = REMAP_ROLE_MAIN;
    const remap::Uuid set = remap::Uuid::random();
    const auto seen = [&](const char* name) {
        remap::SeenMember copy;
        copy.device = machine.device(name);
        copy.info.role = REMAP_ROLE_MAIN;
        copy.info.set = set;
        copy.info.member = member.uuid;
        return copy;
    };
    const auto choose = [&](const std::vector<remap::SeenMember>& all) {
        return remap::choose_member(all, member, set, machine.root);
    };
    CHECK_FALSE(choose({}));
    // One alone is taken wherever it lies: disks are moved and cloned for good reasons.
    CHECK(choose({seen("sdb")})->name == "sdb");
    CHECK_THROWS_AS(choose({seen("sda"), seen("sdb")}), remap::Error);
    member.serial = "VIRTIO-SN";
    CHECK(choose({seen("sda"), seen("sdb")})->name == "sdb");
    CHECK_THROWS_AS(choose({seen("sdb"), seen("sdb")}), remap::Error);
    member.serial = "GONE";
    CHECK_THROWS_AS(choose({seen("sda"), seen("sdb")}), remap::Error);

    auto other_set = seen("sda");
    other_set.info.set = remap::Uuid::random();
    CHECK_FALSE(choose({other_set}));
    auto other_role = seen("sda");
    other_role.info.role = REMAP_ROLE_SPARE;
    CHECK_FALSE(choose({other_role}));

    // A snapshot of the member, taken while that is suspended and so cannot be looked at.
    machine.put("dm-0", "dm/suspended", "1\n");
    CHECK(choose({seen("sdb")})->name == "sdb");
    member.serial = "LVM-abcdef";
    CHECK_THROWS_AS(choose({seen("sdb")}), remap::SuspendedError);
    CHECK_THROWS_AS(choose({seen("sdc")}), remap::SuspendedError);  // of unknown hardware
    CHECK(choose({seen("dm-0")})->name == "dm-0");
    CHECK_FALSE(choose({}));
    machine.put("dm-0", "dm/suspended", "0\n");
    CHECK(choose({seen("sdb")})->name == "sdb");
}

TEST_CASE("An image that a loop device is attached to has a user", "[identity]") {
    const Machine machine;
    const std::string image = machine.folder.file("image");
    scratch::make_image(image, 4096);
    CHECK(remap::users_of(image, machine.root).empty());
    fs::create_directories(machine.root.sys + "/class/block/loop7/loop");
    scratch::spill(machine.root.sys + "/class/block/loop7/loop/backing_file", image + "\n");
    CHECK(remap::users_of(image, machine.root) == std::vector<std::string>{"attached to loop7"});
}
