// SPDX-License-Identifier: GPL-2.0-or-later
//
// Dumps of a set from which it can be made again: JSON and text with the same content.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>

#include "libremap/set_visitor.hpp"

namespace remap {

/// The first line of a dump as text, and in JSON the values of "format" and "version".
inline constexpr const char* dump_format_name = "dm-remap dump";
inline constexpr std::uint64_t dump_format_version = 1;

/// Writes as it is called, one entry per line. `out` must outlive it; its state tells of errors.
std::unique_ptr<SetVisitor> make_json_writer(std::ostream& out);
std::unique_ptr<SetVisitor> make_text_writer(std::ostream& out);

/// Text of a superblock as a line can carry it: control characters, backslashes and bytes that are
/// not UTF-8 become "\xNN". Nothing is lost.
std::string escape_text(const std::string& text);

/// The reverse; nothing if there is a backslash that escape_text would not have written.
std::optional<std::string> unescape_text(const std::string& escaped);

/// A generation as "EPOCH.NUMBER".
std::string generation_text(std::uint64_t generation);

}  // namespace remap
