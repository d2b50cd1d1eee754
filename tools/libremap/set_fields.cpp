// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/set_fields.hpp"

#include <array>
#include <set>
#include <vector>

#include "libremap/input.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/superblock_fields.hpp"
#include "libremap/text.hpp"

namespace remap {

/// Sets each field from the value of its name, and remembers which names were used.
class FieldReader {
  public:
    FieldReader(const NamedValues& values, const std::string& input, NamedValues::Place end)
        : values_(values.values_), input_(input), end_(end) {}

    template <typename T>
    void number(const char* name, T& to) {
        to = parse<T>(name, "a number that fits",
                      [](const std::string& text) { return parse_number<T>(text); });
    }
    void hex(const char* name, std::uint64_t& to) {
        to = parse<std::uint64_t>(name, "a number as 0x1f", [](const std::string& text) {
            return text.starts_with("0x")
                       ? parse_number<std::uint64_t>(std::string_view(text).substr(2), 16)
                       : std::nullopt;
        });
    }
    void generation(const char* name, std::uint64_t& to) {
        to = parse<std::uint64_t>(name, "a generation as 3.7", parse_generation);
    }
    void uuid(const char* name, Uuid& to) {
        to = parse<Uuid>(name, "a UUID", [](const std::string& text) { return Uuid::parse(text); });
    }
    void text(const char* name, std::string& to) {
        to =
            parse<std::string>(name, "text with \\xNN for what a line cannot carry", unescape_text);
    }
    void state(const char* name, std::uint8_t& to) {
        to = named(name, "the state of a set", set_state_name, REMAP_STATE_COMPLETE,
                   REMAP_STATE_MIGRATING);
    }
    void role(const char* name, std::uint8_t& to) {
        to = named(name, "a role", role_name, REMAP_ROLE_SPARE, REMAP_ROLE_MAIN);
    }

    template <std::size_t size>
    void numbers(const char* name, std::array<std::uint64_t, size>& to, std::size_t most) {
        static_cast<void>(most);
        for (std::size_t i = 0; i < size; i++)
            number(cat(name, ".", i).c_str(), to[i]);
    }
    void numbers(const char* name, std::vector<std::uint64_t>& to, std::size_t most) {
        while (to.size() < most && values_.count(cat(prefix_, name, ".", to.size())) != 0) {
            const std::string path = cat(name, ".", to.size());
            number(path.c_str(), to.emplace_back());
        }
    }
    template <typename T, typename Each>
    void list(const char* name, std::vector<T>& to, std::size_t most, const Each& each) {
        const std::string outer = prefix_;
        while (to.size() < most && any_below(cat(outer, name, ".", to.size(), "."))) {
            prefix_ = cat(outer, name, ".", to.size(), ".");
            each(*this, to.emplace_back());
        }
        prefix_ = outer;
    }

    /// The first name that no field wanted.
    void require_all_used() const {
        for (const auto& [path, value] : values_) {
            if (used_.count(path) == 0)
                throw input_error(input_, value.place.line, value.place.byte,
                                  cat("superblock: expected fields that this program knows, "
                                      "found \"",
                                      path, "\""));
        }
    }

  private:
    using Values = std::map<std::string, NamedValues::Value>;

    template <typename T, typename Parse>
    T parse(const char* name, const char* expected, const Parse& convert) {
        const std::string path = prefix_ + name;
        const auto found = values_.find(path);
        if (found == values_.end())
            throw input_error(input_, end_.line, end_.byte,
                              cat("superblock: expected a field \"", path, "\", found none"));
        used_.insert(path);
        const std::optional<T> value = convert(found->second.text);
        if (!value)
            throw input_error(input_, found->second.place.line, found->second.place.byte,
                              cat("superblock: ", path, ": expected ", expected, ", found \"",
                                  found->second.text, "\""));
        return *value;
    }

    std::uint8_t named(const char* name, const char* expected, const char* (*name_of)(std::uint8_t),
                       std::uint8_t first, std::uint8_t last) {
        return parse<std::uint8_t>(name, expected,
                                   [&](const std::string& text) -> std::optional<std::uint8_t> {
                                       for (std::uint8_t code = first; code <= last; code++) {
                                           if (text == name_of(code))
                                               return code;
                                       }
                                       return std::nullopt;
                                   });
    }

    bool any_below(const std::string& prefix) const {
        const auto at = values_.lower_bound(prefix);
        return at != values_.end() && at->first.starts_with(prefix);
    }

    const Values& values_;
    const std::string& input_;
    NamedValues::Place end_;
    std::string prefix_;
    std::set<std::string> used_;
};

void NamedValues::add(const std::string& name, Place place, const std::string& path,
                      const std::string& value) {
    // A superblock with all its lists full has fewer.
    constexpr std::size_t most = 1024;
    constexpr std::size_t longest = 1024;
    const auto refuse = [&](const std::string& what) {
        throw input_error(name, place.line, place.byte, cat("superblock: expected ", what));
    };

    if (path.size() > longest || value.size() > longest)
        refuse(cat("names and values of at most ", longest, " bytes"));
    if (values_.size() == most)
        refuse(cat("at most ", most, " fields"));
    if (!values_.emplace(path, Value{value, place}).second)
        refuse(cat("\"", path, "\" once, found it again"));
}

Superblock NamedValues::superblock(const std::string& name, Place end) const {
    FieldReader reader(*this, name, end);
    Superblock sb;

    sb.head.role = REMAP_ROLE_SPARE;
    visit_fields(reader, sb);
    reader.require_all_used();
    return sb;
}

std::optional<std::uint8_t> parse_entry_state(std::string_view name) {
    for (std::uint8_t state = REMAP_ENTRY_FREE; state <= REMAP_ENTRY_BAD; state++) {
        if (name == entry_state_name(state))
            return state;
    }
    return std::nullopt;
}

std::optional<std::uint8_t> parse_entry_cause(std::string_view name) {
    for (std::uint8_t cause = REMAP_CAUSE_NONE; cause <= REMAP_CAUSE_UNTESTED; cause++) {
        if (name == entry_cause_name(cause))
            return cause;
    }
    return parse_number<std::uint8_t>(name);
}

}  // namespace remap
