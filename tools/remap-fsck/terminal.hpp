// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

namespace remap_fsck {

/// Are standard input and output a terminal, so that somebody can be asked?
bool on_terminal();

/// From here on SIGINT, SIGTERM, SIGHUP and SIGQUIT do not end the program but are noted.
void note_interrupts();

/// Has there been one?
bool interrupted();

/// Asks on the terminal; true for yes. An interrupt ends the question: no.
bool ask(const std::string& question);

}  // namespace remap_fsck
