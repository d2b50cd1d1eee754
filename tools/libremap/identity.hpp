// SPDX-License-Identifier: GPL-2.0-or-later
//
// Who a block device is and who uses it, as sysfs, the udev database and
// /proc tell.  Everything here only reads.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace remap {

/// Where the kernel's and udev's view of the machine is read; tests put a
/// recorded tree here.
struct MachineRoot {
    std::string sys = "/sys";
    std::string proc = "/proc";
    std::string udev_db = "/run/udev/data";
    std::string dev = "/dev";
};

/// What ties a member to a piece of hardware.  Recorded in the superblock and
/// used to choose between several devices that carry the same label.
struct Identity {
    std::string wwn;
    std::string serial;
    std::string partuuid;
    std::uint64_t size = 0;  ///< sectors
    bool whole = false;      ///< of a device that is no partition; not recorded

    enum class Match { same, different, unknown };

    /// Compares the fields that both sides have.  One that differs means
    /// different; none in common means unknown.  The size alone proves nothing.
    /// A whole disk is not the partition on it, which has its WWN and serial.
    [[nodiscard]] Match compare(const Identity& other) const;
    [[nodiscard]] bool empty() const { return wwn.empty() && serial.empty() && partuuid.empty(); }
    /// "wwn naa.5000…, serial X", or "no hardware identity".
    [[nodiscard]] std::string describe() const;
};

/// One block device as sysfs shows it.
struct BlockDevice {
    std::string name;  ///< kernel name, "sda1"
    std::string path;  ///< device node
    dev_t devno = 0;
    std::uint64_t size = 0;            ///< sectors
    std::uint32_t logical_block = 0;   ///< bytes
    std::string whole;                 ///< kernel name of the whole disk; itself if not a partition
    std::string dm_name;               ///< device-mapper name, if it is one
    std::string dm_uuid;               ///< device-mapper UUID, if it is one
    std::vector<std::string> holders;  ///< kernel names of what is stacked on it
    bool is_partition = false;
    bool read_only = false;
};

/// The device with number @p devno, or nothing if sysfs does not know it.
std::optional<BlockDevice> find_block_device(dev_t devno, const MachineRoot& root = {});

/// The device that the kernel calls @p name ("sda1"), or nothing.
std::optional<BlockDevice> block_device_named(const std::string& name,
                                              const MachineRoot& root = {});

/// The device behind the node @p path (links are followed); nothing for what is
/// not a block device.
std::optional<BlockDevice> block_device_of(const std::string& path, const MachineRoot& root = {});

/// All block devices of a size above zero, in the order of their names, without
/// those that are never members (fd, sr, ram, zram).
std::vector<BlockDevice> list_block_devices(const MachineRoot& root = {});

/// May a device carry a member at all?  Not if it is a leg of MD or multipath, or
/// hidden from other rules by device-mapper: there the same label is seen twice. What
/// libblkid says of it is asked by is_leg().
bool is_leg_of_another_device(const BlockDevice& device, const MachineRoot& root = {});

/// Is the device, or anything below it, suspended by device-mapper?  Whoever reads it waits.
bool waits_for_resume(const BlockDevice& device, const MachineRoot& root = {});

/// Identity of the hardware behind @p device; fields that cannot be found stay
/// empty.
Identity identify(const BlockDevice& device, const MachineRoot& root = {});

/// What of it the kernel and the partition table tell, without help from the udev database: the
/// same at a device's first event, in every initramfs.
Identity kernel_identity(const BlockDevice& device, const MachineRoot& root = {});

/// The kernel names of what the device is stacked on.
std::vector<std::string> slaves_of(const BlockDevice& device, const MachineRoot& root = {});

/// Identity of a path: a block device's, or only the size of an image file.
Identity identify_path(const std::string& path, const MachineRoot& root = {});

/// Who uses the device, in words for an error message ("mounted on /srv", "held by
/// dm-3 (vg-root)", "in use as swap"); empty if nobody does.  For an image file the
/// loop devices attached to it count.
std::vector<std::string> users_of(const std::string& path, const MachineRoot& root = {});

/// The block devices that the file system holding @p path is made on; if that file does not exist,
/// the nearest folder above it counts.  One, or several with btrfs; none for a file system without.
std::vector<dev_t> devices_below_file(const std::string& path, const MachineRoot& root = {});

/// Does the file system that holds @p path lie on @p device, directly or through
/// what is stacked between them?
bool file_lies_on(const std::string& path, const BlockDevice& device, const MachineRoot& root = {});

/// Does the block device numbered @p upper lie on @p device, directly or through what is stacked
/// between them?  A device lies on itself.
bool device_lies_on(dev_t upper, const BlockDevice& device, const MachineRoot& root = {});

/// The type that the partition table gives a partition, a GUID in lower case or "0x83"; empty for
/// what is no partition, or if it cannot be found.
std::string partition_type(const BlockDevice& device, const MachineRoot& root = {});

/// One property of the udev database, empty if unknown.
std::string udev_property(const BlockDevice& device, const std::string& key,
                          const MachineRoot& root = {});

}  // namespace remap
