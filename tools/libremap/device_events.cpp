// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/device_events.hpp"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <thread>

namespace remap {
namespace {

constexpr std::chrono::milliseconds crowd{100};

/// A handle that watches a folder, or none.
FileHandle watch(const std::string& folder) {
    FileHandle fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    // udev writes each file beside its place and renames it.
    if (fd.get() >= 0 && ::inotify_add_watch(fd.get(), folder.c_str(),
                                             IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE) < 0) {
        return FileHandle(-1);
    }
    return fd;
}

}  // namespace

DeviceEvents::DeviceEvents(const std::string& udev_db) : fd_(watch(udev_db)) {}

bool DeviceEvents::wait(std::chrono::milliseconds patience) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + patience;
    if (fd_.get() < 0) {
        std::this_thread::sleep_for(patience);
        return false;
    }
    for (;;) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        pollfd waiting{fd_.get(), POLLIN, 0};
        const int limit =
            static_cast<int>(std::clamp<std::chrono::milliseconds::rep>(left.count(), 0, INT_MAX));
        if (::poll(&waiting, 1, limit) <= 0) {
            return false;
        }
        // Events come in crowds: at boot, and whenever somebody triggers them all.
        std::this_thread::sleep_for(crowd);
        if (drain()) {
            return true;
        }
    }
}

bool DeviceEvents::drain() {
    bool found = false;
    alignas(inotify_event) std::array<char, 16384> events{};
    for (;;) {
        const ssize_t n = ::read(fd_.get(), events.data(), events.size());
        if (n <= 0) {
            return found;
        }
        for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
            inotify_event event{};
            std::memcpy(&event, events.data() + at, sizeof(event));
            // Block devices have a file "b<major>:<minor>". Without a name: events were lost.
            found = found || event.len == 0 || events[at + sizeof(event)] == 'b';
            at += sizeof(event) + event.len;
        }
    }
}

}  // namespace remap
