// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/io_doubles.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>

namespace remap {
namespace {

bool inside(std::uint64_t sector, std::size_t bytes, std::uint64_t size) {
    return sector <= size && bytes / sector_size <= size - sector;
}

/// The first of the `bad` sectors that [sector, sector + bytes) touches.
std::optional<std::uint64_t> first_touched(const std::set<std::uint64_t>& bad, std::uint64_t sector,
                                           std::size_t bytes) {
    const auto it = bad.lower_bound(sector);

    if (it == bad.end() || *it >= sector + bytes / sector_size)
        return std::nullopt;
    return *it;
}

}  // namespace

MemoryIo::MemoryIo(std::string name, std::uint64_t sectors, std::uint32_t logical_block_size)
    : MemoryIo(std::move(name), std::vector<std::uint8_t>(sectors * sector_size),
               logical_block_size) {}

MemoryIo::MemoryIo(std::string name, std::vector<std::uint8_t> content,
                   std::uint32_t logical_block_size)
    : name_(std::move(name)), content_(std::move(content)), logical_(logical_block_size) {}

int MemoryIo::try_read(std::uint64_t sector, Bytes to) {
    if (!inside(sector, to.size(), size()))
        return EIO;
    std::copy_n(content_.begin() + static_cast<std::ptrdiff_t>(sector * sector_size), to.size(),
                to.begin());
    return 0;
}

int MemoryIo::try_write(std::uint64_t sector, ConstBytes from) {
    if (!inside(sector, from.size(), size()))
        return ENOSPC;
    if (sector * sector_size % logical_ != 0 || from.size() % logical_ != 0)
        return EINVAL;
    std::copy(from.begin(), from.end(),
              content_.begin() + static_cast<std::ptrdiff_t>(sector * sector_size));
    return 0;
}

int RecordingIo::try_write(std::uint64_t sector, ConstBytes from) {
    const int error = below().try_write(sector, from);

    if (!error)
        events_.push_back({false, sector, {from.begin(), from.end()}});
    return error;
}

int RecordingIo::try_flush() {
    const int error = below().try_flush();

    if (!error)
        events_.push_back({true, 0, {}});
    return error;
}

std::size_t RecordingIo::writes() const {
    return static_cast<std::size_t>(
        std::count_if(events_.begin(), events_.end(), [](const Event& e) { return !e.flush; }));
}

void RecordingIo::replay(std::vector<std::uint8_t>& content, std::size_t count,
                         std::uint64_t torn) const {
    const auto put = [&content](const Event& event, std::size_t bytes) {
        std::copy_n(event.data.begin(), bytes,
                    content.begin() + static_cast<std::ptrdiff_t>(event.sector * sector_size));
    };

    for (std::size_t i = 0; i < std::min(count, events_.size()); i++)
        put(events_[i], events_[i].data.size());
    if (torn > 0 && count < events_.size())
        put(events_[count], std::min(events_[count].data.size(), torn * sector_size));
}

int FaultIo::try_read(std::uint64_t sector, Bytes to) {
    if (off_)
        throw PowerCut();
    if (first_touched(bad_reads, sector, to.size()))
        return EIO;
    return below().try_read(sector, to);
}

int FaultIo::try_write(std::uint64_t sector, ConstBytes from) {
    if (off_)
        throw PowerCut();
    if (power_cut_after == 0) {
        off_ = true;
        if (torn_sectors > 0)
            below().try_write(sector,
                              from.first(std::min(from.size(), torn_sectors * sector_size)));
        throw PowerCut();
    }
    if (const auto bad = first_touched(bad_writes, sector, from.size())) {
        if (*bad > sector)
            below().try_write(sector, from.first((*bad - sector) * sector_size));
        return EIO;
    }
    if (power_cut_after > 0)
        power_cut_after--;
    return below().try_write(sector, from);
}

int FaultIo::try_flush() {
    if (off_)
        throw PowerCut();
    return fail_flush ? EIO : below().try_flush();
}

}  // namespace remap
