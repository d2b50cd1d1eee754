// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/device_use.hpp"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <vector>

#include "libremap/file_util.hpp"
#include "libremap/identity.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

namespace fs = std::filesystem;

fs::path sysfs_of(dev_t device) {
    return cat("/sys/dev/block/", major(device), ":", minor(device));
}

/// "8:1" in such a file of sysfs.
std::optional<dev_t> number_in(const fs::path& file) {
    std::ifstream in(file);
    unsigned int first = 0;
    unsigned int second = 0;
    char colon = 0;

    if (in >> first >> colon >> second && colon == ':')
        return makedev(first, second);
    return std::nullopt;
}

std::string first_line(const fs::path& file) {
    std::ifstream in(file);
    std::string line;

    std::getline(in, line);
    return line;
}

std::vector<fs::path> entries(const fs::path& folder) {
    std::vector<fs::path> paths;
    std::error_code ignored;

    for (const auto& entry : fs::directory_iterator(folder, ignored))
        paths.push_back(entry.path());
    return paths;
}

bool same_disk(dev_t a, dev_t b) {
    return a == b || whole_disk(a) == b || whole_disk(b) == a;
}

/// What a loop device lies over, as it says itself, or as the path in sysfs tells.
struct Backing {
    bool known = false;
    dev_t filesystem = 0;
    ino_t inode = 0;
    dev_t device = 0;  ///< of the block device that it is, or 0
    std::string path;
};

Backing backing_of(const fs::path& loop) {
    Backing backing;
    loop_info64 info{};
    struct stat status {};
    const FileHandle fd(
        ::open(cat("/dev/", loop.filename().string()).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));

    backing.path = first_line(loop / "loop/backing_file");
    if (fd.get() >= 0 && ::ioctl(fd.get(), LOOP_GET_STATUS64, &info) == 0) {
        backing.known = true;
        backing.filesystem = info.lo_device;
        backing.inode = info.lo_inode;
        backing.device = info.lo_rdevice;
    } else if (::stat(backing.path.c_str(), &status) == 0) {
        backing.known = true;
        backing.filesystem = status.st_dev;
        backing.inode = status.st_ino;
        backing.device = S_ISBLK(status.st_mode) ? status.st_rdev : 0;
    }
    return backing;
}

bool is_over(const Backing& backing, const std::string& path, const struct stat& status) {
    if (!backing.known) {
        const std::string name = fs::path(backing.path).filename().string();
        return name == fs::path(path).filename().string() ||
               (S_ISREG(status.st_mode) && status.st_nlink > 1);
    }
    if (S_ISBLK(status.st_mode))
        return backing.device != 0 && same_disk(backing.device, status.st_rdev);
    return backing.filesystem == status.st_dev && backing.inode == status.st_ino;
}

/// Follows devices downwards.
class Below {
  public:
    explicit Below(const struct stat& target) : target_(target) {}

    bool reaches(dev_t device) {
        if (device == 0 || !seen_.insert(device).second)
            return false;
        if (S_ISBLK(target_.st_mode) && device == target_.st_rdev)
            return true;
        const fs::path sysfs = sysfs_of(device);
        for (const fs::path& slave : entries(sysfs / "slaves")) {
            const auto number = number_in(slave / "dev");
            if (number && reaches(*number))
                return true;
        }
        if (whole_disk(device) != device && reaches(whole_disk(device)))
            return true;
        return reaches_backing(first_line(sysfs / "loop/backing_file"));
    }

    bool reaches_file(const std::string& path) {
        const auto devices = devices_below_file(path);
        return std::any_of(devices.begin(), devices.end(),
                           [this](dev_t device) { return reaches(device); });
    }

  private:
    bool reaches_backing(const std::string& file) {
        struct stat status {};

        if (file.empty() || ::stat(file.c_str(), &status) != 0)
            return false;
        if (S_ISBLK(status.st_mode))
            return reaches(status.st_rdev);
        return (status.st_dev == target_.st_dev && status.st_ino == target_.st_ino) ||
               reaches_file(file);
    }

    const struct stat& target_;
    std::set<dev_t> seen_;
};

}  // namespace

dev_t whole_disk(dev_t device) {
    std::error_code error;
    const fs::path sysfs = fs::canonical(sysfs_of(device), error);

    if (error || !fs::exists(sysfs / "partition", error))
        return device;
    return number_in(sysfs.parent_path() / "dev").value_or(device);
}

std::string holders_of(dev_t device) {
    std::string names;
    std::error_code ignored;
    const auto add = [&names](const fs::path& folder) {
        for (const fs::path& holder : entries(folder / "holders"))
            names += cat(names.empty() ? "" : ", ", holder.filename().string());
    };

    add(sysfs_of(device));
    for (const fs::path& child : entries(sysfs_of(device))) {
        if (fs::exists(child / "partition", ignored))
            add(child);
    }
    return names;
}

std::string loop_over(const std::string& path, const struct stat& status) {
    std::error_code ignored;

    for (const fs::path& device : entries("/sys/block")) {
        if (fs::exists(device / "loop/backing_file", ignored) &&
            is_over(backing_of(device), path, status))
            return cat("/dev/", device.filename().string());
    }
    return {};
}

bool lies_on(const std::string& path, const struct stat& device) {
    return Below(device).reaches_file(path);
}

}  // namespace remap
