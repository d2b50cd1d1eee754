// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/dm.hpp"

#include <fcntl.h>
#include <libdevmapper.h>
#include <spawn.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>

#include "libremap/error.hpp"
#include "libremap/file_util.hpp"
#include "libremap/text.hpp"
#include "libremap/uninterrupted.hpp"

namespace remap::dm {
namespace {

constexpr const char* target_type = "remap";
constexpr std::string_view uuid_prefix = "REMAP-";
constexpr std::size_t log_line = 1024;

/// libdevmapper reports through a callback without user data, hence this one variable.
std::string& last_message() {
    static std::string text;
    return text;
}

// The signature is libdevmapper's.
__attribute__((format(printf, 5, 6))) void keep_message(int level, const char* /*file*/,
                                                        int /*line*/, int /*error*/,
                                                        const char* format, ...) {
    constexpr int level_mask = 0x07;
    if ((level & level_mask) > LOG_ERR) {
        return;
    }
    std::array<char, log_line> text{};
    va_list args;
    va_start(args, format);
    std::vsnprintf(text.data(), text.size(), format, args);
    va_end(args);
    last_message() = text.data();
}

void start_logging() {
    last_message().clear();
    dm_log_with_errno_init(keep_message);
}

/// What the kernel logs about device-mapper while this object lives.
class KernelLog {
  public:
    KernelLog() : fd_(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
        if (fd_.get() >= 0) {
            ::lseek(fd_.get(), 0, SEEK_END);
        }
    }

    /// The new lines that concern us, joined by "; ".
    std::string lines() {
        std::string text;
        std::array<char, 8192> record{};
        while (fd_.get() >= 0) {
            const ssize_t n = ::read(fd_.get(), record.data(), record.size());
            if (n < 0 && errno == EPIPE) {
                continue;
            }
            if (n <= 0) {
                break;
            }
            add(std::string(record.data(), static_cast<std::size_t>(n)), text);
        }
        return text;
    }

  private:
    static void add(const std::string& record, std::string& text) {
        const auto start = record.find(';');
        const std::string line =
            start == std::string::npos
                ? ""
                : record.substr(start + 1, record.find('\n', start) - start - 1);
        if (line.find("device-mapper:") != std::string::npos ||
            line.find("remap") != std::string::npos) {
            text += (text.empty() ? "" : "; ") + line;
        }
    }

    FileHandle fd_;
};

class Task {
  public:
    explicit Task(int type) : task_(dm_task_create(type), dm_task_destroy) {
        if (!task_) {
            fail("cannot prepare a request");
        }
    }

    dm_task* get() { return task_.get(); }
    bool run() { return dm_task_run(task_.get()) != 0; }
    /// errno of the ioctl that failed.
    int error() { return dm_task_get_errno(task_.get()); }

    [[noreturn]] static void fail(const std::string& what) {
        throw Error(
            Exit::operational,
            cat("device-mapper: ", what, last_message().empty() ? "" : cat(": ", last_message())));
    }

  private:
    std::unique_ptr<dm_task, decltype(&dm_task_destroy)> task_;
};

/// Is there a device-mapper in this kernel at all? Opening the node loads its module if need be.
bool available() {
    const FileHandle control(::open("/dev/mapper/control", O_RDWR | O_CLOEXEC));
    return control.get() >= 0;
}

/// Where no static node exists (no udev, a small initramfs) nothing else loads device-mapper; its
/// targets it loads itself.
void load_module() {
    std::string words[] = {"modprobe", "-q", "dm_mod"};
    char* argv[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
    pid_t pid = 0;
    if (::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv, environ) == 0) {
        ::waitpid(pid, nullptr, 0);
    }
}

/// Does the kernel know our target? To be asked when a table was refused: the kernel has tried to
/// load the module then.
bool has_target() {
    Task task(DM_DEVICE_LIST_VERSIONS);
    if (!task.run()) {
        return true;  // a kernel that does not say is no kernel without it
    }
    const dm_versions* each = dm_task_get_versions(task.get());
    for (;;) {
        if (std::strcmp(each->name, target_type) == 0) {
            return true;
        }
        if (each->next == 0) {
            return false;
        }
        each =
            reinterpret_cast<const dm_versions*>(reinterpret_cast<const char*>(each) + each->next);
    }
}

[[noreturn]] void fail_without_target(const std::string& name) {
    utsname kernel{};
    ::uname(&kernel);
    throw Error(Exit::operational,
                cat(name, ": kernel ", kernel.release,
                    " has no module dm-remap, or cannot load it. For reading the set opens without "
                    "it: remap-dump export --format dmtable --main MAIN SPARE | dmsetup create -r ",
                    name));
}

bool ours(const std::string& uuid) {
    return uuid.compare(0, uuid_prefix.size(), uuid_prefix) == 0;
}

std::optional<Device> info_of(Task& task, const std::string& what) {
    dm_info info{};
    if (!task.run() || dm_task_get_info(task.get(), &info) == 0) {
        if (task.error() == ENXIO) {
            return std::nullopt;
        }
        Task::fail(cat(what, ": cannot be looked up"));
    }
    if (info.exists == 0) {
        return std::nullopt;
    }
    Device device;
    device.name = dm_task_get_name(task.get());
    const char* uuid = dm_task_get_uuid(task.get());
    device.uuid = uuid != nullptr ? uuid : "";
    device.devno = makedev(info.major, info.minor);
    device.open_count = info.open_count;
    device.suspended = info.suspended != 0;
    device.read_only = info.read_only != 0;
    device.has_table = info.live_table != 0;
    return device;
}

/// Runs a task that makes or removes a device node, and waits for udev to have done it.
bool run_with_udev(Task& task, bool udev_sync) {
    std::uint32_t cookie = 0;
    if (!udev_sync) {
        dm_udev_set_sync_support(0);
    }
    if (dm_task_set_cookie(task.get(), &cookie, 0) == 0) {
        Task::fail("cannot make a cookie for udev");
    }
    const bool done = [&task] {
        // Between making the device and, if its table turns out to be of no use, removing it.
        const Uninterrupted until_done;
        return task.run();
    }();
    // Waiting also gives the cookie back, so it is done after a failure as well.
    dm_udev_wait(cookie);
    return done;
}

std::string target_line(int type, const std::string& name) {
    start_logging();
    Task task(type);
    dm_task_set_name(task.get(), name.c_str());
    dm_task_no_flush(task.get());
    if (!task.run()) {
        Task::fail(cat(name, ": cannot be asked for its state"));
    }
    std::uint64_t start = 0;
    std::uint64_t length = 0;
    char* target = nullptr;
    char* parameters = nullptr;
    dm_get_next_target(task.get(), nullptr, &start, &length, &target, &parameters);
    if (target == nullptr ||
        (std::strcmp(target, target_type) != 0 && std::strcmp(target, "dm-remap") != 0)) {
        throw Error(Exit::unrecognised, cat(name, ": expected target ", target_type, ", found ",
                                            target != nullptr ? target : "none"));
    }
    return parameters != nullptr ? parameters : "";
}

std::string devno_text(dev_t devno) {
    return cat(major(devno), ":", minor(devno));
}

}  // namespace

std::string device_uuid(const Uuid& set) {
    return std::string(uuid_prefix) + set.str();
}

std::vector<Device> list_devices() {
    std::vector<Device> devices;
    if (!available()) {
        return devices;
    }
    start_logging();
    Task task(DM_DEVICE_LIST);
    if (!task.run()) {
        Task::fail("cannot list devices");
    }
    const dm_names* names = dm_task_get_names(task.get());
    if (names == nullptr || names->dev == 0) {
        return devices;
    }
    for (;;) {
        const auto device = find_name(names->name);
        if (device && ours(device->uuid)) {
            devices.push_back(*device);
        }
        if (names->next == 0) {
            return devices;
        }
        names =
            reinterpret_cast<const dm_names*>(reinterpret_cast<const char*>(names) + names->next);
    }
}

std::optional<Device> find_set(const Uuid& set) {
    if (!available()) {
        return std::nullopt;
    }
    start_logging();
    Task task(DM_DEVICE_INFO);
    dm_task_set_uuid(task.get(), device_uuid(set).c_str());
    return info_of(task, set.str());
}

std::optional<Device> find_name(const std::string& name) {
    if (!available()) {
        return std::nullopt;
    }
    start_logging();
    Task task(DM_DEVICE_INFO);
    dm_task_set_name(task.get(), name.c_str());
    return info_of(task, name);
}

std::string table_parameters(const CreateRequest& request) {
    std::string text =
        cat(devno_text(request.main), " ", devno_text(request.spare), " ", request.features.size());
    for (const std::string& feature : request.features) {
        text += " " + feature;
    }
    return text;
}

void create(const CreateRequest& request) {
    if (!available()) {
        load_module();
    }
    if (!available()) {
        throw Error(Exit::operational, "this kernel has no device-mapper (module dm_mod)");
    }
    start_logging();
    KernelLog log;
    Task task(DM_DEVICE_CREATE);
    const bool prepared = dm_task_set_name(task.get(), request.name.c_str()) != 0 &&
                          dm_task_set_uuid(task.get(), device_uuid(request.set).c_str()) != 0 &&
                          dm_task_add_target(task.get(), 0, request.size, target_type,
                                             table_parameters(request).c_str()) != 0 &&
                          (!request.read_only || dm_task_set_ro(task.get()) != 0);
    if (!prepared) {
        Task::fail(cat(request.name, ": cannot prepare the request"));
    }
    if (run_with_udev(task, request.udev_sync)) {
        return;
    }
    const std::string logged = log.lines();
    const std::string refused = last_message();
    if (!has_target()) {
        fail_without_target(request.name);
    }
    last_message() = refused;
    Task::fail(
        cat(request.name, ": the kernel refused it", logged.empty() ? "" : cat(" (", logged, ")")));
}

void remove(const std::string& name, bool udev_sync) {
    start_logging();
    Task task(DM_DEVICE_REMOVE);
    if (dm_task_set_name(task.get(), name.c_str()) == 0) {
        Task::fail(cat(name, ": not a valid name"));
    }
    dm_task_retry_remove(task.get());
    if (run_with_udev(task, udev_sync)) {
        return;
    }
    if (task.error() == EBUSY) {
        throw BusyError(cat(name, ": in use (mounted, or held by another device)"));
    }
    Task::fail(cat(name, ": cannot be removed"));
}

std::string status_line(const std::string& name) {
    return target_line(DM_DEVICE_STATUS, name);
}

std::string table_line(const std::string& name) {
    return target_line(DM_DEVICE_TABLE, name);
}

}  // namespace remap::dm
