// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

/// The tools are one program, which an initramfs carries once; which of them runs is told by the
/// name it was started by. Each takes what main() got and returns the exit status, see its manual
/// page.
int remapsetup_main(int argc, char** argv);
int remap_fsck_main(int argc, char** argv);
int remap_dump_main(int argc, char** argv);
