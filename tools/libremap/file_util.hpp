// SPDX-License-Identifier: GPL-2.0-or-later
//
// Writing ordinary files so that they are there after a power cut.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace remap {

/// A file descriptor that is closed at the end of its scope; negative for none.
class FileHandle {
  public:
    explicit FileHandle(int fd) : fd_(fd) {}
    ~FileHandle();
    FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    FileHandle(const FileHandle&) = delete;
    FileHandle& operator=(const FileHandle&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

/// Writes everything. `path` is for the message of the Error that is thrown.
void write_all(int fd, const void* data, std::size_t bytes, const std::string& path);

/// fsync. Throws Error.
void sync_file(int fd, const std::string& path);

/// Makes a name that was created or replaced durable. Throws Error.
void sync_directory_of(const std::string& path);

/// Waits until nobody else holds the directory of `path` by this call, and holds it until the
/// descriptor is closed. Throws Error.
FileHandle lock_directory_of(const std::string& path);

}  // namespace remap
