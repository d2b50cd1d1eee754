// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a block may read as. It knows only what went in and out at the top: writes, flushes, and
// what was acknowledged.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "log.hpp"

namespace model {

/// A version that no write made: what was there at format, and a lost block's.
constexpr std::uint32_t first_version = 0;
constexpr std::uint32_t lost_version = 0xffffffff;
/// Content of free slots and of main blocks that are mapped: nobody may ever see it.
constexpr std::uint32_t foreign_version = 0xfffffffe;

/// The 512 bytes of sector `index` of a block in a version.
void fill_sector(std::uint8_t* to, std::uint64_t block, std::uint32_t version, std::uint32_t index);

/// The blocks that are written and looked at, and their size.
struct Window {
    std::uint32_t block_sectors = 1;
    std::vector<std::uint64_t> blocks;    ///< ascending
    std::vector<std::uint32_t> index_of;  ///< by block; no_index if not looked at
    static constexpr std::uint32_t no_index = 0xffffffff;
};

/// What a read made of one block.
struct Seen {
    bool error = false;
    const std::uint8_t* data = nullptr;
};

struct Version {
    enum State : std::uint8_t { pending, acknowledged, failed };

    std::uint32_t id;
    State state;
    bool fua;
    bool durable;    ///< acknowledged with FUA, or by a flush
    bool shaken;     ///< a drive has lost its cache since; nobody above knows yet
    bool undefined;  ///< a flush behind it failed
    bool former;     ///< another one was read after a power cut
    std::uint64_t begin, end;

    bool before(const Version& other) const { return state != pending && end < other.begin; }
};

class Oracle {
  public:
    Oracle(const Window& window, const std::vector<bool>& lost);

    void write(const UserWrite& write);
    void write_done(const UserWrite& write, bool ok);
    void flush(std::uint32_t id);
    void flush_done(std::uint32_t id, bool ok);
    /// `fua`: the drive has FUA. Without it a write that is under way and asked for FUA may be
    /// lost as well: its own flush finds nothing to complain about any more, on any disk.
    void cache_lost(bool fua);

    /// Has a drive lost acknowledged writes, and nobody was told yet?
    bool shaken() const;

    /// Now; a read that began at this time may see anything that is current from then on.
    std::uint64_t now() const { return clock_; }

    /// Empty, or what is wrong with reading this. `began`: of the read.
    std::string check_read(std::uint64_t block, const Seen& seen, std::uint64_t began) const;
    /// The same after a power cut. `back`: what was read after an earlier one and had not been
    /// acknowledged before it may be gone again.
    std::string check_after_cut(std::uint64_t block, const Seen& seen, bool back = false) const;
    /// Nothing else than what was read after the cut may be read from now on.
    void settle(std::uint64_t block, const Seen& seen);

    std::uint64_t pending_writes(std::uint64_t block) const;

  private:
    /// A read.
    struct When {
        bool cut;             ///< after a power cut
        std::uint64_t began;  ///< before it, this is when
        bool back;            ///< see check_after_cut()
    };
    /// A flush that went well, while others were under way that had begun before it: if one of
    /// them fails, it may have been this one's cache that was lost.
    struct Hope {
        std::uint64_t began;
        std::set<std::uint32_t> others;
    };

    static bool certain(const Version& v, const When& when);
    std::string check(std::uint64_t block, const Seen& seen, const When& when) const;
    static std::vector<Version> allowed(const std::vector<Version>& all, const When& when);
    void flush_ok(std::uint64_t began);
    void flush_failed();

    const Window* window_;
    std::uint64_t clock_ = 1;
    std::vector<std::vector<Version>> versions_;      ///< by index of the block
    std::map<std::uint32_t, std::uint64_t> flushes_;  ///< when they began, by id
    std::vector<Hope> hopes_;
};

}  // namespace model
