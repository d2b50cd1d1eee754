// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/boot_use.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>

#include "libremap/file_util.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

namespace fs = std::filesystem;

constexpr const char* raw_reader =
    " reads it without dm-remap and would find nothing; leave it as it is";

struct PartitionType {
    std::string_view type;
    std::string_view text;
};

/// Partitions that are read before any kernel runs.
constexpr std::array<PartitionType, 6> firmware_partitions = {{
    {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "an EFI system partition: the firmware"},
    {"0xef", "an EFI system partition: the firmware"},
    {"21686148-6449-6e6f-744e-656564454649", "a BIOS boot partition: the boot loader"},
    {"9e1a2d38-c612-4316-aa26-8b49521e5a8b", "a PReP boot partition: the firmware"},
    {"0x41", "a PReP boot partition: the firmware"},
    {"bc13c2ff-59e6-4262-a352-b275fd6f7172", "an extended boot partition: the boot loader"},
}};

void check_partition_type(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    if (!names.main().device) {
        return;
    }
    const std::string type = partition_type(*names.main().device, host.machine);
    for (const PartitionType& firmware : firmware_partitions) {
        if (type == firmware.type) {
            out.push_back(cat(names.main().path, ": partition type ", type, " is ", firmware.text,
                              raw_reader));
        }
    }
}

/// The line of fstab for a mount point.
struct Mount {
    std::string where;
    std::string source;
    std::string target;
};

std::vector<Mount> fstab_mounts(const Host& host) {
    std::vector<Mount> mounts;
    for (const ConfigLine& line : config_lines(host, "/etc/fstab")) {
        const auto words = config_words(line.text);
        if (words.size() > 1) {
            mounts.push_back({line.where, fstab_text(words[0]), fstab_text(words[1])});
        }
    }
    return mounts;
}

bool is_main(const MainNames& names, const std::string& word) {
    return names.named(word) != Named::no || names.lies_on_main(word);
}

/// Does the folder of the running machine lie on the main now?
bool mounted_from_main(const MainNames& names, const Host& host, const std::string& folder) {
    const auto& device = names.main().device;
    return device && host.root.empty() && fs::exists(folder) &&
           file_lies_on(folder, *device, host.machine);
}

bool holds_kernels(const Host& host, const std::string& folder) {
    const auto files = files_in(host, folder);
    return std::any_of(files.begin(), files.end(), [](const std::string& file) {
        const std::string name = fs::path(file).filename().string();
        return name.compare(0, 7, "vmlinuz") == 0 || name.compare(0, 4, "grub") == 0 ||
               name == "loader" || name == "extlinux";
    });
}

void check_boot_folder(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    constexpr const char* loader = ": the boot loader";
    bool separate = false;
    for (const Mount& mount : fstab_mounts(host)) {
        const bool boot = mount.target == "/boot";
        separate = separate || boot;
        const bool mine = boot || mount.target == "/boot/efi" || mount.target == "/efi";
        if (mine && is_main(names, mount.source)) {
            out.push_back(
                cat(mount.where, ": it is mounted on ", mount.target, loader, raw_reader));
            return;
        }
    }
    const bool with_root = !separate && holds_root(names, host);
    if ((with_root || mounted_from_main(names, host, "/boot")) && holds_kernels(host, "/boot")) {
        out.push_back(cat("/boot: lies on it", loader,
                          " reads kernel and initramfs from there without dm-remap and would not "
                          "find them; give /boot a partition of its own first"));
    }
}

/// One place where the swap for hibernation is named.
struct Resume {
    std::string where;
    std::string value;
};

std::vector<Resume> resume_settings(const Host& host) {
    std::vector<Resume> settings;
    for (const KernelParameter& parameter : kernel_parameters(host)) {
        if (parameter.key == "resume") {
            settings.push_back({parameter.where, parameter.value});
        }
    }
    std::vector<std::string> files = {"/etc/initramfs-tools/initramfs.conf"};
    const auto more = files_in(host, "/etc/initramfs-tools/conf.d");
    files.insert(files.end(), more.begin(), more.end());
    for (const std::string& file : files) {
        for (const ConfigLine& line : config_lines(host, file)) {
            constexpr std::string_view key = "RESUME=";
            for (const std::string& word : config_words(line.text)) {
                if (word.compare(0, key.size(), key) == 0) {
                    settings.push_back({line.where, word.substr(key.size())});
                }
            }
        }
    }
    return settings;
}

void check_hibernation(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    constexpr const char* why =
        ", but a kernel that resumes from a set would go on with old metadata in its memory; ";
    for (const Resume& setting : resume_settings(host)) {
        if (is_main(names, setting.value) || names.is_number(setting.value)) {
            const bool generator = setting.where.compare(0, 5, "/etc/") == 0 &&
                                   setting.where.find("initramfs-tools") != std::string::npos;
            out.push_back(cat(setting.where,
                              ": the machine hibernates to it (resume=", setting.value, ")", why,
                              "write ", generator ? "RESUME=none" : "noresume",
                              " instead, or hibernate to another swap"));
        }
    }
    std::ifstream in(host.machine.sys + "/power/resume");
    std::string number;
    in >> number;
    const auto& device = names.main().device;
    if (!device || number.empty() || number == "0:0") {
        return;
    }
    for (const BlockDevice& each : list_block_devices(host.machine)) {
        if (number == cat(gnu_dev_major(each.devno), ":", gnu_dev_minor(each.devno)) &&
            device_lies_on(each.devno, *device, host.machine)) {
            out.push_back(cat("/sys/power/resume: the machine hibernates to it (", number, ")", why,
                              "boot with noresume"));
        }
    }
}

// --- initramfs --------------------------------------------------------------------------------

/// Runs a program; its standard output line by line, nothing if it cannot be run or fails.
std::optional<std::vector<std::string>> lines_of(const std::vector<std::string>& words) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return std::nullopt;
    }
    const FileHandle reading(ends[0]);
    pid_t pid = 0;
    int error = 0;
    {
        const FileHandle writing(ends[1]);
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        ::posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
        std::vector<char*> argv;
        for (const std::string& word : words) {
            argv.push_back(const_cast<char*>(word.c_str()));
        }
        argv.push_back(nullptr);
        error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
        ::posix_spawn_file_actions_destroy(&actions);
    }
    if (error != 0) {
        return std::nullopt;
    }
    std::string text;
    std::array<char, 65536> buffer{};
    for (;;) {
        const ssize_t got = ::read(reading.get(), buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return std::nullopt;
    }
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
        lines.push_back(line);
    }
    return lines;
}

/// lsinitrd prints a listing like that of ls: the name is the last word, or what is before "->".
std::string name_in_listing(const std::string& line) {
    const std::string text = line.substr(0, line.find(" -> "));
    return text.substr(text.find_last_of(' ') + 1);
}

std::optional<std::vector<std::string>> list_with_programs(const std::string& image) {
    auto names = lines_of({"lsinitramfs", image});
    if (!names) {
        names = lines_of({"lsinitrd", image});
    }
    if (!names || names->empty()) {
        return std::nullopt;
    }
    for (std::string& name : *names) {
        name = name_in_listing(name);
    }
    return names;
}

bool ends_with(const std::string& text, std::string_view end) {
    return text.size() >= end.size() &&
           text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Is the module among these paths, packed or not?
bool has_module(const std::vector<std::string>& paths) {
    return std::any_of(paths.begin(), paths.end(), [](const std::string& path) {
        for (const char* end : {".ko", ".ko.xz", ".ko.zst", ".ko.gz"}) {
            if (ends_with(path, cat("/dm-remap", end))) {
                return true;
            }
        }
        return false;
    });
}

bool has_file(const std::vector<std::string>& paths, std::string_view end) {
    return std::any_of(paths.begin(), paths.end(),
                       [end](const std::string& path) { return ends_with(path, end); });
}

std::string missing_parts(const std::vector<std::string>& paths) {
    std::string text;
    const auto lacks = [&text](const char* what) { text += cat(text.empty() ? "" : ", ", what); };
    if (!has_module(paths)) {
        lacks("the module dm-remap");
    }
    for (const char* file : {"sbin/remapsetup", "sbin/remap-fsck", "rules.d/59-remap-bare.rules",
                             "rules.d/60-remap.rules"}) {
        if (!has_file(paths, file)) {
            lacks(file);
        }
    }
    if (!has_file(paths, "scripts/local-top/remap") &&
        !has_file(paths, "rules.d/69-remap-initqueue.rules")) {
        lacks("the hook that opens sets");
    }
    return text;
}

/// Everything below a kernel's folder of modules.
std::vector<std::string> modules_of(const Host& host, const std::string& version) {
    std::vector<std::string> paths;
    std::error_code error;
    for (fs::recursive_directory_iterator it(host.path(cat("/lib/modules/", version)),
                                             fs::directory_options::skip_permission_denied, error),
         end;
         !error && it != end; it.increment(error)) {
        paths.push_back(it->path().string());
    }
    return paths;
}

/// Kernels that a boot loader can start: with an image in /boot, or beside their modules.
std::set<std::string> kernels(const Host& host) {
    std::set<std::string> versions;
    constexpr std::string_view image = "/boot/vmlinuz-";
    for (const std::string& file : files_in(host, "/boot")) {
        if (file.compare(0, image.size(), image) == 0 &&
            file.find("rescue", image.size()) == std::string::npos) {
            versions.insert(file.substr(image.size()));
        }
    }
    constexpr std::string_view modules = "/lib/modules/";
    for (const std::string& folder : files_in(host, "/lib/modules")) {
        if (fs::exists(host.path(folder + "/vmlinuz"))) {
            versions.insert(folder.substr(modules.size()));
        }
    }
    return versions;
}

std::string initramfs_of(const Host& host, const std::string& version) {
    for (const std::string& file :
         {cat("/boot/initrd.img-", version), cat("/boot/initramfs-", version, ".img"),
          cat("/boot/initrd-", version)}) {
        if (fs::exists(host.path(file))) {
            return file;
        }
    }
    return {};
}

std::string mending(const Host& host, const std::string& version, const std::string& image) {
    std::string text;
    if (!has_module(modules_of(host, version))) {
        text = cat("install the module for this kernel (\"dkms install dm-remap/",
                   REMAP_TOOL_VERSION, " -k ", version, "\"), then ");
    }
    const bool debian = fs::exists(host.path("/usr/sbin/update-initramfs"));
    return cat(text, "run \"",
               debian
                   ? cat("update-initramfs -u -k ", version)
                   : cat("dracut --force ", image.empty() ? "" : image + " ", "--kver ", version),
               "\"");
}

}  // namespace

bool holds_root(const MainNames& names, const Host& host) {
    const auto mounts = fstab_mounts(host);
    const bool listed = std::any_of(mounts.begin(), mounts.end(), [&](const Mount& mount) {
        return mount.target == "/" && is_main(names, mount.source);
    });
    return listed || mounted_from_main(names, host, "/");
}

std::vector<std::string> objections_to_initramfs(const Host& host) {
    std::vector<std::string> out;
    for (const std::string& version : kernels(host)) {
        const std::string image = initramfs_of(host, version);
        if (image.empty()) {
            out.push_back(cat("kernel ", version,
                              ": no initramfs was found for it in /boot, "
                              "without one the root's set is not opened; ",
                              mending(host, version, image)));
            continue;
        }
        const auto names = host.list_initramfs ? host.list_initramfs(host.path(image))
                                               : list_with_programs(host.path(image));
        if (!names) {
            out.push_back(cat(image,
                              ": cannot be listed (neither lsinitramfs nor lsinitrd could), "
                              "so that it is not known whether it can open the root's set"));
            continue;
        }
        const std::string missing = missing_parts(*names);
        if (!missing.empty()) {
            out.push_back(cat(image, ": lacks ", missing, ", and could not open the root's set; ",
                              mending(host, version, image)));
        }
    }
    return out;
}

std::vector<std::string> objections_to_boot(const MainNames& names, const Host& host) {
    std::vector<std::string> out;
    check_partition_type(names, host, out);
    check_boot_folder(names, host, out);
    check_hibernation(names, host, out);
    if (holds_root(names, host)) {
        const auto more = objections_to_initramfs(host);
        out.insert(out.end(), more.begin(), more.end());
    }
    return out;
}

}  // namespace remap
