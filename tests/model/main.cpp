// SPDX-License-Identifier: GPL-2.0-or-later
//
// crash-model: the kernel target's own code against simulated disks, failures and power cuts.
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "workload.hpp"

namespace {

using model::Counters;

struct Options {
    std::uint64_t states = 10000;
    std::uint64_t seed = 1;
    bool one_seed = false;
    model::ScenarioOptions scenario;
};

/// A run that never saw one of these has tested less than it says.
using MustHappen = std::vector<std::string>;

const MustHappen scenarios_must_see{
    "blocks remapped",
    "cache lost",
    "epoch raised by a later commit",
    "flush of main fails",
    "flush of spare fails",
    "flushes failed",
    "forgotten",
    "doubt settled",
    "in doubt",
    "loaded without an old table copy",
    "main lost",
    "may be lost by a message",
    "messages refused",
    "moved",
    "old copies refused",
    "one volatile write alone",
    "one volatile write missing",
    "reads checked",
    "recoveries cut again",
    "reloads",
    "slot fails",
    "states with a torn write",
    "superblock torn",
    "superblock write fails",
    "suspends",
    "table block torn",
    "table copy fails",
    "table extended",
    "write fails",
    "write fails torn",
    "write fails yet reaches the medium",
    "writes failed",
};

const MustHappen scripts_must_see{
    "activation fails",
    "cache lost",
    "commit of remaps fails",
    "label frozen",
    "may be lost by a message",
    "no quorum of superblocks",
    "no table copy written",
    "one volatile write torn alone",
    "one volatile write torn beside others",
    "recoveries cut again",
    "slot fails",
    "superblock torn",
    "table block torn",
    "table copy dead",
};

const MustHappen no_memory_must_see{
    "allocations failed",
    "commit of remaps fails",
    "loads without memory",
    "may be lost by a message",
    "no table copy written",
    "recoveries cut again",
    "slot fails",
    "writes failed",
};

/// Says what happened how often. False: something never did.
bool report(const Counters& counters, const MustHappen& must_happen, bool lossy_flushes = true) {
    bool all = true;

    for (const auto& [name, count] : counters)
        std::cout << "  " << name << ": " << count << "\n";
    for (const std::string& name : must_happen) {
        const auto it = counters.find(name);
        if (it != counters.end() && it->second > 0)
            continue;
        if (name == "cache lost" && !lossy_flushes)
            continue;
        std::cout << "never happened: " << name << "\n";
        all = false;
    }
    return all;
}

/// The kernel's code was left in the middle of something: no destructor makes sense.
[[noreturn]] void end_by(const model::Violation& v, std::uint64_t states,
                         const std::string& again) {
    std::cout << "invariant " << v.invariant() << " violated: " << v.what() << "\nafter " << states
              << " states" << again << "\n"
              << std::flush;
    std::_Exit(1);
}

int run(const Options& options) {
    Counters counters;
    std::uint64_t states = 0;
    std::uint64_t seed = options.seed;

    for (; options.one_seed ? seed == options.seed : states < options.states; seed++) {
        try {
            states += model::run_scenario(seed, options.scenario, counters);
        } catch (const model::Violation& v) {
            end_by(v, states,
                   "; again with: --one --verbose --seed " + std::to_string(seed) +
                       (options.scenario.lossy_flushes ? "" : " --no-cache-loss"));
        }
    }
    const bool all = report(counters, options.one_seed ? MustHappen{} : scenarios_must_see,
                            options.scenario.lossy_flushes);
    std::cout << states << " states of " << seed - options.seed << " sets, no violation\n";
    return all ? 0 : 1;
}

/// Lives that are the same each time.
int run_lives(std::uint64_t (*lives)(Counters&, bool), const MustHappen& must_happen,
              const Options& options) {
    Counters counters;

    try {
        const std::uint64_t nr = lives(counters, options.scenario.verbose);
        const bool all = report(counters, must_happen);
        std::cout << counters["states"] << " states of " << nr << " lives, no violation\n";
        return all && counters["states"] > 0 ? 0 : 1;
    } catch (const model::Violation& v) {
        end_by(v, counters["states"], "");
    }
}

[[noreturn]] void usage() {
    std::cerr << "usage: crash-model [--states N] [--seed S] [--one] [--verbose]"
                 " [--no-cache-loss]\n       crash-model --outcomes | --scripts | --no-memory "
                 "[--verbose]\n";
    std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    bool outcomes = false;
    bool scripts = false;
    bool no_memory = false;

    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        const auto number = [&] {
            if (++i == argc)
                usage();
            return std::strtoull(argv[i], nullptr, 0);
        };
        if (word == "--states")
            options.states = number();
        else if (word == "--seed")
            options.seed = number();
        else if (word == "--one")
            options.one_seed = true;
        else if (word == "--verbose")
            options.scenario.verbose = true;
        else if (word == "--outcomes")
            outcomes = true;
        else if (word == "--scripts")
            scripts = true;
        else if (word == "--no-memory")
            no_memory = true;
        else if (word == "--no-cache-loss")
            options.scenario.lossy_flushes = false;
        else
            usage();
    }
    if (outcomes)
        return run_lives(model::run_outcomes, {}, options);
    if (scripts)
        return run_lives(model::run_scripts, scripts_must_see, options);
    if (no_memory)
        return run_lives(model::run_without_memory, no_memory_must_see, options);
    return run(options);
}
