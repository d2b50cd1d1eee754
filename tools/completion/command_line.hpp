// SPDX-License-Identifier: GPL-2.0-or-later
//
// A tool's command line as its CLI11 definition has it, in the words that a completion needs.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace completion {

/// What an option or a positional argument takes.
enum class Takes {
    nothing,
    word,    ///< one of `words`
    number,  ///< nothing that could be completed
    device,  ///< the name of a mapped device
    file,    ///< a device, an image, a file
    text,    ///< nothing that could be completed
};

struct Argument {
    std::vector<std::string> names;  ///< "--json", "-n"; of a positional only its name
    std::string description;
    Takes takes = Takes::nothing;
    std::vector<std::string> words;
};

/// The tool itself, or one of its verbs.
struct Command {
    std::string name;
    std::string description;
    std::vector<Argument> options;
    std::vector<Argument> positionals;
    std::vector<Command> verbs;
};

Command describe(const CLI::App& app);

}  // namespace completion
