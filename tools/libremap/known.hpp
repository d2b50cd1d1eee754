// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which sets may be opened without being asked for: those that remaptab(5) lists and those that
// the kernel command line names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libremap/remaptab.hpp"
#include "libremap/uuid.hpp"

namespace remap {

/// What the kernel command line says about us.
struct CommandLine {
    bool disabled = false;   ///< rd.remap=0
    std::vector<Uuid> sets;  ///< rd.remap.uuid=
    std::vector<std::string> problems;
};
CommandLine parse_command_line(const std::string& text);

/// The command line of the running kernel; `proc` is where procfs is mounted. Empty if it cannot be
/// read.
CommandLine running_command_line(const std::string& proc);

/// The sets that may be opened without being asked for, with the options of remaptab(5).
std::vector<RemaptabEntry> known_sets(const Remaptab& tab, const CommandLine& command_line);

/// The set of that name, also one that is opened only when asked for (`noauto`). Throws Error
/// (unrecognised) if there is none.
RemaptabEntry set_named(const std::string& name, const Remaptab& tab,
                        const CommandLine& command_line);

}  // namespace remap
