// SPDX-License-Identifier: GPL-2.0-or-later
//
// States for the kernel to load: some of each kind, as one image, and what it must then show.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "states.hpp"

namespace crash {

/// Keeps a few states of each kind, each of them with the same chance.
class Sample {
  public:
    Sample(std::size_t of_each_kind, std::uint64_t seed) : limit_(of_each_kind), random_(seed) {}

    void offer(const State& state, const std::string& kind);

    /// About `count` states: the kinds take turns. Ascending by point.
    std::vector<State> take(std::size_t count);

  private:
    struct Kept {
        std::uint64_t offered = 0;
        std::vector<State> states;
    };

    std::size_t limit_;
    std::mt19937_64 random_;
    std::map<std::string, Kept> kinds_;
};

/// Writes the states to `image` one behind the other, each the main and then the spare; and for
/// each of them a line to `plan`:
///
///     MAIN_START MAIN_SIZE SPARE_START SPARE_SIZE WRITE,...
///
/// WRITE are sectors to write in this state. `views` gets the Value of each sector of each state.
void export_states(Replay& replay, const Journal& journal, const std::vector<State>& states,
                   const std::string& image, const std::string& plan, const std::string& views);

}  // namespace crash
