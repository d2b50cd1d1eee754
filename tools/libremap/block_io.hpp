// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace remap {

using Bytes = std::span<std::uint8_t>;
using ConstBytes = std::span<const std::uint8_t>;

constexpr std::uint64_t sector_size = 512;

/// A device or image, addressed in sectors of 512 bytes. Every buffer's size is a multiple of
/// 512 bytes. Implementations stack: a recorder or a fault injector sits on another BlockIo.
class BlockIo {
  public:
    virtual ~BlockIo() = default;

    /// Reads `to.size()` bytes at `sector`. Returns 0 or an errno value; on an error the contents
    /// of `to` are undefined. Reading beyond the end is EIO.
    virtual int try_read(std::uint64_t sector, Bytes to) = 0;

    /// Writes `from` at `sector`, which must both be multiples of the logical block size (EINVAL).
    /// Returns 0 or an errno value; after an error any part may have been written.
    virtual int try_write(std::uint64_t sector, ConstBytes from) = 0;

    /// Makes everything written so far durable. Returns 0 or an errno value.
    virtual int try_flush() = 0;

    /// Sectors; a trailing part of an image shorter than a sector does not count.
    virtual std::uint64_t size() const = 0;

    /// Bytes: the smallest unit of a write, at least 512.
    virtual std::uint32_t logical_block_size() const = 0;

    /// Bytes: the unit the medium works in, at least the logical block size.
    virtual std::uint32_t physical_block_size() const = 0;

    /// What messages call it: the path it was opened by.
    virtual const std::string& name() const = 0;

    virtual bool is_block_device() const = 0;

    /// The file descriptor, or -1 where there is none (test doubles).
    virtual int fd() const { return -1; }

    /// As try_read, try_write and try_flush, but throw IoError.
    void read(std::uint64_t sector, Bytes to);
    void write(std::uint64_t sector, ConstBytes from);
    void flush();

    /// `sectors` sectors at `sector`. Throws IoError.
    std::vector<std::uint8_t> read(std::uint64_t sector, std::uint64_t sectors);

  protected:
    BlockIo() = default;
    // For doubles in memory; a device cannot be copied.
    BlockIo(const BlockIo&) = default;
    BlockIo& operator=(const BlockIo&) = default;
};

/// Memory on a page boundary, so that direct I/O needs no bounce buffer.
class AlignedBuffer {
  public:
    explicit AlignedBuffer(std::size_t bytes);

    Bytes bytes() { return {data_.get(), size_}; }
    ConstBytes bytes() const { return {data_.get(), size_}; }

  private:
    struct Free {
        void operator()(std::uint8_t* memory) const;
    };
    std::unique_ptr<std::uint8_t, Free> data_;
    std::size_t size_;
};

enum class Mode {
    read_only,
    /// Exclusive: O_EXCL on a block device, locks on an image file.
    read_write,
    /// The same, but only for reading: what is read does not change meanwhile.
    read_exclusive,
};

/// Opens a block device or an image file. Block devices are accessed past the page cache, so that
/// what is read is what lies on the medium. Throws BusyError when `mode` is not read_only and the
/// device is in use (mounted, held, locked, or under a loop device), and Error for anything that
/// cannot be opened or locked, or is neither a block device nor a regular file.
std::unique_ptr<BlockIo> open_block_io(const std::string& path, Mode mode);

/// Does somebody hold the block device exclusively (a mount, a mapped device)? False for images
/// and whenever it cannot be told.
bool in_use(const BlockIo& io);

}  // namespace remap
