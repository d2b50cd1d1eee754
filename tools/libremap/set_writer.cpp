// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/set_writer.hpp"

#include <array>
#include <charconv>
#include <cstring>
#include <ostream>
#include <string>
#include <string_view>

#include "libremap/report.hpp"
#include "libremap/superblock_fields.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr char digits[] = "0123456789abcdef";

int hex_value(char c) {
    const char* at = c == '\0' ? nullptr : std::strchr(digits, c);
    return at ? static_cast<int>(at - digits) : -1;
}

}  // namespace

std::string escape_text(const std::string& text) {
    std::string escaped;

    // printable() replaces exactly what a line cannot carry, a whole character at a time.
    for (std::size_t at = 0; at < text.size();) {
        std::size_t length = 1;
        while (at + length < text.size() &&
               (static_cast<unsigned char>(text[at + length]) & 0xc0) == 0x80)
            length++;
        const std::string character = text.substr(at, length);
        if (character != "\\" && printable(character) == character) {
            escaped += character;
        } else {
            for (const char c : character) {
                const auto byte = static_cast<unsigned char>(c);
                escaped += cat("\\x", digits[byte >> 4], digits[byte & 15]);
            }
        }
        at += length;
    }
    return escaped;
}

std::optional<std::string> unescape_text(const std::string& escaped) {
    std::string text;

    for (std::size_t at = 0; at < escaped.size(); at++) {
        if (escaped[at] != '\\') {
            text += escaped[at];
            continue;
        }
        if (escaped.size() - at < 4 || escaped[at + 1] != 'x')
            return std::nullopt;
        const int high = hex_value(escaped[at + 2]);
        const int low = hex_value(escaped[at + 3]);
        if (high < 0 || low < 0)
            return std::nullopt;
        text += static_cast<char>(high << 4 | low);
        at += 3;
    }
    return text;
}

std::string generation_text(std::uint64_t generation) {
    return cat(generation >> 32, ".", generation & 0xffffffffU);
}

namespace {

/// Hands the fields of a superblock to an emitter.
class FieldWriter {
  public:
    explicit FieldWriter(Emitter& out) : out_(out) {}

    void number(const char* name, std::uint64_t value) { out_.number(name, value); }
    void hex(const char* name, std::uint64_t value) { out_.text(name, cat("0x", std::hex, value)); }
    void generation(const char* name, std::uint64_t value) {
        out_.text(name, generation_text(value));
    }
    void uuid(const char* name, const Uuid& value) { out_.text(name, value.str()); }
    void text(const char* name, const std::string& value) { out_.text(name, escape_text(value)); }
    void state(const char* name, std::uint8_t value) { out_.text(name, set_state_name(value)); }
    void role(const char* name, std::uint8_t value) { out_.text(name, role_name(value)); }

    template <typename List>
    void numbers(const char* name, const List& values, std::size_t most) {
        static_cast<void>(most);
        out_.begin_list(name);
        for (const std::uint64_t value : values)
            out_.number("", value);
        out_.end_list();
    }

    template <typename List, typename Each>
    void list(const char* name, const List& values, std::size_t most, const Each& each) {
        static_cast<void>(most);
        out_.begin_list(name);
        for (const auto& value : values) {
            out_.begin_object("");
            each(*this, value);
            out_.end_object();
        }
        out_.end_list();
    }

  private:
    Emitter& out_;
};

/// One line of memory that is filled and written at once; a stream's own formatting would take
/// most of the time of a large dump.
class Line {
  public:
    Line& operator<<(std::string_view text) {
        std::memcpy(at_, text.data(), text.size());
        at_ += text.size();
        return *this;
    }
    Line& operator<<(std::uint64_t value) {
        at_ = std::to_chars(at_, memory_.data() + memory_.size(), value).ptr;
        return *this;
    }
    void write(std::ostream& out) {
        out.write(memory_.data(), at_ - memory_.data());
        at_ = memory_.data();
    }

  private:
    // Seven numbers of 20 digits, their names, and two words fit with room to spare.
    std::array<char, 512> memory_{};
    char* at_ = memory_.data();
};

/// Causes that this program does not know go by number.
std::string cause_text(std::uint8_t cause) {
    return cause <= REMAP_CAUSE_UNTESTED ? entry_cause_name(cause) : cat(+cause);
}

class JsonWriter : public SetVisitor {
  public:
    explicit JsonWriter(std::ostream& out) : out_(out) {}

    void superblock(const DumpInfo& info, const Superblock& sb) override {
        // It is not finished: what follows is written without it, for speed.
        JsonEmitter emitter(out_);
        FieldWriter fields(emitter);
        emitter.text("format", dump_format_name);
        emitter.number("version", dump_format_version);
        emitter.boolean("taken_in_use", info.taken_in_use);
        emitter.begin_object("superblock");
        visit_fields(fields, sb);
        emitter.end_object();
        out_ << ",\n  \"table\": [";
    }

    void block(std::uint64_t index, std::uint64_t generation) override {
        end_block();
        out_ << (first_block_ ? "\n" : ",\n") << "    {\"index\": " << index
             << ", \"generation\": \"" << generation_text(generation) << "\", \"entries\": [";
        first_block_ = false;
        in_block_ = true;
        first_entry_ = true;
    }

    void lost_block(std::uint64_t index) override {
        end_block();
        out_ << (first_block_ ? "\n" : ",\n") << "    {\"index\": " << index << ", \"lost\": true}";
        first_block_ = false;
    }

    void entry(std::uint64_t slot, const Entry& entry) override {
        line_ << (first_entry_ ? "\n{\"slot\": " : ",\n{\"slot\": ") << slot
              << ", \"block\": " << entry.block() << ", \"state\": \""
              << entry_state_name(entry.state()) << "\", \"cause\": \"" << cause_text(entry.cause())
              << "\", \"errno\": " << std::uint64_t{entry.error()}
              << ", \"sequence\": " << std::uint64_t{entry.sequence()}
              << ", \"time\": " << std::uint64_t{entry.time()} << "}";
        line_.write(out_);
        first_entry_ = false;
    }

    void finish() override {
        end_block();
        out_ << (first_block_ ? "]\n}\n" : "\n  ]\n}\n");
    }

  private:
    void end_block() {
        if (in_block_)
            out_ << (first_entry_ ? "]}" : "\n    ]}");
        in_block_ = false;
    }

    std::ostream& out_;
    Line line_;
    bool first_block_ = true;
    bool in_block_ = false;
    bool first_entry_ = true;
};

/// Fields as lines "PATH VALUE", as "superblock.members.0.role main".
class FlatEmitter : public Emitter {
  public:
    explicit FlatEmitter(std::ostream& out) : out_(out) { levels_.push_back({}); }

    void begin_object(const std::string& name) override { open(name, false); }
    void end_object() override { levels_.pop_back(); }
    void begin_list(const std::string& name) override { open(name, true); }
    void end_list() override { levels_.pop_back(); }
    void text(const std::string& name, const std::string& value) override {
        out_ << path(name) << " " << value << "\n";
    }
    void number(const std::string& name, std::uint64_t value) override { text(name, cat(value)); }
    void boolean(const std::string& name, bool value) override { text(name, value ? "yes" : "no"); }
    void quantity(const std::string& name, std::uint64_t value, const char* unit) override {
        static_cast<void>(unit);
        number(name, value);
    }
    void time(const std::string& name, std::uint64_t seconds) override { number(name, seconds); }
    void finish() override {}

  private:
    struct Level {
        std::string prefix;
        bool list = false;
        std::size_t next = 0;
    };

    std::string path(const std::string& name) {
        Level& level = levels_.back();
        return cat(level.prefix, level.list ? cat(level.next++) : name);
    }
    void open(const std::string& name, bool list) {
        const std::string prefix = cat(path(name), ".");
        levels_.push_back({prefix, list, 0});
    }

    std::ostream& out_;
    std::vector<Level> levels_;
};

class TextWriter : public SetVisitor {
  public:
    explicit TextWriter(std::ostream& out) : out_(out) {}

    void superblock(const DumpInfo& info, const Superblock& sb) override {
        FlatEmitter emitter(out_);
        FieldWriter fields(emitter);
        out_ << dump_format_name << " " << dump_format_version << "\n";
        emitter.boolean("taken_in_use", info.taken_in_use);
        emitter.begin_object("superblock");
        visit_fields(fields, sb);
        emitter.end_object();
        out_ << "# block INDEX GENERATION, then its entries: SLOT BLOCK STATE CAUSE ERRNO SEQUENCE "
                "TIME\n";
    }

    void block(std::uint64_t index, std::uint64_t generation) override {
        out_ << "block " << index << " " << generation_text(generation) << "\n";
    }

    void lost_block(std::uint64_t index) override { out_ << "lost " << index << "\n"; }

    void entry(std::uint64_t slot, const Entry& entry) override {
        line_ << slot << " " << entry.block() << " " << entry_state_name(entry.state()) << " "
              << cause_text(entry.cause()) << " " << std::uint64_t{entry.error()} << " "
              << std::uint64_t{entry.sequence()} << " " << std::uint64_t{entry.time()} << "\n";
        line_.write(out_);
    }

    void finish() override { out_ << "end\n"; }

  private:
    std::ostream& out_;
    Line line_;
};

}  // namespace

std::unique_ptr<SetVisitor> make_json_writer(std::ostream& out) {
    return std::make_unique<JsonWriter>(out);
}

std::unique_ptr<SetVisitor> make_text_writer(std::ostream& out) {
    return std::make_unique<TextWriter>(out);
}

}  // namespace remap
