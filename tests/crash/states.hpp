// SPDX-License-Identifier: GPL-2.0-or-later
//
// Every state that a power cut can leave, out of a log: the writes in front of a point are there;
// of those that were in the cache then any part is; and the last one may be torn.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "checker.hpp"
#include "journal.hpp"
#include "write_log.hpp"

namespace crash {

/// One state. `str()` and `parse()` are inverse, so that a state can be named and made again.
struct State {
    std::size_t point = 0;            ///< entries of the log before it are durable, but see Replay
    std::vector<std::size_t> cached;  ///< of the writes in the cache those that got there
    std::size_t torn = no_entry;      ///< a write of which a part got there
    /// For each of its sectors: 1 new, 0 old, x neither, as a sector that was just being written.
    std::string torn_sectors{};

    static constexpr std::size_t no_entry = SIZE_MAX;

    std::string str() const;
    /// Throws std::runtime_error.
    static State parse(const std::string& text);
};

/// A log and an image that it is replayed on.
///
/// dm-log-writes logs a plain write when a flush has made it durable, just in front of that flush,
/// and a write with FUA, like a mark, as it completes. So among the entries between two flushes
/// the plain writes, wherever they stand, may have been done at any point of that time; these are
/// the *cached* ones of each point there. Where a plain and a FUA write overlap, the FUA one is
/// taken for the later one, because the other order is in the log nowhere.
class Replay {
  public:
    Replay(Image before, WriteLog log);

    const WriteLog& log() const { return log_; }
    const Image& image() const { return image_; }

    /// Points at which the plain entries stand have no states of their own; so these are the ones
    /// to ask for, ascending.
    const std::vector<std::size_t>& points() const { return points_; }

    std::size_t point() const { return point_; }

    /// Goes to a point; the image then holds what is durable there. Going back begins anew.
    void go(std::size_t point);

    /// The plain writes that may have been done at the present point, in their order.
    const std::vector<std::size_t>& cached() const { return cached_; }

    /// The FUA write that comes next at the present point; State::no_entry if something else does.
    std::size_t next_fua() const;

    /// The flush that ends the present point's time, or the size of the log.
    std::size_t end_of_time() const { return end_; }

    /// Puts the state on the image while `look` runs.
    void with(const State& state, const std::function<void()>& look);

  private:
    bool is_write(std::size_t entry) const;
    bool is_plain(std::size_t entry) const;
    void apply(std::size_t entry, const std::string* sectors);
    void next_time(std::size_t flush);

    struct Saved {
        std::uint64_t sector;
        std::vector<std::uint8_t> bytes;
    };

    Image before_;
    Image image_;
    WriteLog log_;
    std::vector<std::size_t> points_;
    std::vector<std::size_t> cached_;
    std::size_t begin_ = 0;  ///< of the present time between flushes
    std::size_t end_ = 0;
    std::size_t point_ = 0;
    std::vector<Saved>* undo_ = nullptr;  ///< what is overwritten, if that is wanted
};

/// What is wrong with a state.
struct Violation {
    std::string state;
    std::string what;
};

/// What was looked at.
struct Tally {
    std::uint64_t states = 0;
    std::uint64_t errors = 0;                    ///< sectors that read as errors, where they may
    std::map<std::string, std::uint64_t> kinds;  ///< states by kind
    std::vector<Violation> violations;           ///< the first ones
    std::uint64_t violation_count = 0;
};

/// Checks the states of one log against its journal.
class Campaign {
  public:
    Campaign(Replay& replay, const Journal& journal, std::uint64_t seed);

    /// Called with each state that is as it must be, while it is on the replay's image.
    using Visitor = std::function<void(const State&, const std::string& kind, const View&)>;

    /// At each point, if `regular`: nothing, everything, all but one and only one of the cached
    /// writes, and the next write torn at each sector; and `random` times some of them. A state is
    /// looked at once, however often this is called.
    void run(bool regular, unsigned int random, Tally& tally, const Visitor& visit = {});

    /// One state, by what State::str() says. Returns what is wrong, empty if nothing is.
    std::string check(const State& state);

  private:
    struct Expected {
        std::uint64_t sector = 0;
        Allowed allowed;
    };
    struct Times {
        Step done = 0;
        Step begun = 0;
    };

    void find_steps();
    Step first_step_of(const LogEntry& entry) const;
    std::vector<std::size_t> cached() const;
    void regular_states();
    void random_states(unsigned int count);
    void single_states(const std::vector<std::size_t>& all);
    void torn_states(std::size_t entry, const std::vector<std::size_t>& cached,
                     unsigned int random);
    void one(State state, const char* shape);
    std::string look(const State& state, const View& view, std::uint64_t& errors);
    std::string kind_of(const State& state, const char* shape) const;
    void expect(const State& state);
    std::vector<std::size_t> some_of(const std::vector<std::size_t>& all);

    Replay& replay_;
    const Journal& journal_;
    std::mt19937_64 random_;
    remap::Superblock layout_;
    std::vector<std::uint64_t> sectors_;
    std::vector<Step> step_of_;         ///< by entry: the step that runs there
    std::vector<Step> since_;           ///< by entry: the step whose data it has; 0 if unknown
    std::map<Step, std::string> also_;  ///< what a step did besides its kind
    std::vector<Expected> expected_;
    Times expected_for_;
    bool have_expected_ = false;
    Tally* tally_ = nullptr;
    const Visitor* visit_ = nullptr;
    std::unordered_set<std::size_t> seen_;  ///< hashes of the states' names
};

/// Those of `wanted`, parts of the names of kinds, that the tally has none of.
std::vector<std::string> missing_kinds(const Tally& tally, const std::vector<std::string>& wanted);

}  // namespace crash
