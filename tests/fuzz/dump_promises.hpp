// SPDX-License-Identifier: GPL-2.0-or-later
//
// What both forms of a dump promise, whatever somebody made of one. Input: flags, then the text.
#pragma once

#include <streambuf>
#include <string>

#include "libremap/set_visitor.hpp"
#include "support.hpp"

namespace fuzz {

using ReadDump = void (*)(std::streambuf& in, const std::string& name, remap::SetVisitor& set);

/// A reader needs memory for one superblock only, also of input that goes on and on. What is
/// refused is refused with its line. What is taken comes back from both forms of a dump, and from
/// the device that a restore writes.
void check_dump(Input& input, ReadDump read);

}  // namespace fuzz
