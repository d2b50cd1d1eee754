// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/status.hpp"

#include <charconv>
#include <iterator>
#include <sstream>
#include <utility>
#include <vector>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// Takes one word after the other and knows which one it is at.
class Words {
  public:
    explicit Words(const std::string& line) : line_(line) {
        std::istringstream in(line);
        words_.assign(std::istream_iterator<std::string>(in), std::istream_iterator<std::string>());
    }

    std::string next(const char* field) {
        if (at_ >= words_.size()) {
            fail(field, "nothing");
        }
        return words_[at_++];
    }

    std::uint64_t number(const char* field) { return parse(next(field), field); }

    /// "a/b"
    void pair(const char* field, std::uint64_t& first, std::uint64_t& second) {
        const std::string word = next(field);
        const auto slash = word.find('/');
        if (slash == std::string::npos) {
            fail(field, word);
        }
        first = parse(word.substr(0, slash), field);
        second = parse(word.substr(slash + 1), field);
    }

    /// A number that earlier kernels do not print.
    std::uint64_t number_if_any(const char* field) {
        return at_ < words_.size() ? number(field) : 0;
    }

    /// Takes the last word away; it is a name, not a number.
    std::string take_last(const char* field) {
        if (at_ >= words_.size()) {
            fail(field, "nothing");
        }
        std::string word = std::move(words_.back());
        words_.pop_back();
        if (word.find_first_not_of("0123456789/") == std::string::npos) {
            fail(field, word);
        }
        return word;
    }

    [[noreturn]] void fail(const char* field, const std::string& found) const {
        throw Error(Exit::unrecognised,
                    cat("status line: ", field, ": found ", found, " in \"", line_, "\""));
    }

  private:
    std::uint64_t parse(const std::string& word, const char* field) const {
        std::uint64_t value = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
        if (error != std::errc() || end != word.data() + word.size()) {
            fail(field, word);
        }
        return value;
    }

    const std::string& line_;
    std::vector<std::string> words_;
    std::size_t at_ = 0;
};

}  // namespace

KernelStatus parse_status(const std::string& line) {
    Words words(line);
    KernelStatus s;
    const std::string set = words.next("set");
    const auto uuid = Uuid::parse(set);
    if (!uuid) {
        words.fail("set", set);
    }
    s.set = *uuid;
    s.mode = words.take_last("mode");
    s.health = words.take_last("health");
    s.block_sectors = words.number("block size");
    words.pair("slots", s.slots_used, s.slots_total);
    s.mapped = words.number("mapped");
    s.lost = words.number("lost");
    s.bad_slots = words.number("bad slots");
    s.hidden = words.number("hidden");
    words.pair("copies", s.live_copies, s.copies);
    s.epoch = words.number("epoch");
    s.remaps = words.number("remaps");
    s.main_write_errors = words.number("main write errors");
    s.main_read_errors = words.number("main read errors");
    s.spare_errors = words.number("spare errors");
    s.failed_writes = words.number("failed writes");
    s.in_doubt = words.number("in doubt");
    s.table_length = words.number("table length");
    s.circuit = words.number_if_any("circuit");
    s.burst = words.number_if_any("burst");
    return s;
}

void emit_status(const KernelStatus& s, Emitter& out) {
    out.text("set", s.set.str());
    out.text("health", s.health);
    out.text("mode", s.mode);
    out.quantity("block_size", s.block_sectors * 512, "bytes");
    out.quantity("slots_used", s.slots_used, "blocks");
    out.quantity("slots_total", s.slots_total, "blocks");
    out.quantity("mapped", s.mapped, "blocks");
    out.quantity("hidden", s.hidden, "blocks");
    out.quantity("lost", s.lost, "blocks");
    out.quantity("bad_slots", s.bad_slots, "blocks");
    out.number("live_copies", s.live_copies);
    out.number("copies", s.copies);
    out.number("epoch", s.epoch);
    out.number("remaps_since_open", s.remaps);
    out.number("main_write_errors", s.main_write_errors);
    out.number("main_read_errors", s.main_read_errors);
    out.number("spare_errors", s.spare_errors);
    out.number("failed_writes", s.failed_writes);
    out.quantity("in_doubt", s.in_doubt, "blocks");
    out.number("table_blocks", s.table_length);
    out.number("circuit_writes", s.circuit);
    out.number("burst_writes", s.burst);
}

}  // namespace remap
