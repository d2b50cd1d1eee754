// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/report.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <streambuf>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// Length of the UTF-8 sequence at `at`, or 0 if there is no valid one.
std::size_t utf8_length(const std::string& text, std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
    const auto follows = [&](std::size_t i) {
        return at + i < text.size() && (byte(i) & 0xc0) == 0x80;
    };

    if (byte(0) < 0x80)
        return 1;
    if (byte(0) >= 0xc2 && byte(0) < 0xe0)
        return follows(1) ? 2 : 0;
    if (byte(0) >= 0xe0 && byte(0) < 0xf0) {
        const bool overlong = byte(0) == 0xe0 && follows(1) && byte(1) < 0xa0;
        const bool surrogate = byte(0) == 0xed && follows(1) && byte(1) >= 0xa0;
        return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
    }
    if (byte(0) >= 0xf0 && byte(0) < 0xf5) {
        const bool overlong = byte(0) == 0xf0 && follows(1) && byte(1) < 0x90;
        const bool beyond = byte(0) == 0xf4 && follows(1) && byte(1) >= 0x90;
        return follows(1) && follows(2) && follows(3) && !overlong && !beyond ? 4 : 0;
    }
    return 0;
}

}  // namespace

std::string printable(const std::string& text) {
    std::string shown;

    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = utf8_length(text, at);
        const bool control =
            static_cast<unsigned char>(text[at]) < 0x20 || text[at] == 0x7f ||
            (length == 2 && text[at] == '\xc2' && static_cast<unsigned char>(text[at + 1]) < 0xa0);
        shown += length == 0 || control ? "?" : text.substr(at, length);
        at += length == 0 ? 1 : length;
    }
    return shown;
}

namespace {

std::string date(std::uint64_t seconds) {
    std::array<char, 64> text{};
    const auto when = static_cast<std::time_t>(seconds);
    std::tm parts{};

    if (seconds == 0)
        return "never";
    if (seconds > 253402300799ULL || !gmtime_r(&when, &parts) ||
        std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
        return cat(seconds, " s after 1970");
    return text.data();
}

std::string with_spaces(const std::string& name) {
    std::string shown = name;

    for (char& c : shown) {
        if (c == '_')
            c = ' ';
    }
    return shown;
}

}  // namespace

std::string json_string(const std::string& text) {
    static const char digits[] = "0123456789abcdef";
    std::string out = "\"";

    for (std::size_t at = 0; at < text.size();) {
        const auto c = static_cast<unsigned char>(text[at]);
        const std::size_t length = utf8_length(text, at);
        if (length == 0) {
            out += "\xef\xbf\xbd";
            at++;
            continue;
        }
        if (c == '"' || c == '\\')
            out += cat('\\', text[at]);
        else if (c < 0x20 || c == 0x7f)
            out += cat("\\u00", digits[c >> 4], digits[c & 15]);
        else
            out += text.substr(at, length);
        at += length;
    }
    return out + "\"";
}

// --- JSON -------------------------------------------------------------------------------------

JsonEmitter::JsonEmitter(std::ostream& out) : out_(out) {
    levels_.push_back({});
}

/// Not before there is something to say: who finds nothing to show prints nothing.
void JsonEmitter::begin() {
    if (!begun_)
        out_ << "{";
    begun_ = true;
}

void JsonEmitter::before(const std::string& name) {
    begin();
    Level& level = levels_.back();

    if (!level.first)
        out_ << (level.compact ? ", " : ",");
    if (!level.compact)
        out_ << "\n" << std::string(2 * levels_.size(), ' ');
    level.first = false;
    if (!level.list)
        out_ << json_string(name) << ": ";
}

void JsonEmitter::close(char bracket) {
    const Level level = levels_.back();

    levels_.pop_back();
    if (!level.compact && !level.first)
        out_ << "\n" << std::string(2 * levels_.size(), ' ');
    out_ << bracket;
}

void JsonEmitter::begin_object(const std::string& name) {
    before(name);
    out_ << "{";
    levels_.push_back({false, levels_.back().list || levels_.back().compact, true});
}

void JsonEmitter::end_object() {
    close('}');
}

void JsonEmitter::begin_list(const std::string& name) {
    before(name);
    out_ << "[";
    levels_.push_back({true, levels_.back().compact, true});
}

void JsonEmitter::end_list() {
    close(']');
}

void JsonEmitter::text(const std::string& name, const std::string& value) {
    before(name);
    out_ << json_string(value);
}

void JsonEmitter::number(const std::string& name, std::uint64_t value) {
    before(name);
    out_ << value;
}

void JsonEmitter::boolean(const std::string& name, bool value) {
    before(name);
    out_ << (value ? "true" : "false");
}

void JsonEmitter::quantity(const std::string& name, std::uint64_t value, const char* unit) {
    static_cast<void>(unit);
    number(name, value);
}

void JsonEmitter::time(const std::string& name, std::uint64_t seconds) {
    number(name, seconds);
}

void JsonEmitter::finish() {
    begin();
    close('}');
    out_ << "\n";
}

// --- text -------------------------------------------------------------------------------------

TextEmitter::TextEmitter(std::ostream& out) : out_(out) {
    levels_.push_back({});
}

void TextEmitter::value(const std::string& name, const std::string& shown) {
    Level& level = levels_.back();

    if (level.line) {
        if (!level.first)
            out_ << ", ";
        if (!name.empty())
            out_ << with_spaces(name) << " ";
        out_ << shown;
    } else {
        out_ << std::string(2 * (levels_.size() - 1), ' ');
        if (!name.empty())
            out_ << with_spaces(name) << ": ";
        out_ << shown << "\n";
    }
    level.first = false;
}

void TextEmitter::begin_object(const std::string& name) {
    const bool line = levels_.back().list || levels_.back().line;

    if (levels_.back().line)
        value(name, "");
    else
        out_ << std::string(2 * (levels_.size() - 1), ' ');
    if (!line)
        out_ << with_spaces(name) << ":\n";
    levels_.push_back({false, line, true});
}

void TextEmitter::end_object() {
    const Level level = levels_.back();

    levels_.pop_back();
    if (level.line && !levels_.back().line)
        out_ << "\n";
}

void TextEmitter::begin_list(const std::string& name) {
    if (levels_.back().line)
        value(name, "");
    else
        out_ << std::string(2 * (levels_.size() - 1), ' ') << with_spaces(name) << ":\n";
    levels_.push_back({true, levels_.back().line, true});
}

void TextEmitter::end_list() {
    levels_.pop_back();
}

void TextEmitter::text(const std::string& name, const std::string& shown) {
    value(name, printable(shown));
}

void TextEmitter::number(const std::string& name, std::uint64_t shown) {
    value(name, cat(shown));
}

void TextEmitter::boolean(const std::string& name, bool shown) {
    value(name, shown ? "yes" : "no");
}

void TextEmitter::quantity(const std::string& name, std::uint64_t shown, const char* unit) {
    value(name, cat(shown, " ", unit));
}

void TextEmitter::time(const std::string& name, std::uint64_t seconds) {
    value(name, date(seconds));
}

void TextEmitter::finish() {}

namespace {

/// Writes to a descriptor and remembers why it could not.
class DescriptorBuffer : public std::streambuf {
  public:
    explicit DescriptorBuffer(int fd) : fd_(fd) { setp(memory_.data(), end()); }

    int error() const { return error_; }

  protected:
    int sync() override { return drain() ? 0 : -1; }

    int_type overflow(int_type c) override {
        if (!drain())
            return traits_type::eof();
        if (!traits_type::eq_int_type(c, traits_type::eof()))
            sputc(traits_type::to_char_type(c));
        return traits_type::not_eof(c);
    }

  private:
    char* end() { return memory_.data() + memory_.size(); }

    bool drain() {
        for (const char* at = pbase(); at < pptr() && !error_;) {
            const ssize_t done = write(fd_, at, static_cast<std::size_t>(pptr() - at));
            if (done < 0 && errno != EINTR)
                error_ = errno;
            at += std::max<ssize_t>(done, 0);
        }
        setp(memory_.data(), end());
        return error_ == 0;
    }

    int fd_;
    int error_ = 0;
    std::array<char, 1U << 16> memory_{};
};

}  // namespace

class StandardOutput::Redirect {
  public:
    Redirect() : former_(std::cout.rdbuf(&buffer_)) {}
    Redirect(const Redirect&) = delete;
    Redirect& operator=(const Redirect&) = delete;
    ~Redirect() {
        buffer_.pubsync();
        std::cout.rdbuf(former_);
    }

    void finish() {
        buffer_.pubsync();
        if (buffer_.error())
            throw Error(Exit::operational,
                        cat("standard output: write failed: ", std::strerror(buffer_.error())));
    }

  private:
    DescriptorBuffer buffer_{STDOUT_FILENO};
    std::streambuf* former_;
};

StandardOutput::StandardOutput() : redirect_(std::make_unique<Redirect>()) {}

StandardOutput::~StandardOutput() = default;

void StandardOutput::finish() {
    redirect_->finish();
}

void finish_stdout() {
    errno = 0;
    std::cout.flush();
    const bool bad = !std::cout.good();
    if (std::fflush(stdout) != 0 || bad)
        throw Error(Exit::operational, cat("standard output: write failed: ",
                                           errno ? std::strerror(errno) : "Input/output error"));
}

}  // namespace remap
