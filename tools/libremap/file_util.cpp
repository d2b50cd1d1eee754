// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/file_util.hpp"

#include <fcntl.h>
#include <sys/file.h>
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

FileHandle open_directory_of(const std::string& path) {
    const std::string parent = std::filesystem::path(path).parent_path().string();
    const int fd =
        ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        fail(path, "cannot open its directory", errno);
    }
    return FileHandle(fd);
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
    while (::fsync(fd) != 0) {
        if (errno != EINTR) {
            fail(path, "cannot make it durable", errno);
        }
    }
}

void sync_directory_of(const std::string& path) {
    const FileHandle dir = open_directory_of(path);
    if (::fsync(dir.get()) != 0) {
        fail(path, "cannot make its name durable", errno);
    }
}

FileHandle lock_directory_of(const std::string& path) {
    FileHandle dir = open_directory_of(path);
    while (::flock(dir.get(), LOCK_EX) != 0) {
        if (errno != EINTR) {
            fail(path, "cannot lock its directory", errno);
        }
    }
    return dir;
}

}  // namespace remap
