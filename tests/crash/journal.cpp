// SPDX-License-Identifier: GPL-2.0-or-later
#include "journal.hpp"

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace crash {

bool Allowed::permits(Value value) const {
    if (value == value_error)
        return error;
    return std::find(values.begin(), values.end(), value) != values.end();
}

std::string Allowed::str() const {
    std::string text;

    for (const Value value : values)
        text += (text.empty() ? "" : " or ") + std::to_string(value);
    if (error)
        text += text.empty() ? "an error" : " or an error";
    return text;
}

Journal::Journal(std::istream& text) {
    for (std::string line; std::getline(text, line);) {
        if (!line.empty())
            take_line(line);
    }
    if (main_size_ == 0 || spare_size_ == 0 || kinds_.empty())
        throw std::runtime_error("the journal is incomplete");
}

void Journal::take_line(const std::string& line) {
    std::istringstream words(line);
    std::string what;
    std::string durability;
    std::string outcome;
    Change change;

    change.step = last_step();
    words >> what;
    if (what == "size") {
        words >> main_size_ >> spare_size_;
    } else if (what == "step") {
        Step step = 0;
        words >> step >> what;
        if (step != last_step() + 1)
            throw std::runtime_error("journal: steps out of order: " + line);
        kinds_.push_back(what);
    } else if (what == "write" && change.step > 0) {
        words >> change.value >> durability >> outcome;
        change.acknowledged = outcome == "ok";
        change.durable = durability == "fua";
        writers_.emplace(change.value, change.step);
        take_ranges(words, change);
    } else if (what == "lost" && change.step > 0) {
        words >> outcome;
        change.value = value_error;
        change.acknowledged = outcome == "ok";
        change.durable = true;
        take_ranges(words, change);
    } else if (what == "flush" && change.step > 0) {
        words >> outcome;
        if (outcome == "ok")
            flushes_.push_back(change.step);
    } else {
        throw std::runtime_error("journal: " + line);
    }
    if (words.fail() && !words.eof())
        throw std::runtime_error("journal: " + line);
}

void Journal::take_ranges(std::istream& words, const Change& change) {
    std::uint64_t start = 0;
    std::uint64_t count = 0;
    char plus = 0;

    while (words >> start >> plus >> count) {
        if (plus != '+' || start >= main_size_ || count > main_size_ - start)
            throw std::runtime_error("journal: a range is outside the main");
        for (std::uint64_t sector = start; sector < start + count; sector++)
            changes_[sector].push_back(change);
    }
}

Step Journal::writer_of(Value seed) const {
    const auto found = writers_.find(seed);

    return found == writers_.end() ? 0 : found->second;
}

std::vector<std::uint64_t> Journal::sectors() const {
    std::vector<std::uint64_t> all;

    for (const auto& [sector, changes] : changes_)
        all.push_back(sector);
    return all;
}

bool Journal::durable_by(const Change& change, Step done) const {
    if (!change.acknowledged || change.step > done)
        return false;
    if (change.durable)
        return true;
    // A flush in the same step comes after its writes.
    const auto next = std::lower_bound(flushes_.begin(), flushes_.end(), change.step);
    return next != flushes_.end() && *next <= done;
}

Allowed Journal::allowed(std::uint64_t sector, Step done, Step begun) const {
    Allowed allowed;
    const auto found = changes_.find(sector);

    allowed.values = {initial};
    if (found == changes_.end())
        return allowed;
    for (const Change& change : found->second) {
        if (change.step > begun)
            break;
        if (durable_by(change, done)) {
            allowed.values.clear();
            allowed.error = false;
        } else {
            allowed.error = true;
        }
        if (change.value == value_error)
            allowed.error = true;
        else
            allowed.values.push_back(change.value);
    }
    return allowed;
}

}  // namespace crash
