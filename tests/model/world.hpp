// SPDX-License-Identifier: GPL-2.0-or-later
//
// The simulated disks and the order in which things happen. One world exists at a time; the
// kernel's code reaches it through model.h.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "image.hpp"
#include "log.hpp"
#include "model.h"
#include "oracle.hpp"
#include "random.hpp"
#include "set.hpp"

namespace model {

/// An invariant of DESIGN.md was violated, or the kernel's code broke a rule of the kernel.
class Violation : public std::runtime_error {
  public:
    Violation(std::string invariant, const std::string& what)
        : std::runtime_error(what), invariant_(std::move(invariant)) {}
    const std::string& invariant() const { return invariant_; }

  private:
    std::string invariant_;
};

struct DiskTraits {
    bool write_cache = true;
    bool fua = true;
    unsigned int physical_block_size = 512;
};

/// What a request that is given out here ends with.
struct Outcome {
    model_status status = MODEL_OK;
    Extent reached;           ///< of a write
    bool cache_lost = false;  ///< by a flush that fails
};

/// Coverage: what a run has seen at least once.
using Counters = std::map<std::string, std::uint64_t>;

struct Faults {
    std::array<std::set<std::uint64_t>, 2> bad_write, bad_read;  ///< sectors
    std::array<bool, 2> gone{};
    std::array<unsigned int, 2> write_permille{}, flush_permille{};  ///< fail once
    bool lossy_flushes = true;  ///< a flush that fails may lose the cache
    /// Asked first, for every write and flush.
    std::function<std::optional<Outcome>(DiskId, const model_io&)> script;
};

class World {
  public:
    World(const SetLayout& layout, const std::array<DiskTraits, 2>& traits,
          const std::array<Image*, 2>& images, Random& random, Counters& counters);
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    // ---- How it behaves ----
    Faults* faults = nullptr;  ///< none: disks are perfect
    Log* log = nullptr;
    bool ordered = true;  ///< requests complete in order, and nothing happens in between
    std::function<bool(const model_io&)> late;  ///< has to wait still
    Oracle* oracle = nullptr;
    std::function<void()> meanwhile;  ///< called now and then while kernel code waits
    std::function<void()> each_step;  ///< called before each step: for lives told step by step
    std::array<bool, 2> forbid_writes{};

    /// Bit per table copy: a write to it failed, so it may be dead.
    unsigned int failed_copies = 0;

    // ---- The device ----
    std::vector<std::string> features;
    bool read_only = false;
    model_target* target = nullptr;

    /// Constructor and resume. Returns an empty text, or why the set was refused.
    std::string open();
    void close();
    void suspend(bool noflush);
    std::string resume();
    std::string status();
    std::uint64_t status_number(unsigned int field);

    // ---- I/O from above; the answer is checked when it comes ----
    void user_write(std::uint64_t block, std::uint32_t count, bool fua, bool preflush);
    void user_read(std::uint64_t block, std::uint32_t count);
    void user_flush();
    /// Message remap. What the main cannot read may be lost afterwards.
    int user_remap(std::uint64_t block, std::uint32_t count);
    int user_forget(std::uint64_t block, std::uint32_t count);
    int message(const std::string& words, std::string* reply = nullptr);
    unsigned int outstanding() const { return outstanding_; }
    std::uint32_t next_version = 1;

    /// Reads a whole run and waits; false: an error.
    bool read_now(std::uint64_t block, std::uint32_t count, void* data);

    /// Until nothing is in flight or queued.
    void drain();

    // ---- From model.h ----
    void submit(model_io* io);
    void kernel_says(const char* line);
    bool allocation_fails();
    void step();

    std::vector<std::string> messages;  ///< of the kernel's code
    std::uint64_t writes_seen = 0;
    std::uint64_t allocations_left = 0;  ///< the one that brings this to 0 fails
    bool all_others_too = false;         ///< and all after it
    bool out_of_memory = false;

    static World* current;

  private:
    struct InFlight {
        model_io* io;
        Outcome outcome;
        std::uint32_t id;
        std::uint64_t begin;
    };
    struct Volatile {
        std::uint32_t id;
        Extent extent;
        std::uint64_t end;
        std::uint64_t sector;
        std::vector<std::uint8_t> data;
    };
    /// What a sector in the cache is on the medium, and since when it is in the cache.
    struct Medium {
        std::uint64_t since = 0;
        std::array<std::uint8_t, sector_size> data{};
    };
    struct Disk {
        model_disk model;
        Image* image = nullptr;
        std::vector<Volatile> cache;
        std::unordered_map<std::uint64_t, Medium> medium;
    };
    struct Request;

    DiskId disk_id(const model_disk* disk) const {
        return disk == &disks_[main_disk].model ? main_disk : spare_disk;
    }
    Outcome decide(DiskId id, const model_io& io);
    Outcome fail_write(DiskId id, const model_io& io, bool bad_sector);
    bool may_tear(std::uint64_t sector) const;
    void finish(const InFlight& request);
    void finish_write(const InFlight& request, DiskId id);
    void finish_flush(const InFlight& request, DiskId id);
    void lose_cache(Disk& disk, DiskId id);
    void write_through(Disk& disk, std::uint64_t sector, const std::uint8_t* data);
    void add_event(Event event);
    void done(Request* request);
    std::uint32_t log_user_write(const UserWrite& write);
    int move_blocks(const std::string& name, std::uint64_t block, std::uint32_t count);
    Request* make_request(model_op op, std::uint64_t block, std::uint32_t count);

    const SetLayout& layout_;
    Random& random_;
    Counters& counters_;
    std::array<Disk, 2> disks_;
    std::list<InFlight> in_flight_;
    std::uint64_t clock_ = 1;
    std::uint64_t read_faults_ = 0;
    std::set<std::uint64_t> doubtful_;  ///< messages may have left these blocks in doubt
    unsigned int outstanding_ = 0;
    unsigned int idle_ = 0;
    std::uint32_t next_flush_ = 0;
    World* outer_;
};

}  // namespace model
