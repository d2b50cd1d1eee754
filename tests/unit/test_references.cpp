// SPDX-License-Identifier: GPL-2.0-or-later
//
// What stands against adopting a device although the device itself is fine: configuration that
// names it, and whoever reads it before dm-remap is there.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <functional>
#include <map>

#include "catch.hpp"
#include "libremap/boot_use.hpp"
#include "libremap/error.hpp"
#include "libremap/format_set.hpp"
#include "libremap/references.hpp"
#include "machine.hpp"
#include "set_fixture.hpp"

namespace {

namespace fs = std::filesystem;

constexpr const char* uuid = "c0ffee00-1111-2222-3333-444455556666";

using Texts = std::vector<std::string>;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// A machine whose sda1 is to be adopted, with configuration of its own. sda1 is a plain file here,
/// as are other devices; links lead to it as udev would have made them.
struct Computer : fixture::Machine {
    Computer() {
        host.root = folder.file("root");
        host.machine = root;
        host.list_initramfs = [this](const std::string& image) {
            return listed.count(image) != 0 ? std::optional<Texts>(listed.at(image)) : std::nullopt;
        };
        fs::create_directories(root.dev);
        for (const char* name : {"sda1", "sdb"}) {
            scratch::make_image(root.dev + "/" + name, 1U << 20);
        }
        link("disk/by-id/ata-X-part1", "sda1");
        link("disk/by-path/pci-1-part1", "sda1");
        link("disk/by-uuid/" + std::string(uuid), "sda1");
        link("disk/by-label/my\\x20data", "sda1");
        link("disk/by-partlabel/first", "sda1");
        main.path = root.dev + "/sda1";
        main.device = device("sda1");
        main.type = "ext4";
        main.uuid = uuid;
        main.label = "my data";
        main.name = "data";
    }

    void link(const std::string& name, const std::string& target) {
        const fs::path path = fs::path(root.dev) / name;
        fs::create_directories(path.parent_path());
        fs::create_symlink(fs::path(root.dev) / target, path);
    }

    void config(const std::string& file, const std::string& text) {
        const fs::path path = host.path(file);
        fs::create_directories(path.parent_path());
        scratch::spill(path.string(), text);
    }

    Texts names() const { return remap::objections_to_names(remap::MainNames(main, host), host); }
    Texts boot() const { return remap::objections_to_boot(remap::MainNames(main, host), host); }

    remap::Host host;
    remap::FutureMain main;
    std::map<std::string, Texts> listed;
};

/// Exactly one objection, with all these parts.
void check_one(const Texts& objections, const Texts& parts) {
    INFO((objections.empty() ? "none" : objections.front()));
    REQUIRE(objections.size() == 1);
    for (const std::string& part : parts) {
        INFO(part);
        CHECK(contains(objections.front(), part));
    }
}

}  // namespace

TEST_CASE("References: fstab may name the main by its payload's UUID or label only",
          "[references]") {
    const std::string right = std::string("UUID=") + uuid;
    for (const char* bad :
         {"/dev/sda1", "/dev/disk/by-id/ata-X-part1", "/dev/disk/by-path/pci-1-part1",
          "PARTUUID=0CAFE000-01", "PARTLABEL=first", "/dev/disk/by-partlabel/first",
          "ID=ata-X-part1", "\"/dev/sda1\""}) {
        Computer computer;
        computer.config("/etc/fstab", std::string("# /dev/sda1 was it\n\n") + bad +
                                          " /srv ext4 defaults 0 2\n/dev/sdb /other ext4\n");
        INFO(bad);
        check_one(computer.names(), {"/etc/fstab:3: ", "write " + right + " instead"});
    }
    for (const std::string& good :
         {right, std::string("UUID=\"C0FFEE00-1111-2222-3333-444455556666\""),
          std::string("LABEL=my\\040data"), "/dev/disk/by-uuid/" + std::string(uuid),
          std::string("/dev/disk/by-label/my\\x20data"), std::string("/dev/mapper/data"),
          std::string("/dev/sdb"), std::string("PARTUUID=0cafe000-02"), std::string("tmpfs")}) {
        Computer computer;
        computer.config("/etc/fstab", good + " /srv ext4 defaults 0 2\n");
        INFO(good);
        CHECK(computer.names() == Texts{});
    }
}

TEST_CASE("References: a bare main goes on to show its payload, so that its UUID is no name either",
          "[references]") {
    Computer computer;
    computer.main.bare = true;
    computer.config("/etc/fstab", std::string("UUID=") + uuid + " /srv ext4\n");
    check_one(computer.names(), {"/etc/fstab:1: ", "write /dev/mapper/data instead"});
}

TEST_CASE("References: devices in mount options, and in key and options of crypttab",
          "[references]") {
    Computer computer;
    computer.config("/etc/fstab", "UUID=1 /srv xfs noatime,logdev=/dev/sda1 0 0\n");
    check_one(computer.names(), {"/etc/fstab:1: names it /dev/sda1"});

    const char* lines[] = {"c PARTUUID=0cafe000-01 none luks\n", "c UUID=9 /dev/sda1 luks\n",
                           "c UUID=9 none luks,header=/dev/disk/by-id/ata-X-part1\n"};
    computer.config("/etc/fstab", "");
    computer.main.type = "crypto_LUKS";
    for (const char* line : lines) {
        computer.config("/etc/crypttab", line);
        check_one(computer.names(), {"/etc/crypttab:1: ", "write UUID=c0ffee00"});
    }
    computer.config("/etc/crypttab", std::string("c UUID=") + uuid + " none luks,discard\n");
    CHECK(computer.names() == Texts{});
}

TEST_CASE("References: mdadm.conf must take in the remap device", "[references]") {
    struct Row {
        const char* text;
        Texts parts;  ///< empty: no objection
    };
    const Row rows[] = {
        {"DEVICE /dev/sd*\n", {"/etc/mdadm/mdadm.conf:1: ", "DEVICE partitions"}},
        {"DEVICE\n  /dev/sdb\n  /dev/sda1\n", {"/etc/mdadm/mdadm.conf:1: ", "/dev/sda1"}},
        {"DEV /dev/disk/by-path/*\n", {"/etc/mdadm/mdadm.conf:1: "}},
        {"DEVICE partitions containers\n", {}},
        {"DEVICE /dev/sda1\nDEVICE partitions\n", {}},
        {"DEVICE /dev/sdb\n", {}},
        {"HOMEHOST <system>\nARRAY /dev/md0 devices=/dev/sdb,/dev/sda1\n",
         {"/etc/mdadm/mdadm.conf:2: ", "UUID="}},
        {"ARRAY /dev/md/0 metadata=1.2 UUID=1:2:3:4\n", {}},
    };
    for (const Row& row : rows) {
        Computer computer;
        computer.main.type = "linux_raid_member";
        computer.config("/etc/mdadm/mdadm.conf", row.text);
        INFO(row.text);
        if (row.parts.empty()) {
            CHECK(computer.names() == Texts{});
        } else {
            check_one(computer.names(), row.parts);
        }
    }
}

TEST_CASE("References: LVM's devices file must list the remap device", "[references]") {
    Computer computer;
    computer.main.type = "LVM2_member";
    computer.main.uuid = "abcdef-0000-1111-2222-3333-4444-555555";
    const std::string head = "# LVM uses devices listed in this file.\nVERSION=1.1.2\n";
    const std::string by_hardware =
        "IDTYPE=sys_wwid IDNAME=naa.5000 DEVNAME=/dev/sdz9 PVID=abcdef00001111222233334444555555 "
        "PART=1\n";
    computer.config("/etc/lvm/devices/system.devices", head + by_hardware);
    check_one(computer.names(), {"/etc/lvm/devices/system.devices:3: ",
                                 "IDTYPE=devname IDNAME=/dev/mapper/data DEVNAME=/dev/mapper/data "
                                 "PVID=abcdef00001111222233334444555555"});
    computer.config("/etc/lvm/devices/system.devices",
                    head + "IDTYPE=devname IDNAME=/dev/sda1 DEVNAME=/dev/sda1 PVID=other\n");
    check_one(computer.names(), {"/etc/lvm/devices/system.devices:3: "});
    computer.config("/etc/lvm/devices/system.devices",
                    head + by_hardware +
                        "IDTYPE=devname IDNAME=/dev/mapper/data DEVNAME=/dev/mapper/data "
                        "PVID=abcdef00001111222233334444555555\n");
    CHECK(computer.names() == Texts{});
    computer.config("/etc/lvm/devices/system.devices",
                    head + "IDTYPE=devname IDNAME=/dev/sdb DEVNAME=/dev/sdb PVID=x\n");
    CHECK(computer.names() == Texts{});
}

TEST_CASE("References: the kernel command line, now and as it will be written", "[references]") {
    const char* bad[] = {"root=/dev/sda1",
                         "root=PARTUUID=0cafe000-01",
                         "root=8:1",
                         "root=801",
                         "root=/dev/disk/by-path/pci-1-part1",
                         "rootflags=subvol=x,logdev=/dev/sda1",
                         "cryptopts=target=c,source=/dev/sda1"};
    for (const char* parameter : bad) {
        const std::string line = std::string("quiet ") + parameter + " ro";
        INFO(parameter);
        Computer computer;
        scratch::spill(computer.root.proc + "/cmdline", line + "\n");
        check_one(computer.names(), {"/proc/cmdline: names it ", parameter, "=UUID=c0ffee00"});
        scratch::spill(computer.root.proc + "/cmdline", "root=LABEL=x\n");
        computer.config("/etc/default/grub",
                        "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"" + line + "\"\n");
        check_one(computer.names(), {"/etc/default/grub:2: ", parameter});
        computer.config("/etc/default/grub", "#GRUB_CMDLINE_LINUX=\"" + line + "\"\n");
        CHECK(computer.names() == Texts{});
        computer.config("/etc/kernel/cmdline", line + "\n");
        check_one(computer.names(), {"/etc/kernel/cmdline:1: ", parameter});
        computer.config("/etc/kernel/cmdline", "");
        computer.config("/boot/loader/entries/a.conf", "title x\noptions " + line + "\n");
        check_one(computer.names(), {"/boot/loader/entries/a.conf:2: ", parameter});
        computer.config("/boot/loader/entries/a.conf", "");
        computer.config("/boot/grub/grub.cfg", "menuentry {\n\tlinux /vmlinuz " + line + "\n}\n");
        check_one(computer.names(), {"/boot/grub/grub.cfg:2: ", parameter});
    }
    Computer computer;
    scratch::spill(computer.root.proc + "/cmdline",
                   std::string("root=UUID=") + uuid + " x=/dev/sdb y=8:1 root=8:16\n");
    CHECK(computer.names() == Texts{});
}

TEST_CASE("References: a device node is the main if its number is, whatever it is called",
          "[references]") {
    Computer computer;
    const std::string node = computer.root.dev + "/node";
    const std::string other = computer.root.dev + "/other";
    const std::string upper = computer.root.dev + "/upper";
    if (::mknod(node.c_str(), S_IFBLK | 0600, ::makedev(8, 1)) != 0 ||
        ::mknod(other.c_str(), S_IFBLK | 0600, ::makedev(8, 1)) != 0 ||
        ::mknod(upper.c_str(), S_IFBLK | 0600, ::makedev(254, 0)) != 0) {
        WARN("not tried: no right to make device nodes");
        return;
    }
    computer.main.path = node;
    const remap::MainNames names(computer.main, computer.host);
    CHECK(names.named("/dev/other") == remap::Named::by_device);
    CHECK(names.named("/dev/upper") == remap::Named::no);
    CHECK(names.lies_on_main("/dev/upper"));
    computer.link("disk/by-uuid/inner", "upper");
    CHECK(names.lies_on_main("UUID=inner"));
    CHECK_FALSE(names.lies_on_main("/dev/sdb"));

    // Root on a volume of the main.
    computer.config("/etc/fstab", "UUID=inner / ext4\n");
    CHECK(remap::holds_root(names, computer.host));
}

TEST_CASE("Boot use: what firmware or a boot loader reads is refused", "[references]") {
    for (const char* type :
         {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "0xef",
          "21686148-6449-6e6f-744e-656564454649", "9e1a2d38-c612-4316-aa26-8b49521e5a8b", "0x41",
          "bc13c2ff-59e6-4262-a352-b275fd6f7172"}) {
        Computer computer;
        scratch::spill(computer.root.udev_db + "/b8:1",
                       std::string("E:ID_PART_ENTRY_TYPE=") + type + "\n");
        INFO(type);
        check_one(computer.boot(), {"without dm-remap", "leave it as it is"});
    }
    Computer linux_type;
    scratch::spill(linux_type.root.udev_db + "/b8:1", "E:ID_PART_ENTRY_TYPE=0x83\n");
    CHECK(linux_type.boot() == Texts{});

    for (const char* folder : {"/boot", "/boot/efi", "/efi"}) {
        for (const std::string& source : {std::string("UUID=") + uuid, std::string("/dev/sda1")}) {
            Computer computer;
            computer.config("/etc/fstab", source + " " + folder + " ext4\n");
            check_one(computer.boot(),
                      {"/etc/fstab:1: it is mounted on " + std::string(folder), "boot loader"});
        }
    }
}

TEST_CASE("Boot use: a root that holds the kernels is refused, one with a separate /boot is not",
          "[references]") {
    Computer computer;
    computer.config("/etc/fstab", std::string("UUID=") + uuid + " / ext4\n");
    CHECK(computer.boot() == Texts{});
    computer.config("/boot/grub/grub.cfg", "\n");
    check_one(computer.boot(), {"/boot: lies on it", "partition of its own"});
    computer.config("/etc/fstab", std::string("UUID=") + uuid + " / ext4\n/dev/sdb /boot ext4\n");
    CHECK(computer.boot() == Texts{});
}

TEST_CASE("Boot use: swap that the machine hibernates to is refused", "[references]") {
    const std::string by_uuid = std::string("UUID=") + uuid;
    for (const std::string& value : {by_uuid, std::string("/dev/sda1"), std::string("8:1")}) {
        INFO(value);
        Computer computer;
        computer.main.type = "swap";
        scratch::spill(computer.root.proc + "/cmdline", "ro resume=" + value + "\n");
        check_one(computer.boot(), {"/proc/cmdline: ", "hibernates", "noresume"});
        CHECK(computer.names() == Texts{});
        scratch::spill(computer.root.proc + "/cmdline", "ro\n");
        computer.config("/etc/initramfs-tools/conf.d/resume", "RESUME=" + value + "\n");
        check_one(computer.boot(), {"/etc/initramfs-tools/conf.d/resume:1: ", "write RESUME=none"});
        computer.config("/etc/initramfs-tools/conf.d/resume", "RESUME=none\n");
        CHECK(computer.boot() == Texts{});
        computer.config("/etc/default/grub", "GRUB_CMDLINE_LINUX=resume=" + value + "\n");
        check_one(computer.boot(), {"/etc/default/grub:1: ", "hibernates"});
    }
    Computer computer;
    fs::create_directories(computer.root.sys + "/power");
    // dm-0 lies on sda1.
    fs::create_directories(computer.path("dm-0") + "/slaves/sda1");
    scratch::spill(computer.root.sys + "/power/resume", "254:0\n");
    check_one(computer.boot(), {"/sys/power/resume: ", "254:0"});
    for (const char* number : {"0:0\n", "8:16\n"}) {
        scratch::spill(computer.root.sys + "/power/resume", number);
        CHECK(computer.boot() == Texts{});
    }
}

TEST_CASE("Boot use: for a root each kernel's initramfs must be able to open a set",
          "[references]") {
    const Texts whole = {"usr/lib/modules/6.1.0/updates/dkms/dm-remap.ko.xz",
                         "usr/sbin/remapsetup",
                         "usr/sbin/remap-fsck",
                         "usr/lib/udev/rules.d/59-remap-bare.rules",
                         "usr/lib/udev/rules.d/60-remap.rules",
                         "scripts/local-top/remap"};
    Computer computer;
    const std::string root_line = std::string("UUID=") + uuid + " / ext4\n";
    computer.config("/etc/fstab", root_line + "/dev/sdb /boot ext4\n");
    computer.config("/boot/vmlinuz-6.1.0", "");
    computer.config("/boot/initrd.img-6.1.0", "");
    computer.config("/usr/sbin/update-initramfs", "");
    computer.config("/lib/modules/6.1.0/updates/dkms/dm-remap.ko.xz", "");
    const std::string image = computer.host.path("/boot/initrd.img-6.1.0");

    check_one(computer.boot(), {"/boot/initrd.img-6.1.0: cannot be listed"});
    computer.listed[image] = whole;
    CHECK(computer.boot() == Texts{});
    for (const std::string& part : whole) {
        Texts rest = whole;
        rest.erase(std::find(rest.begin(), rest.end(), part));
        computer.listed[image] = rest;
        INFO(part);
        check_one(computer.boot(),
                  {"/boot/initrd.img-6.1.0: lacks ", "run \"update-initramfs -u -k 6.1.0\""});
        CHECK_FALSE(contains(computer.boot().front(), "dkms install"));
    }
    // A module of another name is not ours; one that was never built has to be.
    computer.listed[image] = whole;
    computer.listed[image][0] = "usr/lib/modules/6.1.0/xdm-remap.ko";
    fs::remove_all(computer.host.path("/lib/modules/6.1.0"));
    check_one(computer.boot(), {"lacks the module dm-remap,",
                                "dkms install dm-remap/" REMAP_TOOL_VERSION " -k 6.1.0"});

    // dracut's names and hook.
    fs::remove(computer.host.path("/usr/sbin/update-initramfs"));
    fs::remove(image);
    computer.config("/boot/initramfs-6.1.0.img", "");
    const std::string other = computer.host.path("/boot/initramfs-6.1.0.img");
    computer.listed[other] = whole;
    computer.listed[other].back() = "usr/lib/udev/rules.d/69-remap-initqueue.rules";
    CHECK(computer.boot() == Texts{});
    computer.listed[other].pop_back();
    check_one(computer.boot(), {"dracut --force /boot/initramfs-6.1.0.img --kver 6.1.0"});
    fs::remove(other);
    check_one(computer.boot(), {"kernel 6.1.0: no initramfs was found"});

    // Not a root: nobody asks.
    computer.config("/etc/fstab", std::string("UUID=") + uuid + " /srv ext4\n");
    CHECK(computer.boot() == Texts{});
}

TEST_CASE("Boot use: the listing of a real initramfs is read", "[references]") {
    const scratch::Folder folder;
    remap::Host host;
    host.root = folder.path().string();
    fs::create_directories(folder.file("boot"));
    scratch::spill(folder.file("boot/vmlinuz-6.1.0"), "");
    scratch::spill(folder.file("boot/initrd.img-6.1.0"), "no archive");
    check_one(remap::objections_to_initramfs(host), {"cannot be listed"});

    const std::string tree = folder.file("tree");
    for (const char* file : {"usr/lib/modules/6.1.0/dm-remap.ko", "usr/sbin/remapsetup",
                             "usr/sbin/remap-fsck", "usr/lib/udev/rules.d/59-remap-bare.rules",
                             "usr/lib/udev/rules.d/60-remap.rules", "scripts/local-top/remap"}) {
        fs::create_directories(fs::path(tree) / fs::path(file).parent_path());
        scratch::spill(tree + "/" + file, "x");
    }
    const auto packed =
        scratch::run({"sh", "-c",
                      "command -v lsinitramfs >/dev/null && command -v cpio >/dev/null "
                      "&& cd \"$0\" && find . | cpio --quiet -o -H newc | gzip >\"$1\"",
                      tree, folder.file("boot/initrd.img-6.1.0")});
    if (packed.code != 0) {
        WARN("not tried: no lsinitramfs or no cpio");
        return;
    }
    CHECK(remap::objections_to_initramfs(host) == Texts{});
}

TEST_CASE("Format lists the set before the write that decides, and not if nothing comes of it",
          "[references]") {
    // What is said by a line of the job's progress, and whether the set is listed by then.
    struct Watch : remap::Observer {
        explicit Watch(std::string file) : tab(std::move(file)) {}
        void progress(const std::string& what, std::uint64_t /*done*/,
                      std::uint64_t /*total*/) override {
            seen[what] = fs::exists(tab) && contains(scratch::slurp(tab), "data UUID=");
            if (what == "hiding the payload" && disaster) {
                disaster();
            }
        }
        std::string tab;
        std::function<void()> disaster;
        std::map<std::string, bool> seen;
    };
    Computer computer;
    remap::FormatOptions options;
    options.main = computer.folder.file("main");
    options.spare = computer.folder.file("spare");
    options.remaptab = computer.folder.file("remaptab");
    options.label = "data";
    options.host = computer.host;
    scratch::make_image(options.main, 4U << 20);
    scratch::make_image(options.spare, 4U << 20);
    Watch watch(*options.remaptab);

    options.rescue_file = computer.folder.file("no/such/folder/rescue");
    CHECK_THROWS_AS(remap::FormatJob(options).run(watch), remap::Error);
    CHECK(scratch::slurp(*options.remaptab).empty());

    // It ends half-way: what is on the spare decides whether the set stays in the list.
    options.rescue_file = "none";
    const auto spare = options.spare;
    watch.disaster = [&spare] {
        scratch::spill(spare, std::string(4U << 20, '\0'));
        throw remap::Error(remap::Exit::operational, "the spare was overwritten");
    };
    CHECK_THROWS_AS(remap::FormatJob(options).run(watch), remap::Error);
    CHECK(watch.seen.at("hiding the payload"));
    CHECK(scratch::slurp(*options.remaptab).empty());
    // A line that was there before is somebody else's, and stays.
    const std::string line = "data UUID=01234567-89ab-cdef-0123-456789abcdef noauto\n";
    scratch::spill(*options.remaptab, line);
    scratch::make_image(options.main, 4U << 20);
    options.uuid = "01234567-89ab-cdef-0123-456789abcdef";
    CHECK_THROWS_AS(remap::FormatJob(options).run(watch), remap::Error);
    CHECK(scratch::slurp(*options.remaptab) == line);
    options.uuid.clear();
    scratch::spill(*options.remaptab, "");
    scratch::make_image(options.main, 4U << 20);
    watch.disaster = [] { throw remap::Error(remap::Exit::operational, "the power failed"); };
    CHECK_THROWS_AS(remap::FormatJob(options).run(watch), remap::Error);
    CHECK(contains(scratch::slurp(*options.remaptab), "data UUID="));
    scratch::make_image(options.main, 4U << 20);
    scratch::make_image(options.spare, 4U << 20);
    scratch::spill(*options.remaptab, "");
    watch.disaster = nullptr;

    CHECK(remap::FormatJob(options).run(watch).name == "data");
    CHECK_FALSE(watch.seen.at("copying to the spare"));
    CHECK(watch.seen.at("hiding the payload"));
    // Once more with another spare's set on that spare: its line goes with it.
    options.main = computer.folder.file("other");
    options.force = true;
    for (const char* label : {"data", "other"}) {
        options.label = label;
        scratch::make_image(options.main, 4U << 20);
        CHECK(remap::FormatJob(options).run(watch).name == label);
        const std::string tab = scratch::slurp(*options.remaptab);
        CHECK(tab.substr(0, tab.find(' ')) == label);
        CHECK(std::count(tab.begin(), tab.end(), '\n') == 1);
        options.uuid = "01234567-89ab-cdef-0123-456789abcdef";
    }
    // A dry run shows the line, if it is that of the set that will be made.
    options.dry_run = true;
    scratch::make_image(options.main, 4U << 20);
    CHECK(contains(remap::FormatJob(options).consequences(),
                   "\nother UUID=01234567-89ab-cdef-0123-456789abcdef"));
    options.uuid.clear();
    CHECK_FALSE(contains(remap::FormatJob(options).consequences(), "UUID="));
}

TEST_CASE("Format refuses what the machine would not find again, unless forced", "[references]") {
    Computer computer;
    const std::string main = computer.root.dev + "/sda1";
    const std::string spare = computer.folder.file("spare");
    scratch::make_image(main, 4U << 20);
    scratch::make_image(spare, 4U << 20);
    computer.config("/etc/fstab", "/dev/sda1 /srv ext4\n");

    remap::FormatOptions options;
    options.main = main;
    options.spare = spare;
    options.rescue_file = "none";
    options.label = "data";
    options.host = computer.host;
    try {
        const remap::FormatJob job(options);
        FAIL("not refused");
    } catch (const remap::Error& error) {
        CHECK(error.code() == remap::Exit::usage);
        CHECK(contains(error.what(), "/etc/fstab:1: names it /dev/sda1"));
        CHECK(contains(error.what(), "write /dev/mapper/data instead"));
        CHECK(contains(error.what(), "--force"));
    }
    options.force = true;
    options.dry_run = true;
    const remap::FormatJob forced(options);
    CHECK(contains(forced.consequences(), "/etc/fstab:1: names it /dev/sda1"));
    options.force = false;
    computer.config("/etc/fstab", "/dev/mapper/data /srv ext4\n");
    options.host = computer.host;
    const remap::FormatJob fine(options);
    CHECK_FALSE(contains(fine.consequences(), "fstab"));
}
