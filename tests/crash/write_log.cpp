// SPDX-License-Identifier: GPL-2.0-or-later
#include "write_log.hpp"

#include <array>
#include <stdexcept>

namespace crash {
namespace {

// As in the kernel's drivers/md/dm-log-writes.c.
constexpr std::uint64_t magic = 0x6a736677736872;
constexpr std::uint64_t version = 1;
constexpr std::size_t header_size = 32;
constexpr std::uint64_t most_sectors = 65536;

using Sector = std::array<std::uint8_t, remap::sector_size>;

std::uint64_t number(const Sector& sector, std::size_t at, unsigned int bytes = 8) {
    std::uint64_t value = 0;

    for (unsigned int i = bytes; i-- > 0;)
        value = value << 8 | sector.at(at + i);
    return value;
}

LogEntry read_entry(remap::BlockIo& device, std::uint64_t& at) {
    Sector header{};
    LogEntry entry;

    device.read(at++, header);
    entry.sector = number(header, 0);
    entry.flags = number(header, 16);
    const std::uint64_t sectors = number(header, 8);
    const std::uint64_t name_length = number(header, 24);
    if (entry.is(LogEntry::discard))
        throw std::runtime_error("the log has a discard");
    if (sectors > most_sectors || name_length > header.size() - header_size)
        throw std::runtime_error("the log is damaged at sector " + std::to_string(at - 1));
    if (entry.is(LogEntry::mark))
        entry.name.assign(reinterpret_cast<const char*>(header.data()) + header_size, name_length);
    if (sectors > 0)
        entry.data = device.read(at, sectors);
    at += sectors;
    return entry;
}

}  // namespace

const char* const end_mark = "dm-log-writes-end";

WriteLog read_write_log(remap::BlockIo& device) {
    Sector super{};
    WriteLog log;
    std::uint64_t at = 1;

    device.read(0, super);
    if (number(super, 0) != magic || number(super, 8) != version)
        throw std::runtime_error("not a log of dm-log-writes");
    if (number(super, 24, 4) != remap::sector_size)
        throw std::runtime_error("the log is of a device with large sectors");
    const std::uint64_t entries = number(super, 16);
    while (log.size() < entries)
        log.push_back(read_entry(device, at));
    if (log.empty() || log.back().name != end_mark)
        throw std::runtime_error("the log has no end: its device was full, or still in use");
    return log;
}

}  // namespace crash
