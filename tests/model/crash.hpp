// SPDX-License-Identifier: GPL-2.0-or-later
//
// Crash states: what may lie on the disks after a power cut at any point of a log, and whether the
// kernel's code makes the right thing of it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "world.hpp"

namespace model {

/// A set in use: what a run and the checks of its crash states share.
struct Scene {
    const SetLayout& layout;
    std::array<DiskTraits, 2> traits;
    std::array<Image*, 2> images;
    const Faults* faults;  ///< sectors that stay bad after the power cut
    std::vector<std::string> features;
    Random& random;
    Counters& counters;
    bool verbose = false;  ///< print what led to a violation
};

struct CrashPlan {
    std::uint64_t states = 0;         ///< wanted from this log, more or less
    unsigned int deeper_percent = 0;  ///< of them are written to and cut again
    unsigned int depth = 2;
    unsigned int unreadable_percent = 0;  ///< of them are loaded once more without an old copy
    std::uint64_t deeper_states = 6;      ///< of each that is cut again
    bool every = false;                   ///< all variants at each place, whatever `states` says
};

/// Goes through a log and builds the states that a power cut may leave.
class Replay {
  public:
    Replay(Scene& scene, const Log& log, Oracle oracle, unsigned int failed_copies);

    /// Takes in the next event. False: there is none.
    bool advance();
    /// May the disks, or what is expected of them, be other ones after this?
    static bool changes_disk(const Event& event);
    bool last_changed_disk() const { return changed_; }
    std::size_t position() const { return at_; }

    /// How many states are worth trying here.
    std::uint64_t variants() const;

    /// Writes one possible state onto the images. Returns false if it was there before.
    bool apply(std::uint64_t variant);
    /// The state tears the only copy of a table block that is sure to be live: docs/design.md,
    /// limits. It need not load.
    bool may_be_refused() const { return may_be_refused_; }
    unsigned int failed_copies() const { return failed_copies_; }
    const Oracle& oracle() const { return oracle_; }

  private:
    struct Open {
        std::uint32_t id;
        Extent extent;
        std::uint64_t end;  ///< 0: in flight
    };

    void finish(const Event& event);
    void flushed(const Event& event);
    void flush_failed();
    void lost(const Event& event);
    void make_durable(const Open& open);
    std::vector<Extent> choose(std::uint64_t variant);

    Scene& scene_;
    const Log& log_;
    Oracle oracle_;
    unsigned int failed_copies_;
    std::size_t at_ = 0;
    bool changed_ = false;
    bool may_be_refused_ = false;
    std::uint64_t clock_ = 0;
    std::vector<Open> open_;  ///< volatile ones in order, then those in flight
    std::unordered_map<std::uint32_t, std::uint64_t> flush_begin_;
    std::array<std::unordered_map<std::uint64_t, std::uint64_t>, 2> durable_since_;
    std::unordered_set<std::uint64_t> tried_;
};

/// The first events of a log, for people, if the scene is verbose.
void print_log(const Scene& scene, const Log& log, std::size_t end);

/// Checks about `plan.states` states of `log`, whose first event found `oracle`. The images are as
/// they were then, and are so again afterwards. Throws Violation. Returns how many were checked.
std::uint64_t check_crash_states(Scene& scene, const Log& log, const Oracle& oracle,
                                 unsigned int failed_copies, const CrashPlan& plan);

/// Loads what is on the images and compares every block. `may_be_refused`: see Replay.
void check_state(Scene& scene, const Oracle& oracle, unsigned int failed_copies,
                 bool may_be_refused, const CrashPlan& deeper);

}  // namespace model
