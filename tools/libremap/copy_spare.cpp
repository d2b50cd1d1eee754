// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/copy_spare.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "libremap/error.hpp"
#include "libremap/file_util.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint64_t chunk_sectors = 2048;
constexpr std::uint64_t piece = 4096;  // bytes: what a hole is made of
constexpr mode_t image_mode = 0600;

/// A new file that is gone again unless it is kept.
class NewImage {
  public:
    explicit NewImage(const std::string& path)
        : path_(path),
          file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, image_mode)) {
        if (file_.get() < 0)
            throw Error(Exit::operational, cat(path, ": cannot be made: ", std::strerror(errno)));
    }
    ~NewImage() {
        if (!kept_)
            ::unlink(path_.c_str());
    }
    NewImage(const NewImage&) = delete;
    NewImage& operator=(const NewImage&) = delete;

    void resize(std::uint64_t bytes) {
        if (::ftruncate(file_.get(), static_cast<off_t>(bytes)) != 0)
            throw Error(Exit::operational,
                        cat(path_, ": cannot get ", bytes, " bytes: ", std::strerror(errno)));
    }

    /// Pieces of zeroes stay holes.
    void write(std::uint64_t offset, ConstBytes bytes) {
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
            const ConstBytes part =
                bytes.subspan(at, std::min<std::size_t>(piece, bytes.size() - at));
            if (std::all_of(part.begin(), part.end(), [](std::uint8_t b) { return b == 0; }))
                continue;
            if (::lseek(file_.get(), static_cast<off_t>(offset + at), SEEK_SET) < 0)
                throw Error(Exit::operational, cat(path_, ": ", std::strerror(errno)));
            write_all(file_.get(), part.data(), part.size(), path_);
        }
    }

    void keep() {
        sync_file(file_.get(), path_);
        sync_directory_of(path_);
        kept_ = true;
    }

  private:
    std::string path_;
    FileHandle file_;
    bool kept_ = false;
};

/// Throws if the sectors [sector, sector + count), which cannot be read, belong to a slot that
/// holds data, or may.
void require_unused(const BlockIo& spare, const CheckResult& result, std::uint64_t sector,
                    std::uint64_t count) {
    const Superblock& sb = *result.superblock;
    const std::uint64_t start = sb.segment().data_start;
    const std::uint64_t end = start + sb.segment().nr_slots * sb.block_sectors();
    const auto fail = [&](const std::string& what) {
        throw Error(Exit::operational,
                    cat(spare.name(), ": sector ", sector, ": cannot be read, and ", what,
                        ": a copy would have zeroes in its place"));
    };

    for (std::uint64_t at = std::max(sector, start); at < std::min(sector + count, end); at++) {
        const std::uint64_t slot = (at - start) / sb.block_sectors();
        if (result.table.is_lost(slot / REMAP_ENTRIES_PER_BLOCK))
            fail(cat("whether slot ", slot, " is in use is not known"));
        if (slot < result.table.entries.size() &&
            result.table.entries[slot].state() == REMAP_ENTRY_MAPPED)
            fail(cat("slot ", slot, " holds main block ", result.table.entries[slot].block()));
    }
}

}  // namespace

void copy_spare(BlockIo& spare, const CheckResult& result, const std::string& path,
                const Progress& progress) {
    NewImage image(path);
    AlignedBuffer buffer(chunk_sectors * sector_size);
    const std::uint64_t unit = spare.logical_block_size() / sector_size;

    image.resize(spare.size() * sector_size);
    for (std::uint64_t sector = 0; sector < spare.size(); sector += chunk_sectors) {
        const std::uint64_t count = std::min(chunk_sectors, spare.size() - sector);
        const Bytes bytes = buffer.bytes().first(count * sector_size);
        progress(sector, spare.size());
        if (spare.try_read(sector, bytes) != 0) {
            for (std::uint64_t at = 0; at < count; at += unit) {
                const std::uint64_t now = std::min(unit, count - at);
                const Bytes part = bytes.subspan(at * sector_size, now * sector_size);
                if (spare.try_read(sector + at, part) == 0)
                    continue;
                require_unused(spare, result, sector + at, now);
                std::fill(part.begin(), part.end(), std::uint8_t{0});
            }
        }
        image.write(sector * sector_size, bytes);
    }
    image.keep();
}

}  // namespace remap
