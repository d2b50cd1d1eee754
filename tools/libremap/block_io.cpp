// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/block_io.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "libremap/device_use.hpp"
#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {

IoError::IoError(const std::string& device, const char* what, std::uint64_t sector,
                 std::uint64_t sectors, int error)
    : Error(Exit::operational, cat(device, ": ", what, " of ", sectors, " sectors at sector ",
                                   sector, " failed: ", std::strerror(error))),
      sector_(sector),
      error_(error) {}

Error mismatch(Exit code, const std::string& device, std::uint64_t sector, const std::string& what,
               const std::string& expected, const std::string& found) {
    return {code, cat(device, ": sector ", sector, ": ", what, ": expected ", expected, ", found ",
                      found)};
}

void BlockIo::read(std::uint64_t sector, Bytes to) {
    if (const int error = try_read(sector, to))
        throw IoError(name(), "read", sector, to.size() / sector_size, error);
}

void BlockIo::write(std::uint64_t sector, ConstBytes from) {
    if (const int error = try_write(sector, from))
        throw IoError(name(), "write", sector, from.size() / sector_size, error);
}

void BlockIo::flush() {
    if (const int error = try_flush())
        throw Error(Exit::operational, cat(name(), ": flush failed: ", std::strerror(error)));
}

std::vector<std::uint8_t> BlockIo::read(std::uint64_t sector, std::uint64_t sectors) {
    std::vector<std::uint8_t> bytes(sectors * sector_size);
    read(sector, bytes);
    return bytes;
}

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t bounce_size = std::size_t{256} << 10;

}  // namespace

void AlignedBuffer::Free::operator()(std::uint8_t* memory) const {
    std::free(memory);
}

AlignedBuffer::AlignedBuffer(std::size_t bytes)
    : data_(static_cast<std::uint8_t*>(
          std::aligned_alloc(page, std::max(page, (bytes + page - 1) / page * page)))),
      size_(bytes) {
    if (!data_)
        throw std::bad_alloc();
    std::memset(data_.get(), 0, size_);
}

namespace {

class FileDescriptor {
  public:
    explicit FileDescriptor(int fd = -1) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&&) = delete;
    ~FileDescriptor() {
        if (fd_ >= 0)
            close(fd_);
    }

    int get() const { return fd_; }

  private:
    int fd_;
};

bool aligned(std::uint64_t value, std::uint64_t to) {
    return value % to == 0;
}

/// pread or pwrite of all bytes; 0 or an errno value.
template <typename Call, typename Byte>
int transfer(Call call, int fd, Byte* at, std::size_t size, std::uint64_t offset) {
    while (size > 0) {
        const ssize_t done = call(fd, at, size, static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        if (done == 0)
            return EIO;
        at += done;
        size -= static_cast<std::size_t>(done);
        offset += static_cast<std::uint64_t>(done);
    }
    return 0;
}

struct Geometry {
    std::uint64_t sectors = 0;
    std::uint32_t logical = sector_size;
    std::uint32_t physical = sector_size;
    bool block_device = false;
    bool direct = false;
};

class FileBlockIo : public BlockIo {
  public:
    FileBlockIo(std::string path, FileDescriptor fd, const Geometry& geometry)
        : name_(std::move(path)), fd_(std::move(fd)), geometry_(geometry) {}

    int try_read(std::uint64_t sector, Bytes to) override;
    int try_write(std::uint64_t sector, ConstBytes from) override;
    int try_flush() override;

    std::uint64_t size() const override { return geometry_.sectors; }
    std::uint32_t logical_block_size() const override { return geometry_.logical; }
    std::uint32_t physical_block_size() const override { return geometry_.physical; }
    const std::string& name() const override { return name_; }
    bool is_block_device() const override { return geometry_.block_device; }
    int fd() const override { return fd_.get(); }

  private:
    bool inside(std::uint64_t sector, std::size_t bytes) const;
    bool needs_bounce(const void* memory, std::uint64_t sector, std::size_t bytes) const;
    std::uint8_t* bounce(std::size_t bytes);
    int read_bounced(std::uint64_t offset, Bytes to);

    std::string name_;
    FileDescriptor fd_;
    Geometry geometry_;
    std::optional<AlignedBuffer> bounce_;
};

bool FileBlockIo::inside(std::uint64_t sector, std::size_t bytes) const {
    return sector <= geometry_.sectors && bytes / sector_size <= geometry_.sectors - sector;
}

bool FileBlockIo::needs_bounce(const void* memory, std::uint64_t sector, std::size_t bytes) const {
    if (!geometry_.direct)
        return false;
    return !aligned(reinterpret_cast<std::uintptr_t>(memory), page) ||
           !aligned(sector * sector_size, geometry_.logical) || !aligned(bytes, geometry_.logical);
}

/// The bounce buffer, with room for so many bytes. It is no larger than was needed so far: a probe
/// of each of a machine's devices must not touch 256 KiB for the sake of 16.
std::uint8_t* FileBlockIo::bounce(std::size_t bytes) {
    if (!bounce_ || bounce_->bytes().size() < bytes)
        bounce_.emplace(bytes);
    return bounce_->bytes().data();
}

/// Reads whole logical blocks into the bounce buffer and copies out what was asked for.
int FileBlockIo::read_bounced(std::uint64_t offset, Bytes to) {
    while (!to.empty()) {
        const std::uint64_t lead = offset % geometry_.logical;
        const std::size_t now = std::min<std::size_t>(to.size(), bounce_size - lead);
        const std::size_t whole =
            (lead + now + geometry_.logical - 1) / geometry_.logical * geometry_.logical;
        std::uint8_t* const buffer = bounce(whole);
        const int error = transfer(pread, fd_.get(), buffer, whole, offset - lead);
        if (error)
            return error;
        std::memcpy(to.data(), buffer + lead, now);
        to = to.subspan(now);
        offset += now;
    }
    return 0;
}

int FileBlockIo::try_read(std::uint64_t sector, Bytes to) {
    if (!inside(sector, to.size()))
        return EIO;
    if (needs_bounce(to.data(), sector, to.size()))
        return read_bounced(sector * sector_size, to);
    return transfer(pread, fd_.get(), to.data(), to.size(), sector * sector_size);
}

int FileBlockIo::try_write(std::uint64_t sector, ConstBytes from) {
    if (!inside(sector, from.size()))
        return ENOSPC;
    if (!aligned(sector * sector_size, geometry_.logical) ||
        !aligned(from.size(), geometry_.logical))
        return EINVAL;
    if (!needs_bounce(from.data(), sector, from.size()))
        return transfer(pwrite, fd_.get(), from.data(), from.size(), sector * sector_size);
    for (std::uint64_t offset = sector * sector_size; !from.empty();) {
        const std::size_t now = std::min(from.size(), bounce_size);
        std::uint8_t* const buffer = bounce(now);
        std::memcpy(buffer, from.data(), now);
        if (const int error = transfer(pwrite, fd_.get(), buffer, now, offset))
            return error;
        from = from.subspan(now);
        offset += now;
    }
    return 0;
}

int FileBlockIo::try_flush() {
    while (fsync(fd_.get()) != 0) {
        if (errno != EINTR)
            return errno;
    }
    return 0;
}

Error cannot_open(const std::string& path, int error) {
    return {Exit::operational, cat(path, ": cannot open: ", std::strerror(error))};
}

/// Locks an image file for as long as it is open, or throws BusyError. Where no lock is to be had
/// nobody can be kept out, and so it is not opened.
void lock_image(const std::string& path, int fd, const struct stat& image, Mode mode) {
    const auto busy = [&path](const std::string& why) {
        return BusyError(cat(path, ": in use: ", why));
    };
    if (const std::string loop = loop_over(path, image); !loop.empty())
        throw busy(cat("it backs ", loop));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            throw busy("locked by another program");
        throw Error(Exit::operational, cat(path, ": cannot be locked: ", std::strerror(errno)));
    }

    // A virtual machine that runs on the image holds byte-range locks instead. Ours keeps the next
    // one from starting; that of a reader conflicts with writers only, so look for the others.
    struct flock others {};
    others.l_type = F_WRLCK;
    others.l_whence = SEEK_SET;
    struct flock ours = others;
    ours.l_type = mode == Mode::read_write ? F_WRLCK : F_RDLCK;
    const bool told = fcntl(fd, F_OFD_GETLK, &others) == 0;
    if (told && others.l_type == F_UNLCK && fcntl(fd, F_OFD_SETLK, &ours) == 0)
        return;
    if ((told && others.l_type != F_UNLCK) || errno == EAGAIN || errno == EACCES)
        throw busy("locked by another program (a virtual machine?)");
    throw Error(Exit::operational, cat(path, ": cannot be locked: ", std::strerror(errno)));
}

Geometry device_geometry(const std::string& path, int fd) {
    Geometry geometry;
    std::uint64_t bytes = 0;
    int logical = 0;
    unsigned int physical = 0;

    if (ioctl(fd, BLKGETSIZE64, &bytes) != 0 || ioctl(fd, BLKSSZGET, &logical) != 0)
        throw Error(Exit::operational, cat(path, ": cannot get size: ", std::strerror(errno)));
    geometry.sectors = bytes / sector_size;
    geometry.logical = std::max(static_cast<std::uint32_t>(logical), geometry.logical);
    if (ioctl(fd, BLKPBSZGET, &physical) != 0)
        physical = geometry.logical;
    geometry.physical = std::max(static_cast<std::uint32_t>(physical), geometry.logical);
    geometry.block_device = true;
    geometry.direct = true;
    return geometry;
}

FileDescriptor open_device(const std::string& path, Mode mode, const struct stat& status) {
    const int access = mode == Mode::read_write ? O_RDWR : O_RDONLY;
    const int exclusive = mode == Mode::read_only ? 0 : O_EXCL;
    const int fd = open(path.c_str(), access | exclusive | O_DIRECT | O_CLOEXEC);
    const int error = errno;
    const std::string above = exclusive != 0 ? holders_of(status.st_rdev) : std::string();

    FileDescriptor device(fd);
    if (fd < 0 && error != EBUSY)
        throw cannot_open(path, error);
    if (fd < 0 || !above.empty())
        throw BusyError(cat(
            path, ": in use",
            above.empty() ? std::string(" (mounted, or held by a driver)") : cat(" by ", above)));
    if (exclusive == 0)
        return device;
    if (const std::string loop = loop_over(path, status); !loop.empty())
        throw BusyError(cat(path, ": in use: it backs ", loop));
    return device;
}

FileDescriptor open_image(const std::string& path, Mode mode) {
    const int access = mode == Mode::read_write ? O_RDWR : O_RDONLY;
    const int fd = open(path.c_str(), access | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        throw cannot_open(path, errno);
    return FileDescriptor(fd);
}

}  // namespace

std::unique_ptr<BlockIo> open_block_io(const std::string& path, Mode mode) {
    struct stat before {};
    struct stat after {};

    if (stat(path.c_str(), &before) != 0)
        throw cannot_open(path, errno);
    const bool device = S_ISBLK(before.st_mode);
    if (!device && !S_ISREG(before.st_mode))
        throw Error(Exit::operational,
                    cat(path, ": expected a block device or an image file, found ",
                        S_ISDIR(before.st_mode) ? "a directory" : "something else"));

    FileDescriptor fd = device ? open_device(path, mode, before) : open_image(path, mode);
    if (fstat(fd.get(), &after) != 0)
        throw cannot_open(path, errno);
    if ((before.st_mode & S_IFMT) != (after.st_mode & S_IFMT) || before.st_rdev != after.st_rdev)
        throw Error(Exit::operational, cat(path, ": changed while it was opened"));

    Geometry geometry;
    if (device) {
        geometry = device_geometry(path, fd.get());
    } else {
        if (mode != Mode::read_only)
            lock_image(path, fd.get(), after, mode);
        geometry.sectors = static_cast<std::uint64_t>(after.st_size) / sector_size;
    }
    return std::make_unique<FileBlockIo>(path, std::move(fd), geometry);
}

bool in_use(const BlockIo& io) {
    if (!io.is_block_device())
        return false;
    const FileDescriptor fd(open(io.name().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    return fd.get() < 0 && errno == EBUSY;
}

}  // namespace remap
