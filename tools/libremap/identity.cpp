// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/identity.hpp"

#include <blkid/blkid.h>
#include <dm-remap-format.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>

namespace remap {
namespace {

namespace fs = std::filesystem;

/// Attribute files of sysfs are small; what is longer is not one we know.
constexpr std::size_t max_attribute = 4096;

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::string text(max_attribute, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
    return text;
}

/// Cuts white space and everything unprintable at both ends.
std::string trimmed(const std::string& text) {
    const auto keep = [](unsigned char c) { return c > ' ' && c < 0x7f; };
    const auto first = std::find_if(text.begin(), text.end(), keep);
    const auto last = std::find_if(text.rbegin(), std::make_reverse_iterator(first), keep).base();
    return {first, last};
}

std::string attribute(const fs::path& path) {
    return trimmed(read_file(path));
}

/// A decimal number, 0 for anything else.
std::uint64_t number(const std::string& text) {
    std::uint64_t value = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') {
            return 0;
        }
        value = value * 10 + static_cast<std::uint64_t>(c - '0');
    }
    return value;
}

std::string devno_text(dev_t devno) {
    return std::to_string(major(devno)) + ":" + std::to_string(minor(devno));
}

std::optional<dev_t> parse_devno(const std::string& text) {
    const auto colon = text.find(':');
    if (colon == std::string::npos) {
        return std::nullopt;
    }
    return makedev(static_cast<unsigned>(number(text.substr(0, colon))),
                   static_cast<unsigned>(number(text.substr(colon + 1))));
}

std::vector<std::string> directory_names(const fs::path& path) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
        names.push_back(it->path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
}

fs::path block_dir(const std::string& name, const MachineRoot& root) {
    return fs::path(root.sys) / "class" / "block" / name;
}

/// Kernel name of the whole disk: the parent directory in sysfs's device tree.
std::string whole_disk(const fs::path& dir, const std::string& name) {
    std::error_code error;
    const fs::path real = fs::canonical(dir, error);
    return error ? name : real.parent_path().filename().string();
}

std::string node_path(const BlockDevice& device, const MachineRoot& root) {
    if (!device.dm_name.empty()) {
        const std::string mapper = root.dev + "/mapper/" + device.dm_name;
        if (fs::exists(mapper)) {
            return mapper;
        }
    }
    std::string name = device.name;
    std::replace(name.begin(), name.end(), '!', '/');
    return root.dev + "/" + name;
}

std::optional<BlockDevice> load_block_device(const std::string& name, const MachineRoot& root) {
    const fs::path dir = block_dir(name, root);
    const auto devno = parse_devno(attribute(dir / "dev"));
    if (!devno) {
        return std::nullopt;
    }
    BlockDevice device;
    device.name = name;
    device.devno = *devno;
    device.size = number(attribute(dir / "size"));
    device.is_partition = fs::exists(dir / "partition");
    device.whole = device.is_partition ? whole_disk(dir, name) : name;
    device.read_only = attribute(dir / "ro") == "1";
    device.dm_name = attribute(dir / "dm" / "name");
    device.dm_uuid = attribute(dir / "dm" / "uuid");
    device.holders = directory_names(dir / "holders");
    device.logical_block = static_cast<std::uint32_t>(
        number(attribute(block_dir(device.whole, root) / "queue" / "logical_block_size")));
    device.path = node_path(device, root);
    return device;
}

bool never_a_member(const std::string& name) {
    static constexpr std::array prefixes = {"fd", "sr", "ram", "zram"};
    return std::any_of(prefixes.begin(), prefixes.end(), [&](const char* prefix) {
        const std::size_t n = std::strlen(prefix);
        return name.compare(0, n, prefix) == 0 && name.size() > n && name[n] >= '0' &&
               name[n] <= '9';
    });
}

/// The unit serial number page of SCSI: four bytes of header, then the text.
std::string scsi_serial(const fs::path& device_dir) {
    const std::string page = read_file(device_dir / "vpd_pg80");
    return page.size() > 4 ? trimmed(page.substr(4)) : std::string();
}

std::string first_of(std::initializer_list<std::string> values) {
    for (const std::string& value : values) {
        if (!value.empty()) {
            return value;
        }
    }
    return {};
}

using ProbePtr = std::unique_ptr<std::remove_pointer_t<blkid_probe>, decltype(&blkid_free_probe)>;

/// What the partition table of the whole disk says of a partition, for machines (initramfs, rescue)
/// where udev does not tell. `ask` turns libblkid's partition into the text, or nullptr.
std::string from_table(const BlockDevice& device, const MachineRoot& root,
                       const std::function<const char*(blkid_partition)>& ask) {
    const auto whole = load_block_device(device.whole, root);
    if (!whole || root.dev != "/dev") {
        return {};
    }
    const ProbePtr probe(blkid_new_probe_from_filename(whole->path.c_str()), blkid_free_probe);
    if (!probe) {
        return {};
    }
    blkid_probe_enable_superblocks(probe.get(), 0);
    blkid_probe_enable_partitions(probe.get(), 1);
    blkid_partlist list = blkid_probe_get_partitions(probe.get());
    blkid_partition part =
        list != nullptr ? blkid_partlist_devno_to_partition(list, device.devno) : nullptr;
    const char* text = part != nullptr ? ask(part) : nullptr;
    return text != nullptr ? text : "";
}

std::string type_from_table(const BlockDevice& device, const MachineRoot& root) {
    std::array<char, 16> number{};
    const auto ask = [&number](blkid_partition part) -> const char* {
        if (const char* guid = blkid_partition_get_type_string(part)) {
            return guid;
        }
        std::snprintf(number.data(), number.size(), "0x%x",
                      static_cast<unsigned int>(blkid_partition_get_type(part)));
        return number.data();
    };
    return from_table(device, root, ask);
}

/// As long as what a superblock can record, or the two would never compare equal.
Identity as_recorded(Identity id) {
    id.wwn = id.wwn.substr(0, REMAP_WWN_SIZE);
    id.serial = id.serial.substr(0, REMAP_SERIAL_SIZE);
    id.partuuid = id.partuuid.substr(0, REMAP_PARTUUID_SIZE);
    return id;
}

/// Devices below @p name in the stack, itself included.
void collect_stack(const std::string& name, const MachineRoot& root, std::set<std::string>& seen) {
    if (!seen.insert(name).second) {
        return;
    }
    for (const std::string& slave : directory_names(block_dir(name, root) / "slaves")) {
        collect_stack(slave, root, seen);
    }
}

std::vector<std::string> split(const std::string& line) {
    std::istringstream in(line);
    return {std::istream_iterator<std::string>(in), std::istream_iterator<std::string>()};
}

/// mountinfo and swaps write blanks as \040.
std::string unescaped(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text.compare(i, 4, "\\040") == 0) {
            out += ' ';
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

/// A line of mountinfo.
struct Mount {
    std::uint64_t id = 0;
    dev_t devno = 0;
    std::string target;
    std::string type;
    std::string source;
};

std::vector<Mount> read_mounts(const MachineRoot& root) {
    constexpr std::size_t devno_field = 2;
    constexpr std::size_t target_field = 4;
    std::vector<Mount> mounts;
    std::ifstream in(root.proc + "/self/mountinfo");
    for (std::string line; std::getline(in, line);) {
        const auto fields = split(line);
        // Between the options and this stands any number of tags.
        const auto dash = std::find(fields.begin(), fields.end(), "-");
        if (fields.size() <= target_field || fields.end() - dash < 3) {
            continue;
        }
        const auto devno = parse_devno(fields[devno_field]);
        mounts.push_back({number(fields[0]), devno.value_or(0), unescaped(fields[target_field]),
                          dash[1], unescaped(dash[2])});
    }
    return mounts;
}

/// The devices of a mount of btrfs, whose number is no device's: it names one of them there, and
/// all in sysfs. What others have for a source is not to be touched: it may lie on a server.
std::set<std::string> devices_of_mount(const Mount& mount, const MachineRoot& root) {
    if (mount.type != "btrfs" || mount.source.compare(0, 1, "/") != 0) {
        return {};
    }
    const auto named = block_device_of(mount.source, root);
    if (!named) {
        return {};
    }
    std::set<std::string> names{named->name};
    const fs::path btrfs = fs::path(root.sys) / "fs" / "btrfs";
    for (const std::string& one : directory_names(btrfs)) {
        const auto devices = directory_names(btrfs / one / "devices");
        if (std::find(devices.begin(), devices.end(), named->name) != devices.end()) {
            names.insert(devices.begin(), devices.end());
        }
    }
    return names;
}

void add_mounts(const BlockDevice& device, const MachineRoot& root,
                std::vector<std::string>& users) {
    for (const Mount& mount : read_mounts(root)) {
        if (mount.devno == device.devno ||
            (major(mount.devno) == 0 && devices_of_mount(mount, root).count(device.name) != 0)) {
            users.push_back("mounted on " + mount.target);
        }
    }
}

/// The mount that holds the path: a subvolume of btrfs has another number than its mount.
std::uint64_t mount_id(const fs::path& path) {
    struct statx status {};
    return ::statx(AT_FDCWD, path.c_str(), 0, STATX_MNT_ID, &status) == 0 &&
                   (status.stx_mask & STATX_MNT_ID) != 0
               ? status.stx_mnt_id
               : 0;
}

void add_swaps(const BlockDevice& device, const MachineRoot& root,
               std::vector<std::string>& users) {
    std::ifstream in(root.proc + "/swaps");
    for (std::string line; std::getline(in, line);) {
        const auto fields = split(line);
        if (fields.empty() || fields[0].empty() || fields[0][0] != '/') {
            continue;
        }
        struct stat st {};
        if (::stat(unescaped(fields[0]).c_str(), &st) == 0 && S_ISBLK(st.st_mode) &&
            st.st_rdev == device.devno) {
            users.emplace_back("in use as swap");
        }
    }
}

void add_holders(const BlockDevice& device, const MachineRoot& root,
                 std::vector<std::string>& users) {
    for (const std::string& holder : device.holders) {
        const auto other = load_block_device(holder, root);
        const bool named = other && !other->dm_name.empty();
        users.push_back("held by " + holder + (named ? " (" + other->dm_name + ")" : ""));
    }
}

void add_device_users(const BlockDevice& device, const MachineRoot& root,
                      std::vector<std::string>& users) {
    add_mounts(device, root, users);
    add_swaps(device, root, users);
    add_holders(device, root, users);
}

/// Partitions of a whole disk that are in use keep the disk in use.
void add_partition_users(const BlockDevice& device, const MachineRoot& root,
                         std::vector<std::string>& users) {
    if (device.is_partition) {
        return;
    }
    const fs::path dir = block_dir(device.name, root);
    for (const std::string& name : directory_names(dir)) {
        if (!fs::exists(dir / name / "partition")) {
            continue;
        }
        if (const auto part = load_block_device(name, root)) {
            std::vector<std::string> inner;
            add_device_users(*part, root, inner);
            for (const std::string& user : inner) {
                users.push_back("its partition " + name + " is " + user);
            }
        }
    }
}

/// Loop devices whose backing file is the one that @p st describes.
void add_loops(const struct stat& st, const MachineRoot& root, std::vector<std::string>& users) {
    for (const std::string& name : directory_names(fs::path(root.sys) / "class" / "block")) {
        if (name.compare(0, 4, "loop") != 0) {
            continue;
        }
        const std::string file = attribute(block_dir(name, root) / "loop" / "backing_file");
        struct stat backing {};
        if (!file.empty() && ::stat(file.c_str(), &backing) == 0 && backing.st_dev == st.st_dev &&
            backing.st_ino == st.st_ino) {
            users.push_back("attached to " + name);
        }
    }
}

}  // namespace

Identity::Match Identity::compare(const Identity& other) const {
    Match result = Match::unknown;
    for (const auto field : {&Identity::wwn, &Identity::serial, &Identity::partuuid}) {
        const std::string& mine = this->*field;
        const std::string& theirs = other.*field;
        if (mine.empty() || theirs.empty()) {
            continue;
        }
        if (mine != theirs) {
            return Match::different;
        }
        result = Match::same;
    }
    const bool of_partition =
        (whole && !other.partuuid.empty()) || (other.whole && !partuuid.empty());
    return result == Match::same && of_partition ? Match::different : result;
}

std::string Identity::describe() const {
    std::string text;
    const auto add = [&text](const char* name, const std::string& value) {
        if (!value.empty()) {
            text += (text.empty() ? "" : ", ") + std::string(name) + " " + value;
        }
    };
    add("wwn", wwn);
    add("serial", serial);
    add("partuuid", partuuid);
    return text.empty() ? "no hardware identity" : text;
}

std::optional<BlockDevice> find_block_device(dev_t devno, const MachineRoot& root) {
    std::error_code error;
    const fs::path dir =
        fs::canonical(fs::path(root.sys) / "dev" / "block" / devno_text(devno), error);
    if (error) {
        return std::nullopt;
    }
    return load_block_device(dir.filename().string(), root);
}

std::optional<BlockDevice> block_device_named(const std::string& name, const MachineRoot& root) {
    return load_block_device(name, root);
}

std::optional<BlockDevice> block_device_of(const std::string& path, const MachineRoot& root) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0 || !S_ISBLK(st.st_mode)) {
        return std::nullopt;
    }
    auto device = find_block_device(st.st_rdev, root);
    if (device) {
        device->path = path;
    }
    return device;
}

std::vector<BlockDevice> list_block_devices(const MachineRoot& root) {
    std::vector<BlockDevice> devices;
    for (const std::string& name : directory_names(fs::path(root.sys) / "class" / "block")) {
        if (never_a_member(name)) {
            continue;
        }
        auto device = load_block_device(name, root);
        if (device && device->size > 0) {
            devices.push_back(std::move(*device));
        }
    }
    return devices;
}

bool is_leg_of_another_device(const BlockDevice& device, const MachineRoot& root) {
    for (const std::string& name : device.holders) {
        if (name.compare(0, 2, "md") == 0) {
            return true;
        }
        const auto holder = load_block_device(name, root);
        if (holder && holder->dm_uuid.compare(0, 6, "mpath-") == 0) {
            return true;
        }
    }
    return udev_property(device, "DM_MULTIPATH_DEVICE_PATH", root) == "1" ||
           udev_property(device, "DM_UDEV_DISABLE_OTHER_RULES_FLAG", root) == "1";
}

Identity kernel_identity(const BlockDevice& device, const MachineRoot& root) {
    const fs::path disk = block_dir(device.whole, root);
    Identity id;
    id.size = device.size;
    id.whole = !device.is_partition;
    id.wwn = first_of({attribute(disk / "wwid"), attribute(disk / "device" / "wwid")});
    id.serial = first_of({attribute(disk / "serial"), attribute(disk / "device" / "serial"),
                          scsi_serial(disk / "device"), attribute(disk / "dm" / "uuid"),
                          attribute(disk / "md" / "uuid")});
    if (device.is_partition) {
        // udev's property is libblkid's, from the same table.
        id.partuuid = first_of({udev_property(device, "ID_PART_ENTRY_UUID", root),
                                from_table(device, root, blkid_partition_get_uuid)});
    }
    return as_recorded(id);
}

Identity identify(const BlockDevice& device, const MachineRoot& root) {
    // The kernel's own values come first: they are there in every initramfs, and
    // identity must not change with what happens to be installed.
    Identity id = kernel_identity(device, root);
    id.wwn = first_of({id.wwn, udev_property(device, "ID_WWN", root)});
    id.serial = first_of({id.serial, udev_property(device, "ID_SERIAL_SHORT", root)});
    return as_recorded(id);
}

bool waits_for_resume(const BlockDevice& device, const MachineRoot& root) {
    std::set<std::string> stack;
    collect_stack(device.name, root, stack);
    collect_stack(device.whole, root, stack);
    return std::any_of(stack.begin(), stack.end(), [&](const std::string& name) {
        return attribute(block_dir(name, root) / "dm" / "suspended") == "1";
    });
}

std::vector<std::string> slaves_of(const BlockDevice& device, const MachineRoot& root) {
    return directory_names(block_dir(device.name, root) / "slaves");
}

Identity identify_path(const std::string& path, const MachineRoot& root) {
    if (const auto device = block_device_of(path, root)) {
        return identify(*device, root);
    }
    Identity id;
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode)) {
        id.size = static_cast<std::uint64_t>(st.st_size) / 512;
    }
    return id;
}

std::vector<std::string> users_of(const std::string& path, const MachineRoot& root) {
    std::vector<std::string> users;
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) {
        return users;
    }
    if (S_ISREG(st.st_mode)) {
        add_loops(st, root, users);
    } else if (const auto device = block_device_of(path, root)) {
        add_device_users(*device, root, users);
        add_partition_users(*device, root, users);
    }
    return users;
}

std::vector<dev_t> devices_below_file(const std::string& path, const MachineRoot& root) {
    struct stat st {};
    fs::path existing = path;
    while (::stat(existing.c_str(), &st) != 0) {
        if (!existing.has_parent_path() || existing == existing.parent_path()) {
            existing = ".";
            if (::stat(existing.c_str(), &st) != 0) {
                return {};
            }
            break;
        }
        existing = existing.parent_path();
    }
    if (major(st.st_dev) != 0) {
        return {st.st_dev};
    }
    std::vector<dev_t> devices;
    const std::uint64_t id = mount_id(existing);
    for (const Mount& mount : read_mounts(root)) {
        if (mount.id != id) {
            continue;
        }
        for (const std::string& name : devices_of_mount(mount, root)) {
            if (const auto device = load_block_device(name, root)) {
                devices.push_back(device->devno);
            }
        }
    }
    return devices;
}

bool file_lies_on(const std::string& path, const BlockDevice& device, const MachineRoot& root) {
    const auto below = devices_below_file(path, root);
    return std::any_of(below.begin(), below.end(),
                       [&](dev_t devno) { return device_lies_on(devno, device, root); });
}

bool device_lies_on(dev_t upper, const BlockDevice& device, const MachineRoot& root) {
    const auto top = find_block_device(upper, root);
    if (!top) {
        return false;
    }
    std::set<std::string> stack;
    collect_stack(top->name, root, stack);
    return std::any_of(stack.begin(), stack.end(), [&](const std::string& name) {
        const auto part = load_block_device(name, root);
        return name == device.name || (part && part->whole == device.name);
    });
}

std::string partition_type(const BlockDevice& device, const MachineRoot& root) {
    if (!device.is_partition) {
        return {};
    }
    std::string type = first_of(
        {udev_property(device, "ID_PART_ENTRY_TYPE", root), type_from_table(device, root)});
    std::transform(type.begin(), type.end(), type.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return type;
}

std::string udev_property(const BlockDevice& device, const std::string& key,
                          const MachineRoot& root) {
    std::ifstream in(root.udev_db + "/b" + devno_text(device.devno));
    const std::string prefix = "E:" + key + "=";
    for (std::string line; std::getline(in, line);) {
        if (line.compare(0, prefix.size(), prefix) == 0) {
            return line.substr(prefix.size());
        }
    }
    return {};
}

}  // namespace remap
