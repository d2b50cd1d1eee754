// SPDX-License-Identifier: GPL-2.0-or-later
//
// No test leaves undo files on the machine that it runs on.
#include <cstdlib>

#include "scratch.hpp"

namespace {

const scratch::Folder folder;
[[maybe_unused]] const int named = ::setenv("REMAP_STATE_DIR", folder.path().c_str(), 1);

}  // namespace
