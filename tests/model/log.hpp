// SPDX-License-Identifier: GPL-2.0-or-later
//
// What happened in a run, in order: all that crash states are made of.
#pragma once

#include <cstdint>
#include <vector>

#include "random.hpp"

namespace model {

enum DiskId : std::uint8_t { main_disk, spare_disk };

/// Which sectors of a write reach the medium.
struct Extent {
    enum Kind : std::uint8_t { none, all, prefix, suffix, subset };

    Kind kind = all;
    std::uint32_t n = 0;
    std::uint64_t seed = 0;
    bool spoils = false;  ///< the sector at the tear is neither old nor new; of durable writes only

    bool has(std::uint32_t sector, std::uint32_t count) const {
        switch (kind) {
            case none:
                return false;
            case all:
                return true;
            case prefix:
                return sector < n;
            case suffix:
                return sector + n >= count;
            case subset:
                return (Random::mix(seed + sector) & 1) != 0;
        }
        return false;
    }
    bool partial() const { return kind != none && kind != all; }
    bool spoilt(std::uint32_t sector, std::uint32_t count) const {
        if (!spoils || !partial() || has(sector, count))
            return false;
        switch (kind) {
            case prefix:
                return sector == n;
            case suffix:
                return sector + n + 1 == count;
            default:
                return sector == seed % count;
        }
    }

    /// Some of `count` sectors, in one way or another.
    static Extent torn(Random& random, std::uint32_t count) {
        Extent extent;
        extent.kind = static_cast<Kind>(random.between(prefix, subset));
        extent.n = static_cast<std::uint32_t>(random.below(count + 1));
        extent.seed = random.next();
        return extent;
    }
};

struct Write {
    DiskId disk;
    bool durable;  ///< once it is done
    std::uint64_t sector;
    std::vector<std::uint8_t> data;

    std::uint32_t sectors() const { return static_cast<std::uint32_t>(data.size() / 512); }
};

/// A write from above, in blocks.
struct UserWrite {
    std::uint64_t block;
    std::uint32_t count;
    std::uint32_t version;
    bool fua;
    bool preflush;
};

struct Event {
    enum Type : std::uint8_t {
        write,       ///< from now on any part of it may be on the medium
        write_done,  ///< `extent` of it is in the drive
        flush,
        flush_done,  ///< everything done before `flush` is durable
        cache_lost,  ///< only the writes `kept` are on the medium, the rest is gone
        user_write,
        user_write_done,
        user_flush,
        user_flush_done,
    };

    Type type;
    bool ok = true;
    DiskId disk = main_disk;
    std::uint32_t id = 0;  ///< of the write, flush, user write or user flush
    Extent extent;
    std::vector<std::uint32_t> kept;
};

struct Log {
    std::vector<Event> events;
    std::vector<Write> writes;
    std::vector<UserWrite> user_writes;
    std::uint32_t flushes = 0;
    std::uint32_t user_flushes = 0;
};

}  // namespace model
