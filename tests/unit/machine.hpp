// SPDX-License-Identifier: GPL-2.0-or-later
//
// A machine's /sys, /proc and udev database as a recorded tree instead of hardware.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include "libremap/identity.hpp"
#include "scratch.hpp"

namespace fixture {

namespace fs = std::filesystem;

/// A /sys, /proc and udev database with two SCSI disks, one with a partition that carries a
/// dm device, a multipath leg, an MD leg and a RAM disk.
class Machine {
  public:
    Machine() {
        root.sys = folder.file("sys");
        root.proc = folder.file("proc");
        root.udev_db = folder.file("udev");
        root.dev = folder.file("dev");
        fs::create_directories(root.udev_db);
        fs::create_directories(root.proc + "/self");
        fs::create_directories(root.sys + "/class/block");
        fs::create_directories(root.sys + "/dev/block");
        disk("sda", "8:0", 100000);
        put("sda", "device/wwid", "naa.5000c500a1b2c3d4\n");
        put("sda", "device/vpd_pg80", std::string("\x00\x80\x00\x08", 4) + "  SERIAL1  ");
        partition("sda", "sda1", "8:1", 50000);
        disk("sdb", "8:16", 200000);
        put("sdb", "serial", "VIRTIO-SN\n");
        disk("sdc", "8:32", 1000);
        disk("sdd", "8:48", 1000);
        disk("sde", "8:64", 0);
        disk("ram0", "1:0", 100);
        disk("zram0", "253:0", 100);
        disk("dm-0", "254:0", 40000);
        put("dm-0", "dm/name", "vg-root\n");
        put("dm-0", "dm/uuid", "LVM-abcdef\n");
        fs::create_directories(path("dm-0") + "/slaves/sda1");
        fs::create_directories(path("sda") + "/sda1/holders/dm-0");
        disk("md0", "9:0", 900);
        fs::create_directories(path("sdc") + "/holders/md0");
        scratch::spill(root.udev_db + "/b8:48", "S:x\nE:DM_MULTIPATH_DEVICE_PATH=1\n");
        scratch::spill(root.udev_db + "/b8:1",
                       "E:ID_PART_ENTRY_UUID=0cafe000-01\nE:ID_PART_ENTRY_UUIDX=no\n");
        scratch::spill(root.proc + "/self/mountinfo",
                       "30 1 8:16 / /srv/with\\040blank rw - ext4 /dev/sdb rw\n");
    }

    remap::BlockDevice device(const char* name) const {
        for (const auto& each : remap::list_block_devices(root)) {
            if (each.name == name) {
                return each;
            }
        }
        throw std::runtime_error(std::string("no device ") + name);
    }

    std::string path(const std::string& name) const { return root.sys + "/devices/" + name; }

    void put(const std::string& name, const std::string& attribute, const std::string& text) {
        const fs::path file = fs::path(path(name)) / attribute;
        fs::create_directories(file.parent_path());
        scratch::spill(file.string(), text);
    }

    scratch::Folder folder;
    remap::MachineRoot root;

  protected:
    void link(const std::string& target, const std::string& name, const std::string& devno) {
        fs::create_symlink(target, root.sys + "/class/block/" + name);
        fs::create_symlink(target, root.sys + "/dev/block/" + devno);
    }
    void disk(const std::string& name, const std::string& devno, unsigned int sectors) {
        put(name, "dev", devno + "\n");
        put(name, "size", std::to_string(sectors) + "\n");
        put(name, "queue/logical_block_size", "4096\n");
        put(name, "ro", "0\n");
        link(path(name), name, devno);
    }
    void partition(const std::string& whole, const std::string& name, const std::string& devno,
                   unsigned int sectors) {
        put(whole, name + "/dev", devno + "\n");
        put(whole, name + "/size", std::to_string(sectors) + "\n");
        put(whole, name + "/partition", "1\n");
        link(path(whole) + "/" + name, name, devno);
    }
};

}  // namespace fixture
