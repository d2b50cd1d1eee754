// SPDX-License-Identifier: GPL-2.0-or-later
#include <array>
#include <cstddef>
#include <istream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libremap/error.hpp"
#include "libremap/input.hpp"
#include "libremap/set_fields.hpp"
#include "libremap/set_reader.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// Takes the parser's events. Every one of them is either expected here or ends the reading, so
/// nesting and names cannot run away.
class JsonDump : public nlohmann::json_sax<nlohmann::json> {
  public:
    JsonDump(PlaceBuffer& in, const std::string& name, SetVisitor& set)
        : in_(in), name_(name), set_(set) {}

    bool null() override { throw in_.error("expected a value, found null"); }
    bool number_integer(number_integer_t value) override {
        throw in_.error(cat("expected a number that is not negative, found ", value));
    }
    bool number_float(number_float_t value, const string_t& text) override {
        static_cast<void>(value);
        throw in_.error(cat("expected a whole number, found ", excerpt(text)));
    }
    bool binary(binary_t& value) override {
        static_cast<void>(value);
        throw in_.error("expected no binary value");
    }
    bool boolean(bool value) override;
    bool number_unsigned(number_unsigned_t value) override;
    bool string(string_t& value) override;
    bool start_object(std::size_t elements) override;
    bool key(string_t& value) override;
    bool end_object() override;
    bool start_array(std::size_t elements) override;
    bool end_array() override;
    bool parse_error(std::size_t position, const std::string& token,
                     const nlohmann::detail::exception& error) override;

    bool complete() const { return where_ == Where::end; }

  private:
    enum class Where { start, root, superblock, table, block, entries, entry, end };

    /// The keys of the outermost object, in the order in which they must come.
    enum class Root { none, format, version, taken_in_use, superblock, table };

    enum Field { slot, block_number, state, cause, error_number, sequence, time, fields };

    /// An open object or list inside the superblock.
    struct Level {
        bool list = false;
        std::size_t next = 0;
        std::string prefix;
    };

    [[noreturn]] void unexpected(const char* what) const {
        throw in_.error(cat("expected ", expected(), ", found ", what));
    }
    const char* expected() const;
    /// The path of the next value inside the superblock.
    std::string next_path();
    void take(const std::string& text);
    void root_key(const std::string& key);
    void block_key(const std::string& key);
    void entry_key(const std::string& key);
    void take_field(std::uint64_t value);
    void finish_superblock();
    void finish_entry();
    void announce_block();
    template <typename Call>
    void tell(const Call& call);

    PlaceBuffer& in_;
    const std::string& name_;
    SetVisitor& set_;
    Where where_ = Where::start;
    Root root_ = Root::none;
    bool has_value_ = true;  ///< the present key of the outermost object has had its value
    std::string key_;
    std::vector<Level> levels_;
    NamedValues values_;
    DumpInfo info_;
    std::optional<std::uint64_t> index_;
    std::optional<std::uint64_t> generation_;
    bool lost_ = false;
    bool had_entries_ = false;
    Field field_ = fields;
    std::array<std::uint64_t, fields> entry_{};
    unsigned int seen_ = 0;
};

/// What the set refuses gets the place where it stands.
template <typename Call>
void JsonDump::tell(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        throw Error(exit_of_dump(error.code()),
                    cat(name_, ": line ", in_.line(), ", byte ", in_.byte(), ": ", error.what()));
    }
}

const char* JsonDump::expected() const {
    switch (where_) {
        case Where::start:
            return "an object";
        case Where::superblock:
            return "a field of the superblock";
        case Where::table:
            return "a table block as an object";
        case Where::block:
            return "\"index\", \"generation\" and \"entries\", or \"lost\", of a table block";
        case Where::entries:
            return "an entry as an object";
        case Where::entry:
            return "the fields of an entry";
        default:
            return "\"format\", \"version\", \"taken_in_use\", \"superblock\" and \"table\", in "
                   "this order";
    }
}

std::string JsonDump::next_path() {
    Level& level = levels_.back();

    return level.prefix + (level.list ? cat(level.next++) : key_);
}

void JsonDump::take(const std::string& text) {
    values_.add(name_, {in_.line(), in_.byte()}, next_path(), text);
}

bool JsonDump::boolean(bool value) {
    in_.mark();
    if (where_ == Where::root && root_ == Root::taken_in_use && !has_value_) {
        info_.taken_in_use = value;
        has_value_ = true;
    } else if (where_ == Where::block && key_ == "lost" && value && !lost_) {
        lost_ = true;
    } else {
        unexpected(value ? "true" : "false");
    }
    return true;
}

bool JsonDump::number_unsigned(number_unsigned_t value) {
    in_.mark();
    if (where_ == Where::entry && field_ != state && field_ != cause) {
        take_field(value);
    } else if (where_ == Where::entry && field_ == cause && value <= 255) {
        take_field(value);
    } else if (where_ == Where::superblock) {
        take(cat(value));
    } else if (where_ == Where::block && key_ == "index" && !index_) {
        index_ = value;
    } else if (where_ == Where::root && root_ == Root::version && !has_value_) {
        if (value != dump_format_version)
            throw Error(Exit::operational, cat(name_, ": line ", in_.line(), ", byte ", in_.byte(),
                                               ": expected a dump of version ", dump_format_version,
                                               ", found ", value));
        has_value_ = true;
    } else {
        unexpected(cat(value).c_str());
    }
    return true;
}

bool JsonDump::string(string_t& value) {
    in_.mark();
    if (where_ == Where::entry && (field_ == state || field_ == cause)) {
        const auto code = field_ == state ? parse_entry_state(value) : parse_entry_cause(value);
        if (!code)
            throw in_.error(cat("expected the ", field_ == state ? "state" : "cause",
                                " of an entry, found \"", excerpt(value), "\""));
        take_field(*code);
    } else if (where_ == Where::superblock) {
        take(value);
    } else if (where_ == Where::block && key_ == "generation" && !generation_) {
        generation_ = parse_generation(value);
        if (!generation_)
            throw in_.error(
                cat("expected a generation as \"3.7\", found \"", excerpt(value), "\""));
    } else if (where_ == Where::root && root_ == Root::format && !has_value_) {
        if (value != dump_format_name)
            throw in_.error(
                cat("expected \"", dump_format_name, "\", found \"", excerpt(value), "\""));
        has_value_ = true;
    } else {
        unexpected("text");
    }
    return true;
}

bool JsonDump::start_object(std::size_t elements) {
    static_cast<void>(elements);
    in_.mark();
    switch (where_) {
        case Where::start:
            where_ = Where::root;
            break;
        case Where::root:
            if (root_ != Root::superblock || has_value_)
                unexpected("an object");
            has_value_ = true;
            where_ = Where::superblock;
            levels_.push_back({});
            break;
        case Where::superblock:
            if (!levels_.back().list)
                unexpected("an object");
            levels_.push_back({false, 0, next_path() + "."});
            break;
        case Where::table:
            where_ = Where::block;
            index_.reset();
            generation_.reset();
            lost_ = had_entries_ = false;
            key_.clear();
            break;
        case Where::entries:
            where_ = Where::entry;
            seen_ = 0;
            field_ = fields;
            break;
        default:
            unexpected("an object");
    }
    return true;
}

void JsonDump::root_key(const std::string& key) {
    static const char* const names[] = {"format", "version", "taken_in_use", "superblock", "table"};
    const auto next = static_cast<std::size_t>(root_);

    if (root_ == Root::table || !has_value_ || key != names[next])
        unexpected(cat("\"", excerpt(key), "\"").c_str());
    root_ = static_cast<Root>(next + 1);
    has_value_ = false;
}

void JsonDump::block_key(const std::string& key) {
    const bool known = key == "index" || key == "generation" || key == "lost" || key == "entries";

    if (!known || had_entries_)
        unexpected(cat("\"", excerpt(key), "\"").c_str());
    key_ = key;
}

void JsonDump::entry_key(const std::string& key) {
    static const char* const names[fields] = {"slot",  "block",    "state", "cause",
                                              "errno", "sequence", "time"};
    // They are written in this order, so the next one is looked at first.
    unsigned int next = field_ == fields ? 0 : field_ + 1U;
    if (next >= fields || key != names[next]) {
        for (next = 0; next < fields && key != names[next]; next++) {
        }
    }
    if (next == fields || (seen_ & 1U << next) != 0)
        unexpected(cat("\"", excerpt(key), "\"").c_str());
    field_ = static_cast<Field>(next);
}

bool JsonDump::key(string_t& value) {
    in_.mark();
    switch (where_) {
        case Where::entry:
            entry_key(value);
            break;
        case Where::block:
            block_key(value);
            break;
        case Where::superblock:
            // Longer than all names there are; paths are put together of it.
            if (value.empty() || value.size() > 64 || value.find('.') != std::string::npos)
                unexpected(cat("\"", excerpt(value), "\"").c_str());
            key_ = value;
            break;
        default:
            root_key(value);
            break;
    }
    return true;
}

void JsonDump::take_field(std::uint64_t value) {
    static constexpr std::array<std::uint64_t, fields> most = {
        ~0ULL, REMAP_ENTRY_BLOCK_MASK, 255, 255, 255, REMAP_ENTRY_SEQ_MASK, 0xffffffffU};

    if (field_ == fields || (seen_ & 1U << field_) != 0)
        unexpected(cat(value).c_str());
    if (value > most.at(field_))
        throw in_.error(cat("expected a number of at most ", most.at(field_), ", found ", value));
    entry_.at(field_) = value;
    seen_ |= 1U << field_;
}

void JsonDump::finish_entry() {
    if (seen_ != (1U << fields) - 1)
        throw in_.error(
            "expected an entry with slot, block, state, cause, errno, sequence and "
            "time, found one without");
    const Entry entry = Entry::make(
        static_cast<remap_entry_state>(entry_[state]), entry_[block_number],
        static_cast<remap_entry_cause>(entry_[cause]),
        static_cast<std::uint8_t>(entry_[error_number]),
        static_cast<std::uint32_t>(entry_[sequence]), static_cast<std::uint32_t>(entry_[time]));
    tell([&] { set_.entry(entry_[slot], entry); });
}

void JsonDump::finish_superblock() {
    const Superblock sb = values_.superblock(name_, {in_.line(), in_.byte()});

    tell([&] { set_.superblock(info_, sb); });
}

void JsonDump::announce_block() {
    if (!index_)
        throw in_.error("expected the \"index\" of a table block, found none");
    if (lost_) {
        tell([&] { set_.lost_block(*index_); });
        return;
    }
    if (!generation_)
        throw in_.error("expected the \"generation\" of a table block before its entries");
    tell([&] { set_.block(*index_, *generation_); });
}

bool JsonDump::end_object() {
    in_.mark();
    switch (where_) {
        case Where::entry:
            finish_entry();
            where_ = Where::entries;
            break;
        case Where::block:
            if (!had_entries_ && !lost_)
                throw in_.error("expected a table block with \"entries\", found none");
            if (lost_)
                announce_block();
            where_ = Where::table;
            break;
        case Where::superblock:
            levels_.pop_back();
            if (levels_.empty()) {
                where_ = Where::root;
                finish_superblock();
            }
            break;
        default:
            if (root_ != Root::table || !has_value_)
                unexpected("the end");
            tell([&] { set_.finish(); });
            where_ = Where::end;
    }
    return true;
}

bool JsonDump::start_array(std::size_t elements) {
    static_cast<void>(elements);
    in_.mark();
    // A list in an object in a list is as deep as a superblock goes.
    if (where_ == Where::superblock && !levels_.back().list && levels_.size() < 4) {
        levels_.push_back({true, 0, next_path() + "."});
    } else if (where_ == Where::root && root_ == Root::table && !has_value_) {
        has_value_ = true;
        where_ = Where::table;
    } else if (where_ == Where::block && key_ == "entries" && !lost_ && !had_entries_) {
        had_entries_ = true;
        announce_block();
        where_ = Where::entries;
    } else {
        unexpected("a list");
    }
    return true;
}

bool JsonDump::end_array() {
    in_.mark();
    if (where_ == Where::superblock)
        levels_.pop_back();
    else
        where_ = where_ == Where::entries ? Where::block : Where::root;
    return true;
}

bool JsonDump::parse_error(std::size_t position, const std::string& token,
                           const nlohmann::detail::exception& error) {
    // Its message repeats line and column, by its own count, before the reason.
    const std::string text = error.what();
    const std::size_t reason =
        text.find(": ", text.find("column") == std::string::npos ? 0 : text.find("column"));

    static_cast<void>(position);
    static_cast<void>(token);
    // It has the whole of the last token, which may be long.
    throw in_.error(excerpt(reason == std::string::npos ? text : text.substr(reason + 2), 200));
}

}  // namespace

void read_json_dump(std::streambuf& in, const std::string& name, SetVisitor& set) {
    PlaceBuffer place(in, name);
    std::istream stream(&place);
    JsonDump dump(place, name, set);

    nlohmann::json::sax_parse(stream, &dump);
    if (!dump.complete())
        throw place.error("expected a whole dump, found the end");
}

}  // namespace remap
