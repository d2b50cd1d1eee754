// SPDX-License-Identifier: GPL-2.0-or-later
//
// What was done to a remap device while the log was made, and from that what each sector may hold
// after a power cut at any time.
#pragma once

#include <cstdint>
#include <istream>
#include <map>
#include <string>
#include <vector>

#include "pattern.hpp"

namespace crash {

/// Numbers of steps, from 1; step 0 is the time before.
using Step = std::uint32_t;

/// What one sector may hold: one of the seeds, or, where `error`, nothing readable.
struct Allowed {
    std::vector<Value> values;
    bool error = false;

    bool permits(Value value) const;
    std::string str() const;
};

/// One line for each thing done, steps ascending:
///
///     size MAIN SPARE                      sectors
///     step STEP KIND                       what comes next belongs to it
///     write SEED fua|cached ok|failed SECTOR+COUNT...
///     lost ok|failed SECTOR+COUNT...       the blocks became lost: they read as errors
///     flush ok|failed
///
/// Before step 1 each sector of the main has the pattern of seed 1, durably.
class Journal {
  public:
    static constexpr Value initial = 1;

    /// Throws std::runtime_error for a line that it does not know.
    explicit Journal(std::istream& text);

    std::uint64_t main_size() const { return main_size_; }
    std::uint64_t spare_size() const { return spare_size_; }
    Step last_step() const { return static_cast<Step>(kinds_.size()); }
    const std::string& kind(Step step) const { return kinds_.at(step - 1); }

    /// The first step that wrote the pattern of `seed`; 0 if none did.
    Step writer_of(Value seed) const;

    /// Sectors that were written, ascending.
    std::vector<std::uint64_t> sectors() const;

    /// What `sector` may hold when all steps up to `done` had ended and none after `begun` had
    /// begun.
    Allowed allowed(std::uint64_t sector, Step done, Step begun) const;

  private:
    struct Change {
        Step step = 0;
        Value value = 0;
        bool acknowledged = false;
        bool durable = false;  ///< once acknowledged
    };

    void take_line(const std::string& line);
    void take_ranges(std::istream& words, const Change& change);
    bool durable_by(const Change& change, Step done) const;

    std::uint64_t main_size_ = 0;
    std::uint64_t spare_size_ = 0;
    std::vector<std::string> kinds_;
    std::vector<Step> flushes_;
    std::map<Value, Step> writers_;  ///< by seed
    std::map<std::uint64_t, std::vector<Change>> changes_;
};

}  // namespace crash
