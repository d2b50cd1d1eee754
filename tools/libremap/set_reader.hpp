// SPDX-License-Identifier: GPL-2.0-or-later
//
// Reading the dumps that set_writer.hpp writes.
#pragma once

#include <iosfwd>
#include <string>

#include "libremap/error.hpp"
#include "libremap/set_visitor.hpp"

namespace remap {

/// What a command line must not say, such as a label that is too long, makes a dump one that is not
/// recognised.
constexpr Exit exit_of_dump(Exit code) {
    return code == Exit::usage ? Exit::unrecognised : code;
}

/// Reads a whole dump and shows it to `set`. Throws Error (unrecognised), with line and byte, for
/// anything that is not a dump, has a field too many, too few or twice, or that `set` refuses. Uses
/// memory only for one superblock, whatever it is given.
void read_json_dump(std::streambuf& in, const std::string& name, SetVisitor& set);
void read_text_dump(std::streambuf& in, const std::string& name, SetVisitor& set);

/// Either of them: JSON begins with "{".
void read_dump(std::streambuf& in, const std::string& name, SetVisitor& set);

}  // namespace remap
