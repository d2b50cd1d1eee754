// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

#include "crash.hpp"

namespace model {

struct ScenarioOptions {
    std::uint64_t states = 400;
    bool lossy_flushes = true;
    bool verbose = false;
};

/// One set, one long random life of it, and some crash states of that. Throws Violation. Returns
/// how many states were checked.
std::uint64_t run_scenario(std::uint64_t seed, const ScenarioOptions& options, Counters& counters);

/// Every metadata write of a short life gets every outcome, alone and in pairs. Throws Violation.
/// Returns how many lives that were; the crash states are counted in `counters`.
std::uint64_t run_outcomes(Counters& counters, bool verbose);

/// Short lives told step by step, each for a rule that random ones put to the test too rarely, and
/// all their crash states. Throws Violation. Returns how many lives that were.
std::uint64_t run_scripts(Counters& counters, bool verbose);

/// Each allocation of a short life fails, alone or with others. Throws Violation. Returns how many
/// lives that were.
std::uint64_t run_without_memory(Counters& counters, bool verbose);

/// A few writes and flushes, the first of which activates the set.
void run_short_workload(Scene& scene, World& world, Oracle& oracle);

}  // namespace model
