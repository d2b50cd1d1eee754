// SPDX-License-Identifier: GPL-2.0-or-later
//
// Reading text that somebody else wrote: where one is in it, and numbers that are what they say.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <streambuf>
#include <string>
#include <string_view>
#include <system_error>

#include "libremap/error.hpp"

namespace remap {

/// An Error whose text begins with the name of the input, the line and the byte, both from 1.
Error input_error(const std::string& name, std::uint64_t line, std::uint64_t byte,
                  const std::string& what);

/// The start of something that may be very long, at most `longest` bytes, for a message.
std::string excerpt(const std::string& text, std::size_t longest = 80);

/// The whole of `text` as an unsigned number in `base`, no sign, no space; nothing if it is
/// anything else or too large.
template <typename T>
std::optional<T> parse_number(std::string_view text, int base = 10) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);

    if (error != std::errc{} || end != text.data() + text.size() || text.empty() ||
        text.front() == '-')
        return std::nullopt;
    return value;
}

/// "EPOCH.NUMBER", each of 32 bits.
std::optional<std::uint64_t> parse_generation(std::string_view text);

/// Passes another buffer on and knows the place. Refuses input that goes on and on without
/// anything in it: more than `most` bytes since the last mark() end in an Error.
class PlaceBuffer : public std::streambuf {
  public:
    static constexpr std::uint64_t most = 1U << 20;

    /// `from` must outlive this. `name` is for messages.
    PlaceBuffer(std::streambuf& from, std::string name) : from_(from), name_(std::move(name)) {}

    std::uint64_t line() const;
    std::uint64_t byte() const { return passed_ + static_cast<std::uint64_t>(gptr() - eback()); }
    /// An Error at the present place.
    Error error(const std::string& what) const;
    /// Something was found up to here.
    void mark() { marked_ = byte(); }

    /// The next line without its end; false at the end of the input. Lines are at most 4 KiB.
    bool next_line(std::string& line);

  protected:
    int_type underflow() override;

  private:
    std::streambuf& from_;
    std::string name_;
    std::array<char, 1U << 16> memory_{};
    std::uint64_t passed_ = 0;  ///< bytes before the buffer
    std::uint64_t lines_ = 0;   ///< ends of lines before the buffer
    /// Ends of lines in the buffer, as far as they were counted: asked for at every line.
    mutable std::uint64_t counted_ = 0;
    mutable const char* counted_to_ = nullptr;
    std::uint64_t marked_ = 0;
};

/// A file or, for "-", standard input, as a buffer whose errors are Errors.
class InputFile : public std::streambuf {
  public:
    explicit InputFile(const std::string& path);
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;
    ~InputFile() override;

    /// For messages.
    const std::string& name() const { return name_; }

  protected:
    int_type underflow() override;

  private:
    std::string name_;
    int fd_;
    std::array<char, 1U << 16> memory_{};
};

}  // namespace remap
