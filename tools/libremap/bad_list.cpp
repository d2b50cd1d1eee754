// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/bad_list.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>

#include "libremap/block_io.hpp"
#include "libremap/input.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// More runs than the largest table has slots are no use to anybody.
constexpr std::size_t most_runs = std::size_t{1} << 26;
constexpr std::uint64_t largest = std::numeric_limits<std::int64_t>::max();

/// The lines of a list that are neither empty nor comments, in words, and where they stand.
class Lines {
  public:
    Lines(std::streambuf& in, const std::string& name) : place_(in, name), name_(name) {}

    /// False at the end.
    bool next() {
        do {
            line_ = place_.line();
            byte_ = place_.byte() + 1;
            if (!place_.next_line(text_))
                return false;
            split();
        } while (words_.empty());
        return true;
    }

    const std::vector<std::string_view>& words() const { return words_; }

    [[noreturn]] void refuse(const std::string& what) const {
        throw input_error(name_, line_, byte_, what);
    }
    [[noreturn]] void unexpected(const char* expected) const {
        refuse(cat("expected ", expected, ", found \"", text_, "\""));
    }

    /// Word `i` as a number that a file offset can be.
    std::uint64_t number(std::size_t i, int base = 10) const {
        const auto value = parse_number<std::uint64_t>(words_[i], base);
        if (!value || *value > largest)
            refuse(cat("expected a number up to ", largest, ", found \"", words_[i], "\""));
        return *value;
    }

    /// Word `i` as C writes numbers: 0x1f, 017, 15.
    std::uint64_t c_number(std::size_t i) {
        const std::string_view word = words_[i];
        if (word.starts_with("0x") || word.starts_with("0X")) {
            words_[i].remove_prefix(2);
            return number(i, 16);
        }
        return number(i, word.size() > 1 && word.front() == '0' ? 8 : 10);
    }

  private:
    void split() {
        constexpr std::string_view space = " \t\r";
        std::string_view rest = text_;

        words_.clear();
        rest = rest.substr(0, rest.find('#'));
        for (;;) {
            const std::size_t start = rest.find_first_not_of(space);
            if (start == std::string_view::npos)
                return;
            rest.remove_prefix(start);
            const std::size_t end = rest.find_first_of(space);
            words_.push_back(rest.substr(0, end));
            if (end == std::string_view::npos)
                return;
            rest.remove_prefix(end);
        }
    }

    PlaceBuffer place_;
    const std::string& name_;
    std::string text_;
    std::vector<std::string_view> words_;
    std::uint64_t line_ = 1;
    std::uint64_t byte_ = 1;
};

/// Adds a run of bytes, rounded outwards to sectors.
void add(BadList& list, const Lines& lines, std::uint64_t start, std::uint64_t length) {
    const std::uint64_t from = start / sector_size;
    const std::uint64_t to = (start + length + sector_size - 1) / sector_size;

    if (!list.runs.empty()) {
        SectorRun& last = list.runs.back();
        if (from >= last.start && from <= last.start + last.count) {
            last.count = std::max(last.start + last.count, to) - last.start;
            return;
        }
    }
    if (list.runs.size() == most_runs)
        lines.refuse(cat("expected at most ", most_runs, " runs of bad sectors"));
    list.runs.push_back({from, to - from});
}

}  // namespace

BadList read_ddrescue_map(std::streambuf& in, const std::string& name) {
    constexpr std::string_view statuses = "?*/-+";
    Lines lines(in, name);
    BadList list;
    std::optional<std::uint64_t> next;

    // First comes where ddrescue stood when it stopped.
    if (!lines.next())
        lines.refuse("expected a ddrescue mapfile, found nothing");
    if (lines.words().size() < 2 || lines.words().size() > 3 || lines.words()[1].size() != 1 ||
        std::string_view("?*/-FG+").find(lines.words()[1]) == std::string_view::npos)
        lines.unexpected("a position and a status, the current ones of a ddrescue mapfile");
    lines.c_number(0);
    while (lines.next()) {
        if (lines.words().size() != 3 || lines.words()[2].size() != 1 ||
            statuses.find(lines.words()[2]) == std::string_view::npos)
            lines.unexpected("position, size and one of ? * / - +");
        const char status = lines.words()[2].front();
        const std::uint64_t start = lines.c_number(0);
        const std::uint64_t size = lines.c_number(1);
        if (next && start != *next)
            lines.refuse(cat("expected the position where the line before ends, ", *next,
                             ", found ", start));
        if (size == 0 || size > largest - start)
            lines.refuse(cat("expected a size from 1 to ", largest - start, ", found ", size));
        next = start + size;
        if (status == '-')
            add(list, lines, start, size);
        else if (status != '+')
            list.undecided_bytes += size;
    }
    return list;
}

BadList read_badblocks(std::streambuf& in, const std::string& name, std::uint64_t block_size) {
    Lines lines(in, name);
    BadList list;

    while (lines.next()) {
        if (lines.words().size() != 1)
            lines.unexpected("one block number");
        const std::uint64_t block = lines.number(0);
        if (block >= largest / block_size)
            lines.refuse(cat("expected a block below ", largest / block_size, ", found ", block));
        add(list, lines, block * block_size, block_size);
    }
    return list;
}

BadList read_md_bad_blocks(std::streambuf& in, const std::string& name) {
    constexpr std::uint64_t most = largest / sector_size;
    Lines lines(in, name);
    BadList list;

    while (lines.next()) {
        if (lines.words().size() != 2)
            lines.unexpected("a sector and a count");
        const std::uint64_t start = lines.number(0);
        const std::uint64_t count = lines.number(1);
        if (start >= most || count == 0 || count > most - start)
            lines.refuse(cat("expected sectors up to ", most, ", found ", count, " from ", start));
        add(list, lines, start * sector_size, count * sector_size);
    }
    return list;
}

}  // namespace remap
