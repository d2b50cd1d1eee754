// SPDX-License-Identifier: GPL-2.0-or-later
//
// What makes systemd open the sets of remaptab(5) at boot. That systemd takes it as it is meant,
// lint.units and the boot tests show.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "catch.hpp"
#include "libremap/device_events.hpp"
#include "libremap/error.hpp"
#include "libremap/hardware_name.hpp"
#include "libremap/known.hpp"
#include "libremap/units.hpp"
#include "machine.hpp"
#include "scratch.hpp"

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

const std::string first = "11111111-2222-3333-4444-555555555555";
const std::string second = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
const std::string third = "01234567-89ab-cdef-0123-456789abcdef";

/// Everything below a folder: path -> text, or what a link leads to.
std::map<std::string, std::string> contents(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& each : fs::recursive_directory_iterator(folder)) {
        const std::string name = fs::relative(each.path().parent_path(), folder).string() + "/" +
                                 each.path().filename().string();
        if (each.is_symlink()) {
            files[name] = "-> " + fs::read_symlink(each.path()).string();
        } else if (each.is_regular_file()) {
            files[name] = scratch::slurp(each.path().string());
        }
    }
    return files;
}

/// What the generator makes of this remaptab and kernel command line.
std::map<std::string, std::string> generated(const std::string& tab, const std::string& cmdline,
                                             int code = 0) {
    const scratch::Folder folder;
    scratch::spill(folder.file("remaptab"), tab);
    fs::create_directory(folder.file("proc"));
    scratch::spill(folder.file("proc/cmdline"), cmdline + "\n");
    for (const char* each : {"normal", "early", "late"}) {
        fs::create_directory(folder.file(each));
    }
    const auto result =
        scratch::run({REMAP_BIN_DIR "/remap-generator", folder.file("normal"), folder.file("early"),
                      folder.file("late"), folder.file("remaptab"), folder.file("proc")});
    INFO(result.err);
    CHECK(result.code == code);
    CHECK(fs::is_empty(folder.file("early")));
    CHECK(fs::is_empty(folder.file("late")));
    return contents(folder.file("normal"));
}

bool mentions(const std::map<std::string, std::string>& files, const std::string& text) {
    return std::any_of(files.begin(), files.end(), [&](const auto& file) {
        return file.first.find(text) != std::string::npos;
    });
}

}  // namespace

TEST_CASE("Names become unit names as systemd-escape makes them", "[units]") {
    const std::map<std::string, std::string> expected = {{"data", "data"},
                                                         {"my-data", "my\\x2ddata"},
                                                         {"a.b_c:d", "a.b_c:d"},
                                                         {".hidden", "\\x2ehidden"},
                                                         {"x+1", "x\\x2b1"},
                                                         {"a#b=c@d", "a\\x23b\\x3dc\\x40d"},
                                                         {"dev/mapper/x", "dev-mapper-x"}};
    for (const auto& [text, escaped] : expected) {
        CHECK(remap::escape_unit(text) == escaped);
    }
    CHECK(remap::open_unit("my-data") == "remap-open@my\\x2ddata.service");
}

TEST_CASE("Each set that opens by itself becomes a unit, with its options", "[units]") {
    const auto files = generated("my-data UUID=" + first + " -\n" +                       //
                                     "late UUID=" + second + " nofail,timeout=7,fua\n" +  //
                                     "archive UUID=" + third + " noauto\n",
                                 "quiet");
    const std::map<std::string, std::string> expected = {
        {"sysinit.target.wants/remap-open.target", "-> /usr/lib/systemd/system/remap-open.target"},
        {"remap-open.target.requires/remap-open@my\\x2ddata.service",
         "-> /usr/lib/systemd/system/remap-open@.service"},
        {"dev-mapper-my\\x2ddata.device.requires/remap-open@my\\x2ddata.service",
         "-> /usr/lib/systemd/system/remap-open@.service"},
        {"remap-open@my\\x2ddata.service.d/50-remaptab.conf",
         "# Made of remaptab(5) by remap-generator.\n[Unit]\n"
         "Description=Remap device my-data\nBefore=remap-open.target\n"},
        {"dev-mapper-my\\x2ddata.device.d/40-remaptab.conf",
         "# Made of remaptab(5) by remap-generator.\n[Unit]\nJobRunningTimeoutSec=180s\n"},
        {"remap-open.target.wants/remap-open@late.service",
         "-> /usr/lib/systemd/system/remap-open@.service"},
        {"dev-mapper-late.device.requires/remap-open@late.service",
         "-> /usr/lib/systemd/system/remap-open@.service"},
        {"remap-open@late.service.d/50-remaptab.conf",
         "# Made of remaptab(5) by remap-generator.\n[Unit]\nDescription=Remap device late\n"},
        {"dev-mapper-late.device.d/40-remaptab.conf",
         "# Made of remaptab(5) by remap-generator.\n[Unit]\nJobRunningTimeoutSec=97s\n"}};
    CHECK(files == expected);
}

TEST_CASE("No units for what the initramfs opens, none at all without sets or with rd.remap=0",
          "[units]") {
    const std::string root = "root UUID=" + first + " x-initrd.attach\n";
    CHECK(generated(root, "quiet").empty());
    CHECK(generated("# nothing\n", "quiet").empty());
    const auto both = generated(root + "data UUID=" + second + " timeout=0\n", "quiet");
    CHECK(mentions(both, "remap-open@data.service"));
    CHECK_FALSE(mentions(both, "root"));
    CHECK(both.at("dev-mapper-data.device.d/40-remaptab.conf").find("infinity") !=
          std::string::npos);
    CHECK(generated("data UUID=" + second + " -\n", "rd.remap=0 quiet").empty());
}

TEST_CASE("A set that the kernel command line names gets a unit, listed or not", "[units]") {
    const std::string tab = "archive UUID=" + third + " noauto\n";
    const auto files = generated(tab, "rd.remap.uuid=" + third + " rd.remap.uuid=" + first);
    CHECK(mentions(files, "remap-open@archive.service"));
    CHECK(mentions(files, "remap-open@remap\\x2d11111111.service"));
}

TEST_CASE("The generator says what it does not understand, and makes the rest", "[units]") {
    const auto files = generated(
        "nonsense\nbad/name UUID=" + third + " -\ndata UUID=" + second + " timeout=soon\n",
        "rd.remap.uuid=x");
    CHECK(mentions(files, "remap-open@data.service"));
    CHECK(files.at("dev-mapper-data.device.d/40-remaptab.conf").find("=180s") != std::string::npos);
    CHECK_FALSE(mentions(files, "bad"));
    const auto usage = scratch::run({REMAP_BIN_DIR "/remap-generator"});
    CHECK(usage.code == 16);
    CHECK(usage.err.find("usage: remap-generator NORMAL EARLY LATE") != std::string::npos);
    const auto nowhere = scratch::run({REMAP_BIN_DIR "/remap-generator", "/proc/no", "/proc/no",
                                       "/proc/no", "/dev/null", "/proc/no"});
    CHECK(nowhere.code == 0);  // nothing to make
}

TEST_CASE("A set that can have no unit takes none from the others", "[units]") {
    // four times as long in the name of a unit
    const std::string name = "a" + std::string(60, '-') + std::string(50, 'c');
    const auto files =
        generated(name + " UUID=" + first + " -\ndata UUID=" + second + " -\n", "quiet", 8);
    CHECK(mentions(files, "sysinit.target.wants/remap-open.target"));
    CHECK(mentions(files, "remap-open.target.requires/remap-open@data.service"));
}

TEST_CASE("The unit of a set is told by its UUID, of a set that opens by itself only", "[units]") {
    const scratch::Folder folder;
    const std::string tab = folder.file("remaptab");
    scratch::spill(tab, "my-data UUID=" + first + " nofail\narchive UUID=" + second + " noauto\n");
    const auto unit = [&](const std::string& set) {
        return scratch::run(
            {REMAP_BIN_DIR "/remapsetup", "list", "--remaptab", tab, "--unit", set});
    };
    const auto known = unit(first);
    CHECK(known.code == 0);
    CHECK(known.out == "remap-open@my\\x2ddata.service\n");
    for (const std::string& other : {second, third}) {
        const auto unknown = unit(other);
        CHECK(unknown.code == 2);
        CHECK(unknown.out.empty());
    }
    CHECK(unit("../evil").code == 16);
}

TEST_CASE("A set that remaptab does not list is not opened by its name", "[units]") {
    const scratch::Folder folder;
    scratch::spill(folder.file("remaptab"), "data UUID=" + first + " -\n");
    const auto result = scratch::run({REMAP_BIN_DIR "/remapsetup", "open", "--remaptab",
                                      folder.file("remaptab"), "--listed", "other"});
    CHECK(result.code == 2);
    CHECK(result.err.find("other: no set of this name is listed in ") != std::string::npos);
    const auto both = scratch::run({REMAP_BIN_DIR "/remapsetup", "open", "--listed", "a", "--all"});
    CHECK(both.code == 16);
}

TEST_CASE("remaptab: a timeout is a number of seconds", "[units][remaptab]") {
    const auto timeout = [](const char* options) {
        const auto tab =
            remap::Remaptab::parse("a UUID=" + first + " " + std::string(options) + "\n", "tab");
        REQUIRE(tab.entries().size() == 1);
        const auto seconds = tab.entries()[0].timeout();
        CHECK(tab.problems().size() == (tab.entries()[0].has("timeout") && !seconds ? 1U : 0U));
        return seconds;
    };
    CHECK(timeout("timeout=30") == 30U);
    CHECK(timeout("nofail,timeout=0") == 0U);
    CHECK_FALSE(timeout("nofail"));
    for (const char* wrong :
         {"timeout=", "timeout", "timeout=1m", "timeout=-1", "timeout=99999999999"}) {
        CHECK_FALSE(timeout(wrong));
    }
}

TEST_CASE("Disks are named by model and serial number, in letters that a file can hold",
          "[units]") {
    fixture::Machine machine;
    std::filesystem::create_directories(machine.root.dev);
    const auto named = [&](const char* model, const char* serial) {
        machine.put("sdb", "device/model", model);
        machine.put("sdb", "serial", serial);
        return remap::hardware_name(machine.device("sdb"), machine.root);
    };
    CHECK(named("Samsung SSD 870 \n", " S5Y2NX0\n") == "Samsung_SSD_870_S5Y2NX0");
    CHECK(named("\n", "a,b noauto\n") == "a_b_noauto");
    CHECK(named("M#=\x01\xff,x\n", "\n") == "M_x");
    CHECK(named("\n", "\n").empty());
    CHECK(named(std::string(300, 'm').c_str(), "S\n").size() <= 110);
    CHECK(remap::hardware_name("/dev/null", machine.root).empty());
    CHECK(remap::hardware_name("/no", machine.root).empty());
}

TEST_CASE("An event of udev ends the waiting for a device, also one from before it", "[units]") {
    const scratch::Folder folder;
    remap::DeviceEvents events(folder.path().string());
    CHECK_FALSE(events.wait(1ms));
    // as udev does it
    scratch::spill(folder.file(".#c4:0"), "E:X=1\n");
    fs::rename(folder.file(".#c4:0"), folder.file("c4:0"));
    CHECK_FALSE(events.wait(1ms));
    scratch::spill(folder.file(".#b8:0"), "E:X=1\n");
    fs::rename(folder.file(".#b8:0"), folder.file("b8:0"));
    CHECK(events.wait(10s));
    CHECK_FALSE(events.wait(1ms));
    std::thread later([&] {
        std::this_thread::sleep_for(50ms);
        fs::remove(folder.file("b8:0"));
    });
    CHECK(events.wait(10s));
    later.join();
    remap::DeviceEvents none(folder.file("no"));
    CHECK_FALSE(none.wait(1ms));
}
