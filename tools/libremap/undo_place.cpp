// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/undo_place.hpp"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "libremap/device_use.hpp"
#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

namespace fs = std::filesystem;

constexpr const char* lasting = "/var/lib/dm-remap";
constexpr const char* until_reboot = "/run/dm-remap";
constexpr const char* prefix = "fsck-";
constexpr const char* suffix = ".undo";
constexpr std::size_t uuid_length = 36;
constexpr mode_t folder_mode = 0700;

/// dracut's have the file; initramfs-tools' are known by the file system that a kernel unpacks to.
bool in_initramfs() {
    struct statfs root {};

    return ::access("/etc/initrd-release", F_OK) == 0 ||
           (::statfs("/", &root) == 0 &&
            (root.f_type == RAMFS_MAGIC || root.f_type == TMPFS_MAGIC));
}

std::string time_text(std::uint64_t time) {
    std::array<char, 32> text{};
    const auto seconds = static_cast<std::time_t>(time);
    struct tm parts {};

    gmtime_r(&seconds, &parts);
    static_cast<void>(std::strftime(text.data(), text.size(), "%Y%m%dT%H%M%SZ", &parts));
    return text.data();
}

/// Is that the name of a file of ours?
bool is_undo_name(const std::string& name) {
    const std::string start = prefix;
    const std::string end = suffix;

    return name.size() > start.size() + uuid_length + end.size() &&
           name.compare(0, start.size(), start) == 0 &&
           Uuid::parse(name.substr(start.size(), uuid_length)).has_value() &&
           name.compare(name.size() - end.size(), end.size(), end) == 0;
}

struct Kept {
    fs::file_time_type time;
    fs::path path;
};

/// Removes all but `newest` and the `count` - 1 newest others of those whose names begin with
/// `start`.
void keep_newest(const std::string& folder, const std::string& start, std::size_t count,
                 const std::string& newest) {
    std::vector<Kept> files;
    std::error_code ignored;

    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
        const std::string name = entry.path().filename().string();
        if (entry.path() != newest && is_undo_name(name) &&
            name.compare(0, start.size(), start) == 0 &&
            entry.symlink_status(ignored).type() == fs::file_type::regular)
            files.push_back({entry.last_write_time(ignored), entry.path()});
    }
    std::sort(files.begin(), files.end(), [](const Kept& a, const Kept& b) {
        return a.time != b.time ? a.time > b.time : a.path > b.path;
    });
    for (std::size_t i = count - 1; i < files.size(); i++)
        fs::remove(files[i].path, ignored);
}

}  // namespace

std::vector<std::string> state_directories() {
    if (const char* named = std::getenv("REMAP_STATE_DIR"))
        return {named};
    if (in_initramfs())
        return {until_reboot};
    return {lasting, until_reboot};
}

std::string new_undo_path(const std::string& folder, const Uuid& set, std::uint64_t time) {
    const std::string start = cat(folder, "/", prefix, set, "-", time_text(time));
    std::string path = cat(start, suffix);
    std::error_code ignored;

    for (unsigned int n = 1; fs::symlink_status(path, ignored).type() != fs::file_type::not_found;
         n++) {
        if (ignored || n > kept_of_all)
            break;  // opening it gives the reason
        path = cat(start, "-", n, suffix);
    }
    return path;
}

std::unique_ptr<UndoFileSink> make_default_undo(const std::string& folder, const Uuid& set,
                                                std::uint64_t time, std::uint64_t bytes) {
    struct statfs room {};

    if (folder.empty())
        throw Error(Exit::operational, "no state directory is named");
    if (::mkdir(folder.c_str(), folder_mode) != 0 && errno != EEXIST)
        throw Error(Exit::operational, cat(folder, ": ", std::strerror(errno)));
    if (::statfs(folder.c_str(), &room) != 0)
        throw Error(Exit::operational, cat(folder, ": ", std::strerror(errno)));
    // In the initramfs it is memory that the boot needs for other things as well.
    const std::uint64_t free =
        static_cast<std::uint64_t>(room.f_bavail) * static_cast<std::uint64_t>(room.f_bsize);
    if (bytes > free / 2)
        throw Error(Exit::operational,
                    cat(folder, ": expected room for twice ", bytes, " bytes, found ", free));
    return std::make_unique<UndoFileSink>(new_undo_path(folder, set, time));
}

void prune_undo_files(const std::string& folder, const Uuid& set, const std::string& newest) {
    keep_newest(folder, cat(prefix, set), kept_of_set, newest);
    keep_newest(folder, prefix, kept_of_all, newest);
}

namespace {

/// Throws if that would lie on a device that is written to, as far as can be told.
void require_elsewhere(const std::string& path, const std::vector<std::string>& devices) {
    for (const std::string& device : devices) {
        struct stat status {};
        if (::stat(device.c_str(), &status) == 0 && lies_on(path, status))
            throw Error(Exit::operational,
                        cat(path, ": lies on ", device, ", which is to be written to"));
    }
}

/// In the first state directory that takes it; else null, and `why`.
std::unique_ptr<UndoFileSink> open_default(const UndoWish& wish, const UndoHeader& header,
                                           std::uint64_t bytes, std::string& why) {
    for (const std::string& folder : state_directories()) {
        try {
            require_elsewhere(folder, wish.devices);
            return make_default_undo(folder, header.set_uuid, header.time, bytes);
        } catch (const Error& error) {
            why += cat(why.empty() ? "" : "; ", error.what());
        }
    }
    return nullptr;
}

std::unique_ptr<UndoFileSink> open_named(const UndoWish& wish) {
    require_elsewhere(*wish.file, wish.devices);
    return std::make_unique<UndoFileSink>(*wish.file);
}

}  // namespace

std::unique_ptr<UndoFileSink> keep_undo(const UndoWish& wish, const UndoHeader& header,
                                        const WriteJournal& journal, BlockIo& spare, BlockIo* main,
                                        const std::function<void(const std::string&)>& warn) {
    std::string why;
    auto sink = wish.file ? open_named(wish) : open_default(wish, header, undo_size(journal), why);

    if (!sink) {
        warn(why);
        return nullptr;
    }
    try {
        write_undo(*sink, header, journal, spare, main);
    } catch (const Error& error) {
        sink->discard();
        if (wish.file)
            throw;
        warn(error.what());
        return nullptr;
    }
    if (!wish.file)
        prune_undo_files(fs::path(sink->path()).parent_path().string(), header.set_uuid,
                         sink->path());
    return sink;
}

}  // namespace remap
