// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which devices are hidden because a bare set of remaptab(5) has its main there: that one always,
// whether the spare is there or not, and no other.
#include "libremap/bare_main.hpp"

#include "catch.hpp"
#include "libremap/assemble.hpp"
#include "libremap/error.hpp"
#include "machine.hpp"
#include "scratch.hpp"
#include "set_fixture.hpp"

namespace {

namespace fs = std::filesystem;

const std::string uuid = "11111111-2222-3333-4444-555555555555";
const std::string sda1 = "wwn:naa.5000c500a1b2c3d4+serial:SERIAL1+partuuid:0cafe000-01";

remap::Remaptab tab_with(const std::string& main) {
    return remap::Remaptab::parse("root UUID=" + uuid + " nofail,main=" + main + ",fua\n", "tab");
}

/// The recorded machine with more disks, and a remap device on sda1.
class Computer : public fixture::Machine {
  public:
    Computer() {
        disk("dm-1", "254:1", 50000);
        put("dm-1", "dm/name", "root\n");
        put("dm-1", "dm/uuid", "REMAP-" + uuid + "\n");
        fs::create_directories(path("dm-1") + "/slaves/sda1");
        disk("dm-2", "254:2", 40000);
        put("dm-2", "dm/name", "cryptroot\n");
        put("dm-2", "dm/uuid", "CRYPT-x\n");
        fs::create_directories(path("dm-2") + "/slaves/dm-0");
        disk("dm-3", "254:3", 40000);
        put("dm-3", "dm/name", "vg-on-remap\n");
        put("dm-3", "dm/uuid", "LVM-x\n");
        fs::create_directories(path("dm-3") + "/slaves/dm-1");
        partition("sda", "sda2", "8:2", 3000);
        scratch::spill(root.udev_db + "/b8:2", "E:ID_PART_ENTRY_UUID=0cafe000-02\n");
    }

    void another_disk(const std::string& name, const std::string& number,
                      const std::string& serial) {
        disk(name, number, 200000);
        if (!serial.empty()) {
            put(name, "serial", serial + "\n");
        }
    }

    void another_partition(const std::string& whole, const std::string& name, unsigned int number,
                           const std::string& partuuid) {
        partition(whole, name, "65:" + std::to_string(number), 50000);
        scratch::spill(root.udev_db + "/b65:" + std::to_string(number),
                       "E:ID_PART_ENTRY_UUID=" + partuuid + "\n");
    }

    /// Names of all devices that this line hides, with that of the main they lie on.
    std::vector<std::string> hidden(const std::string& main) const {
        const auto tab = tab_with(main);
        std::vector<std::string> names;
        for (const auto& device : remap::list_block_devices(root)) {
            if (const auto raw = remap::raw_main_below(device, tab, root)) {
                CHECK(raw->entry.name == "root");
                names.push_back(device.name + (raw->main.name == device.name
                                                   ? std::string()
                                                   : " on " + raw->main.name));
            }
        }
        return names;
    }

    bool opened_as(const std::string& main, const char* name) const {
        return remap::is_listed_main(*remap::parse_identity(main), device(name), root);
    }
};

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("A hardware identity is written into an option and read back, whatever is in it",
          "[bare]") {
    remap::Identity identity;
    identity.serial = "S N,#=+%:\"\n\xff";
    CHECK(remap::identity_text(identity) == "serial:S%20N%2c%23%3d%2b%25:%22%0a%ff");
    CHECK(remap::parse_identity(remap::identity_text(identity))->serial == identity.serial);
    identity.wwn = "naa.5000";
    identity.partuuid = "0cafe000-01";
    const auto again = remap::parse_identity(remap::identity_text(identity));
    REQUIRE(again);
    CHECK(again->wwn == identity.wwn);
    CHECK(again->serial == identity.serial);
    CHECK(again->partuuid == identity.partuuid);

    for (const char* text :
         {"", "+", "wwn", "wwn:", "wwn:a+", "+wwn:a", "wwn:a+wwn:b", "model:x", "serial:%",
          "serial:%2", "serial:%2G", "serial:%2C", "serial:%41", "serial:a b", "serial:a=b",
          "SERIAL:a", "wwn:a++serial:b", "partuuid:a+"}) {
        INFO(text);
        CHECK_FALSE(remap::parse_identity(text));
    }
}

TEST_CASE("remaptab: a main that is not understood is reported, and hides nothing", "[bare]") {
    const auto tab = tab_with("serial:%");
    REQUIRE(tab.entries().size() == 1);
    REQUIRE(tab.problems().size() == 1);
    CHECK(tab.problems()[0].find("tab:1: expected main=") == 0);
    CHECK_FALSE(remap::listed_main(tab.entries()[0]));
    CHECK(tab_with("serial:x").problems().empty());
    const Computer computer;
    CHECK_FALSE(remap::raw_main_below(computer.device("sda"), tab, computer.root));
}

TEST_CASE("The main of a bare set is hidden with what lies on it, and nothing else", "[bare]") {
    const Computer computer;
    // Not the remap device itself, nor what lies on that.
    CHECK(computer.hidden(sda1) == Names{"dm-0 on sda1", "dm-2 on sda1", "sda1"});
    CHECK(computer.hidden("partuuid:0cafe000-01") == Names{"dm-0 on sda1", "dm-2 on sda1", "sda1"});
    CHECK(computer.hidden("partuuid:0cafe000-0").empty());
    CHECK(computer.hidden("serial:VIRTIO-SN") == Names{"sdb"});
    // A whole disk is shown by its partitions, too.
    CHECK(computer.hidden("wwn:naa.5000c500a1b2c3d4+serial:SERIAL1") ==
          Names{"dm-0 on sda", "dm-2 on sda", "sda", "sda1 on sda", "sda2 on sda"});
    CHECK(computer.hidden("serial:LVM-abcdef") == Names{"dm-0", "dm-2 on dm-0"});
}

TEST_CASE("Disks that cannot be told from the main are hidden, but only the main is opened",
          "[bare]") {
    Computer computer;
    computer.another_disk("sdx", "65:0", "SERIAL1");  // no WWN: may be the same
    computer.another_disk("sdy", "65:1", "");
    computer.another_disk("sdz", "65:2", "OTHER");
    computer.put("sdz", "wwid", "naa.5000c500a1b2c3d4\n");
    const std::string sda = "wwn:naa.5000c500a1b2c3d4+serial:SERIAL1";
    CHECK(computer.hidden(sda) ==
          Names{"dm-0 on sda", "dm-2 on sda", "sda", "sda1 on sda", "sda2 on sda", "sdx"});
    CHECK(computer.opened_as(sda, "sda"));
    CHECK_FALSE(computer.opened_as(sda, "sdx"));
    CHECK_FALSE(computer.opened_as(sda, "sdz"));
    CHECK_FALSE(computer.opened_as(sda, "sda1"));

    // A copy of a disk has its PARTUUIDs, whatever its hardware: it shows the same payload.
    computer.another_partition("sdz", "sdz1", 11, "0cafe000-01");
    computer.another_partition("sdz", "sdz2", 12, "0cafe000-07");
    CHECK(computer.hidden(sda1) == Names{"dm-0 on sda1", "dm-2 on sda1", "sda1", "sdz1"});
    CHECK(computer.opened_as(sda1, "sda1"));
    CHECK_FALSE(computer.opened_as(sda1, "sdz1"));
    CHECK_FALSE(computer.opened_as(sda1, "sda2"));
    CHECK_FALSE(computer.opened_as(sda1, "sda"));
}

TEST_CASE("What is told of a main to udev keeps everybody off it", "[bare]") {
    const Computer computer;
    const auto tab = tab_with(sda1);
    const auto text = [&](const char* name) {
        const auto device = computer.device(name);
        return remap::hiding_properties(*remap::raw_main_below(device, tab, computer.root), device);
    };
    for (const char* line : {"UDEV_DISABLE_PERSISTENT_STORAGE_BLKID_FLAG=1\n", "SYSTEMD_READY=0\n",
                             "UDISKS_IGNORE=1\n", "ID_FS_USAGE=raid\n", "ID_REMAP_RAW=1\n"}) {
        CHECK(text("sda1").find(line) != std::string::npos);
        CHECK(text("dm-2").find(line) != std::string::npos);
    }
    CHECK(text("sda1").find("ID_FS_TYPE=remap_member\n") != std::string::npos);
    CHECK(text("sda1").find("\nID_REMAP_SET=" + uuid + "\n") != std::string::npos);
    CHECK(text("sda1").find("DM_UDEV") == std::string::npos);
    CHECK(text("dm-2").find("DM_UDEV_DISABLE_DISK_RULES_FLAG=1\n") != std::string::npos);
    CHECK(text("dm-2").find("ID_REMAP_SET") == std::string::npos);
}

TEST_CASE("Only what can be known at its first event can be hidden", "[bare]") {
    Computer computer;
    const auto text = [&](const char* name) {
        return remap::identity_text(remap::hideable_identity(computer.device(name), computer.root));
    };
    CHECK(text("sda1") == sda1);
    CHECK(text("sdb") == "serial:VIRTIO-SN");
    // sdc says nothing; what udev has found out later does not count.
    scratch::spill(computer.root.udev_db + "/b8:32", "E:ID_SERIAL_SHORT=USB1\nE:ID_WWN=0x5\n");
    CHECK(remap::identify(computer.device("sdc"), computer.root).serial == "USB1");
    CHECK_THROWS_AS(text("sdc"), remap::Error);
    CHECK_THROWS_AS(text("dm-0"), remap::Error);
    CHECK_THROWS_AS(text("md0"), remap::Error);
    fs::remove(computer.root.udev_db + "/b8:2");
    CHECK_THROWS_AS(text("sda2"), remap::Error);
}

TEST_CASE("A bare set is put together with the main that its line names, or not at all", "[bare]") {
    remap::MemoryIo main("main", fixture::random_image(fixture::main_sectors, 1));
    remap::MemoryIo spare("spare", fixture::random_image(fixture::spare_sectors, 2));
    remap::Observer quiet;
    auto request = fixture::request_for({}, 512);
    request.bare = true;
    request.main_identity.serial = "M1";
    request.spare_identity.serial = "S1";
    const auto set = remap::adopt(
                         main, spare, remap::plan_adoption(main, spare, request),
                         [](const auto&, const auto&) {}, quiet)
                         .superblock.head.set_uuid;

    class Shelf : public fixture::Machine {
      public:
        void add(const char* name, unsigned int number, const char* serial, const char* wwn,
                 const fixture::Image& image) {
            fs::create_directories(root.dev);
            disk(name, "65:" + std::to_string(number),
                 static_cast<unsigned int>(image.size() / 512));
            put(name, "serial", serial + std::string("\n"));
            put(name, "wwid", wwn + std::string("\n"));
            scratch::spill(root.dev + "/" + name, std::string(image.begin(), image.end()));
        }
    };
    Shelf shelf;
    shelf.add("sdq", 0, "S1", "", spare.content());
    const auto chosen = [&](const std::string& listed) {
        return remap::choose_pair(set, remap::scan_members(shelf.root), shelf.root,
                                  remap::parse_identity(listed));
    };
    CHECK(chosen("serial:M1").missing.find("the main of set") == 0);
    shelf.add("sdp", 1, "M1", "", main.content());
    CHECK(chosen("serial:M1").main->name == "sdp");
    CHECK(chosen("serial:M1").bare);
    CHECK(chosen("serial:M2").missing.find("the main of set") == 0);
    // The superblock knows no WWN, the line does: of two that the spare would take, that one.
    shelf.add("sdr", 2, "M1", "naa.5", main.content());
    CHECK(chosen("wwn:naa.5+serial:M1").main->name == "sdr");
    CHECK_THROWS_AS(chosen("serial:M1"), remap::Error);
}

TEST_CASE("remapsetup probe --bare and open --bare follow the remaptab that is named",
          "[bare][cli]") {
    const scratch::Folder folder;
    const std::string setup = std::string(REMAP_BIN_DIR) + "/remapsetup";
    scratch::spill(folder.file("tab"), "root UUID=" + uuid + " main=serial:x\n");
    scratch::spill(folder.file("image"), "x");
    const auto probe = scratch::run(
        {setup, "probe", "--bare", "--remaptab", folder.file("tab"), folder.file("image")});
    CHECK(probe.code == 2);
    CHECK(probe.out.empty());
    CHECK(scratch::run({setup, "open", "--bare", "x", "y"}).code == 16);
    // Nothing to wait for: no line, no bare set, or one that boot does not count on.
    for (const char* options : {"", "fua", "main=serial:x,nofail", "main=serial:x,noauto"}) {
        INFO(options);
        scratch::spill(folder.file("tab"), "root UUID=" + uuid + " " + options + "\n");
        const auto opened =
            scratch::run({setup, "open", "--all", "--bare", "--remaptab", folder.file("tab")});
        CHECK(opened.code == 0);
        CHECK(opened.err.empty());
    }
}
