// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/file_util.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what, int error) {
    throw Error(Exit::operational, cat(path, ": ", what, ": ", std::strerror(error)));
}

}  // namespace

FileHandle::~FileHandle() {
    if (fd_ >= 0) {
        ::close(fd_);
    }
}

void write_all(int fd, const void* data, std::size_t bytes, const std::string& path) {
    const char* at = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t n = ::write(fd, at, bytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            fail(path, "cannot write", n < 0 ? errno : ENOSPC);
        }
        at += n;
        bytes -= static_cast<std::size_t>(n);
    }
}

void sync_file(int fd, const std::string& path) {
    if (::fsync(fd) != 0) {
        fail(path, "cannot make it durable", errno);
    }
}

void sync_directory_of(const std::string& path) {
    const std::string parent = std::filesystem::path(path).parent_path().string();
    const FileHandle dir(
        ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (dir.get() < 0 || ::fsync(dir.get()) != 0) {
        fail(path, "cannot make its name durable", errno);
    }
}

}  // namespace remap
