// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/input.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libremap/text.hpp"

namespace remap {

Error input_error(const std::string& name, std::uint64_t line, std::uint64_t byte,
                  const std::string& what) {
    return {Exit::unrecognised, cat(name, ": line ", line, ", byte ", byte, ": ", what)};
}

std::string excerpt(const std::string& text, std::size_t longest) {
    return text.size() <= longest ? text : text.substr(0, longest) + "...";
}

std::optional<std::uint64_t> parse_generation(std::string_view text) {
    const std::size_t dot = text.find('.');

    if (dot == std::string_view::npos)
        return std::nullopt;
    const auto epoch = parse_number<std::uint32_t>(text.substr(0, dot));
    const auto number = parse_number<std::uint32_t>(text.substr(dot + 1));
    if (!epoch || !number)
        return std::nullopt;
    return static_cast<std::uint64_t>(*epoch) << 32 | *number;
}

// --- PlaceBuffer ------------------------------------------------------------------------------

std::uint64_t PlaceBuffer::line() const {
    if (counted_to_ == nullptr || counted_to_ > gptr()) {
        counted_to_ = eback();
        counted_ = 0;
    }
    counted_ +=
        static_cast<std::uint64_t>(std::count(counted_to_, static_cast<const char*>(gptr()), '\n'));
    counted_to_ = gptr();
    return lines_ + counted_ + 1;
}

Error PlaceBuffer::error(const std::string& what) const {
    return input_error(name_, line(), byte() + 1, what);
}

PlaceBuffer::int_type PlaceBuffer::underflow() {
    if (gptr() < egptr())
        return traits_type::to_int_type(*gptr());
    lines_ += static_cast<std::uint64_t>(std::count(eback(), egptr(), '\n'));
    passed_ += static_cast<std::uint64_t>(egptr() - eback());
    setg(memory_.data(), memory_.data(), memory_.data());
    counted_to_ = nullptr;
    if (passed_ - marked_ > most)
        throw error(cat("expected something within ", most, " bytes, found nothing"));
    const std::streamsize got =
        from_.sgetn(memory_.data(), static_cast<std::streamsize>(memory_.size()));
    if (got <= 0)
        return traits_type::eof();
    setg(memory_.data(), memory_.data(), memory_.data() + got);
    return traits_type::to_int_type(*gptr());
}

bool PlaceBuffer::next_line(std::string& line) {
    constexpr std::size_t longest = 4096;

    line.clear();
    mark();
    for (bool any = false;; any = true) {
        if (traits_type::eq_int_type(underflow(), traits_type::eof()))
            return any;
        const char* end = std::find(gptr(), egptr(), '\n');
        if (line.size() + static_cast<std::size_t>(end - gptr()) > longest)
            throw error(cat("expected a line of at most ", longest, " bytes"));
        line.append(gptr(), static_cast<std::size_t>(end - gptr()));
        const bool whole = end != egptr();
        gbump(static_cast<int>(end - gptr()) + (whole ? 1 : 0));
        if (whole)
            return true;
    }
}

// --- InputFile --------------------------------------------------------------------------------

InputFile::InputFile(const std::string& path)
    : name_(path == "-" ? "standard input" : path),
      fd_(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY)) {
    struct stat status {};

    if (fd_ < 0)
        throw Error(Exit::operational, cat(name_, ": cannot open: ", std::strerror(errno)));
    if (fstat(fd_, &status) == 0 && S_ISDIR(status.st_mode)) {
        if (fd_ != STDIN_FILENO)
            close(fd_);
        throw Error(Exit::operational, cat(name_, ": expected a file, found a directory"));
    }
}

InputFile::~InputFile() {
    if (fd_ != STDIN_FILENO)
        close(fd_);
}

InputFile::int_type InputFile::underflow() {
    ssize_t got = 0;

    if (gptr() < egptr())
        return traits_type::to_int_type(*gptr());
    do {
        got = read(fd_, memory_.data(), memory_.size());
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        throw Error(Exit::operational, cat(name_, ": cannot read: ", std::strerror(errno)));
    if (got == 0)
        return traits_type::eof();
    setg(memory_.data(), memory_.data(), memory_.data() + got);
    return traits_type::to_int_type(*gptr());
}

}  // namespace remap
