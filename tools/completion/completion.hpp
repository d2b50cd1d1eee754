// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a tool can say about its own command line. Options that no user needs, so help does not show
// them.
#pragma once

#include <CLI/CLI.hpp>

namespace completion {

/// To be called when all options and verbs are defined. Adds to the program, in front of any verb:
///
///   --completion SHELL  prints the completion file for bash, zsh or fish
///   --parse-only        says whether the rest of the line can be parsed, and does nothing
///
/// Both end the parsing with CLI::Success. `app` must live as long as it parses.
void add_hidden_options(CLI::App& app);

}  // namespace completion
