// SPDX-License-Identifier: GPL-2.0-or-later
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "libremap/error.hpp"
#include "libremap/input.hpp"
#include "libremap/set_fields.hpp"
#include "libremap/set_reader.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::string_view superblock_prefix = "superblock.";

class TextDump {
  public:
    TextDump(PlaceBuffer& in, const std::string& name, SetVisitor& set)
        : in_(in), name_(name), set_(set) {}

    void read();

  private:
    /// The next line that is not a comment; false at the end of the input.
    bool next();
    [[noreturn]] void refuse(const std::string& what) const {
        throw input_error(name_, line_, byte_, what);
    }
    [[noreturn]] void unexpected(const char* expected) const {
        refuse(cat("expected ", expected, ", found \"", text_, "\""));
    }
    void read_head();
    void read_superblock();
    bool read_block();
    void read_entry();
    template <typename Call>
    void tell(const Call& call) const;
    template <typename T>
    T number(std::string_view word) const;

    PlaceBuffer& in_;
    const std::string& name_;
    SetVisitor& set_;
    std::string text_;
    std::uint64_t line_ = 1;
    std::uint64_t byte_ = 1;
    DumpInfo info_;
};

/// What the set refuses gets the place where it stands.
template <typename Call>
void TextDump::tell(const Call& call) const {
    try {
        call();
    } catch (const Error& error) {
        throw Error(exit_of_dump(error.code()),
                    cat(name_, ": line ", line_, ", byte ", byte_, ": ", error.what()));
    }
}

template <typename T>
T TextDump::number(std::string_view word) const {
    const auto value = parse_number<T>(word);

    if (!value)
        refuse(cat("expected a number that fits, found \"", word, "\""));
    return *value;
}

bool TextDump::next() {
    do {
        line_ = in_.line();
        byte_ = in_.byte() + 1;
        if (!in_.next_line(text_))
            return false;
    } while (text_.starts_with('#'));
    return true;
}

void TextDump::read_head() {
    const std::string first = cat(dump_format_name, " ");

    if (!next() || !text_.starts_with(first))
        unexpected(cat("\"", first, dump_format_version, "\"").c_str());
    if (number<std::uint64_t>(std::string_view(text_).substr(first.size())) != dump_format_version)
        throw Error(Exit::operational,
                    cat(name_, ": line ", line_, ", byte ", byte_, ": expected a dump of version ",
                        dump_format_version, ", found \"", text_, "\""));
    if (!next() || (text_ != "taken_in_use yes" && text_ != "taken_in_use no"))
        unexpected("\"taken_in_use\" with yes or no");
    info_.taken_in_use = text_.ends_with("yes");
}

/// Up to and with the first line that is not of the superblock.
void TextDump::read_superblock() {
    NamedValues values;
    bool more = next();

    for (; more && text_.starts_with(superblock_prefix); more = next()) {
        const std::size_t space = text_.find(' ');
        if (space == std::string::npos)
            unexpected("a name, a space and a value");
        values.add(name_, {line_, byte_},
                   text_.substr(superblock_prefix.size(), space - superblock_prefix.size()),
                   text_.substr(space + 1));
    }
    if (!more)
        refuse("expected a table block, found the end");
    const Superblock sb = values.superblock(name_, {line_, byte_});
    tell([&] { set_.superblock(info_, sb); });
}

/// A line that begins with "block" or "lost".
bool TextDump::read_block() {
    const std::string_view text = text_;

    if (text.starts_with("lost ")) {
        const auto index = number<std::uint64_t>(text.substr(5));
        tell([&] { set_.lost_block(index); });
        return true;
    }
    if (!text.starts_with("block "))
        return false;
    const std::size_t space = text.find(' ', 6);
    if (space == std::string_view::npos)
        unexpected("\"block\", an index and a generation");
    const auto index = number<std::uint64_t>(text.substr(6, space - 6));
    const auto generation = parse_generation(text.substr(space + 1));
    if (!generation)
        unexpected("\"block\", an index and a generation as 3.7");
    tell([&] { set_.block(index, *generation); });
    return true;
}

void TextDump::read_entry() {
    constexpr std::size_t most = 7;
    std::array<std::string_view, most> words;
    std::string_view rest = text_;

    for (std::size_t i = 0; i < most; i++) {
        const std::size_t space = rest.find(' ');
        if ((space == std::string_view::npos) != (i == most - 1))
            unexpected("slot, block, state, cause, errno, sequence and time");
        words.at(i) = rest.substr(0, space);
        rest.remove_prefix(space == std::string_view::npos ? rest.size() : space + 1);
    }
    const auto slot = number<std::uint64_t>(words[0]);
    const auto block = number<std::uint64_t>(words[1]);
    const auto state = parse_entry_state(words[2]);
    const auto cause = parse_entry_cause(words[3]);
    const auto error = number<std::uint8_t>(words[4]);
    const auto sequence = number<std::uint32_t>(words[5]);
    const auto time = number<std::uint32_t>(words[6]);
    if (!state || !cause)
        unexpected("the state and the cause of an entry");
    if (block > REMAP_ENTRY_BLOCK_MASK || sequence > REMAP_ENTRY_SEQ_MASK)
        unexpected("a block of 48 bits and a sequence of 24");
    const Entry entry = Entry::make(static_cast<remap_entry_state>(*state), block,
                                    static_cast<remap_entry_cause>(*cause), error, sequence, time);
    tell([&] { set_.entry(slot, entry); });
}

void TextDump::read() {
    read_head();
    read_superblock();
    for (bool more = true; more && text_ != "end"; more = next()) {
        if (!read_block())
            read_entry();
    }
    if (text_ != "end")
        refuse("expected \"end\", found the end of the input");
    tell([&] { set_.finish(); });
    if (next())
        unexpected("nothing after \"end\"");
}

}  // namespace

void read_text_dump(std::streambuf& in, const std::string& name, SetVisitor& set) {
    PlaceBuffer place(in, name);

    TextDump(place, name, set).read();
}

void read_dump(std::streambuf& in, const std::string& name, SetVisitor& set) {
    if (in.sgetc() == '{')
        read_json_dump(in, name, set);
    else
        read_text_dump(in, name, set);
}

}  // namespace remap
