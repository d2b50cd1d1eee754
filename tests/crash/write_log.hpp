// SPDX-License-Identifier: GPL-2.0-or-later
//
// The log that the kernel's dm-log-writes target makes: the writes to a device in the order in
// which they became durable.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"

namespace crash {

struct LogEntry {
    enum Flag : std::uint64_t {
        flush = 1,
        fua = 2,
        discard = 4,
        mark = 8,
    };

    std::uint64_t flags = 0;
    std::uint64_t sector = 0;
    std::vector<std::uint8_t> data;
    std::string name;  ///< of a mark

    bool is(Flag flag) const { return (flags & flag) != 0; }
    std::uint64_t sectors() const { return data.size() / remap::sector_size; }
};

using WriteLog = std::vector<LogEntry>;

/// Reads a log. Throws std::runtime_error if it is none, was not closed (the target writes a mark
/// of its own at its end) or has what replaying does not know.
WriteLog read_write_log(remap::BlockIo& device);

/// The mark that the target itself writes when it is removed.
extern const char* const end_mark;

}  // namespace crash
