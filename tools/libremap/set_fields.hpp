// SPDX-License-Identifier: GPL-2.0-or-later
//
// A superblock from named values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "libremap/format.hpp"

namespace remap {

/// The values of a dump's superblock by path ("members.0.role"), each with its place.
class NamedValues {
  public:
    /// Where a value stands, for messages.
    struct Place {
        std::uint64_t line = 0;
        std::uint64_t byte = 0;
    };

    /// Throws Error for a name that is there already, or too many. `name` is the input's.
    void add(const std::string& name, Place place, const std::string& path,
             const std::string& value);

    /// All of them as a superblock, which ended at `end`. Throws Error for a value that is missing,
    /// unknown or not what its field can hold.
    Superblock superblock(const std::string& name, Place end) const;

  private:
    friend class FieldReader;
    struct Value {
        std::string text;
        Place place;
    };
    std::map<std::string, Value> values_;
};

/// Codes of the names that entry_state_name() and entry_cause_name() give; causes that this program
/// does not know go by number.
std::optional<std::uint8_t> parse_entry_state(std::string_view name);
std::optional<std::uint8_t> parse_entry_cause(std::string_view name);

}  // namespace remap
