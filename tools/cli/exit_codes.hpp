// SPDX-License-Identifier: GPL-2.0-or-later
//
// The exit codes as --help tells them. docs/exit-codes.md is where they are defined; a test
// compares the two, and the manual pages.
#pragma once

namespace cli {

/// Of remapsetup and remap-dump.
constexpr const char* exit_codes_help =
    "Exit status: 0 done; 1 done, but damage was seen, a known set is not open, or a\n"
    "migration is doubtful; 2 not recognised, or damaged beyond use; 8 in use, an I/O error,\n"
    "or a newer format; 16 wrong use, or refused without --yes or --force.";

/// Of remap-fsck.
constexpr const char* fsck_exit_codes_help =
    "Exit status, the sum of: 0 no damage; 1 damage was repaired; 4 damage is left;\n"
    "8 in use, not ours, an I/O error, or a newer format; 16 wrong use; 32 interrupted.";

}  // namespace cli
