// SPDX-License-Identifier: GPL-2.0-or-later
#include "states.hpp"

#include <algorithm>
#include <functional>
#include <sstream>
#include <stdexcept>

#include "libremap/error.hpp"

namespace crash {
namespace {

constexpr std::size_t most_violations = 20;
/// Of more cached writes than this a sample is left out, or done alone.
constexpr std::size_t few_cached = 24;
constexpr std::uint8_t garbage = 0x5a;

template <typename T>
std::string joined(const std::vector<T>& numbers) {
    std::string text;

    for (const T& number : numbers)
        text += (text.empty() ? "" : ",") + std::to_string(number);
    return text;
}

}  // namespace

std::string State::str() const {
    std::string text = "point=" + std::to_string(point);

    if (!cached.empty())
        text += " cached=" + joined(cached);
    if (torn != no_entry) {
        text += " torn=" + std::to_string(torn) + ":" + torn_sectors;
    }
    return text;
}

State State::parse(const std::string& text) {
    std::istringstream words(text);
    State state;

    for (std::string word; words >> word;) {
        const std::size_t equals = word.find('=');
        const std::string name = word.substr(0, equals);
        std::istringstream value(equals == std::string::npos ? "" : word.substr(equals + 1));
        char separator = 0;

        if (name == "point") {
            value >> state.point;
        } else if (name == "cached") {
            for (std::size_t entry = 0; value >> entry; value >> separator)
                state.cached.push_back(entry);
        } else if (name == "torn") {
            value >> state.torn >> separator >> state.torn_sectors;
        } else {
            throw std::runtime_error("not a state: " + text);
        }
    }
    return state;
}

Replay::Replay(Image before, WriteLog log) : before_(std::move(before)), log_(std::move(log)) {
    for (const LogEntry& entry : log_) {
        if (entry.sector + entry.sectors() > before_.main_size + before_.spare_size)
            throw std::runtime_error("the log has a write beyond the image");
    }
    for (std::size_t i = 0; i <= log_.size(); i++) {
        if (i == 0 || i == log_.size() || !is_plain(i - 1))
            points_.push_back(i);
    }
    image_ = before_;
    next_time(0);
}

bool Replay::is_write(std::size_t entry) const {
    return !log_[entry].data.empty();
}

bool Replay::is_plain(std::size_t entry) const {
    return is_write(entry) && !log_[entry].is(LogEntry::fua);
}

std::size_t Replay::next_fua() const {
    std::size_t i = point_;

    while (i < end_ && is_plain(i))
        i++;
    return i < end_ && is_write(i) ? i : State::no_entry;
}

/// The time from `begin` to the next flush.
void Replay::next_time(std::size_t begin) {
    begin_ = begin;
    point_ = begin;
    cached_.clear();
    for (end_ = begin; end_ < log_.size() && !log_[end_].is(LogEntry::flush); end_++) {
        if (is_plain(end_))
            cached_.push_back(end_);
    }
}

void Replay::apply(std::size_t entry, const std::string* sectors) {
    const LogEntry& from = log_[entry];

    for (std::size_t i = 0; i < from.sectors(); i++) {
        const char how = !sectors ? '1' : i < sectors->size() ? (*sectors)[i] : '0';
        if (how == '0')
            continue;
        const auto to = image_.bytes.begin() +
                        static_cast<std::ptrdiff_t>((from.sector + i) * remap::sector_size);
        if (undo_)
            undo_->push_back({from.sector + i, {to, to + remap::sector_size}});
        if (how == 'x')
            std::fill_n(to, remap::sector_size, garbage);
        else
            std::copy_n(from.data.begin() + static_cast<std::ptrdiff_t>(i * remap::sector_size),
                        remap::sector_size, to);
    }
}

void Replay::go(std::size_t point) {
    if (point < point_) {
        image_ = before_;
        next_time(0);
    }
    while (point > end_) {
        // Plain writes first: see the head of this class.
        for (const std::size_t entry : cached_)
            apply(entry, nullptr);
        for (std::size_t i = begin_; i < end_; i++) {
            if (is_write(i) && !is_plain(i))
                apply(i, nullptr);
        }
        if (is_write(end_))
            apply(end_, nullptr);
        next_time(end_ + 1);
    }
    for (; point_ < point; point_++) {
        if (is_write(point_) && !is_plain(point_))
            apply(point_, nullptr);
    }
}

void Replay::with(const State& state, const std::function<void()>& look) {
    std::vector<Saved> saved;

    undo_ = &saved;
    for (const std::size_t entry : state.cached)
        apply(entry, nullptr);
    if (state.torn != State::no_entry && is_plain(state.torn))
        apply(state.torn, &state.torn_sectors);
    for (std::size_t i = begin_; i < point_; i++) {
        if (is_write(i) && !is_plain(i))
            apply(i, nullptr);
    }
    if (state.torn != State::no_entry && !is_plain(state.torn))
        apply(state.torn, &state.torn_sectors);
    undo_ = nullptr;
    look();
    for (auto it = saved.rbegin(); it != saved.rend(); ++it) {
        std::copy(
            it->bytes.begin(), it->bytes.end(),
            image_.bytes.begin() + static_cast<std::ptrdiff_t>(it->sector * remap::sector_size));
    }
}

Campaign::Campaign(Replay& replay, const Journal& journal, std::uint64_t seed)
    : replay_(replay), journal_(journal), random_(seed), sectors_(journal.sectors()) {
    replay_.go(0);
    layout_ = View(replay_.image()).superblock();
    find_steps();
}

/// Which step each entry belongs to, and what the steps did to the superblocks.
void Campaign::find_steps() {
    const WriteLog& log = replay_.log();
    remap::Superblock before = layout_;
    Step step = 1;

    for (std::size_t i = 0; i < log.size(); i++) {
        step_of_.push_back(std::min(step, journal_.last_step()));
        since_.push_back(first_step_of(log[i]));
        if (log[i].name == "s" + std::to_string(step))
            step++;
        if (log[i].data.empty() ||
            place_of(layout_, replay_.image(), log[i].sector) != Place::superblock)
            continue;
        const auto now =
            remap::decode_superblock(log[i].data, log[i].sector - journal_.main_size());
        if (!now.valid())
            throw std::runtime_error("entry " + std::to_string(i) +
                                     " is no superblock: " + now.problem.field);
        std::string& also = also_[step_of_.back()];
        if (now.value.epoch > before.epoch)
            also = "activation";
        else if (now.value.table_length > before.table_length)
            also = "extension";
        else if (now.value.live_copies != before.live_copies)
            also = "dead-copy";
        before = now.value;
    }
    step_of_.push_back(journal_.last_step());
    if (step != journal_.last_step() + 1)
        throw std::runtime_error("the log has the marks of " + std::to_string(step - 1) +
                                 " steps, the journal has " + std::to_string(journal_.last_step()));
}

/// The last of the steps whose pattern is in the data: before it nobody can have written that.
Step Campaign::first_step_of(const LogEntry& entry) const {
    Step first = 0;

    for (std::uint64_t i = 0; i < entry.sectors(); i++)
        first = std::max(
            first,
            journal_.writer_of(identify(remap::ConstBytes(entry.data)
                                            .subspan(i * remap::sector_size, remap::sector_size))));
    return first;
}

/// The plain writes that may have been done at the present point: those between the flushes
/// around it, without what later steps have brought into the world. A slot may be used again as
/// soon as the entry that it had is durably free, and nothing in the log separates the two.
std::vector<std::size_t> Campaign::cached() const {
    std::vector<std::size_t> all = replay_.cached();

    std::erase_if(all,
                  [this](std::size_t entry) { return since_[entry] > step_of_[replay_.point()]; });
    return all;
}

std::string Campaign::kind_of(const State& state, const char* shape) const {
    const Step step = step_of_[state.point];
    const auto also = also_.find(step);
    std::size_t entry = state.torn;
    std::string kind = journal_.kind(step);

    if (also != also_.end() && !also->second.empty())
        kind += "+" + also->second;
    kind += std::string(" ") + shape;
    if (entry == State::no_entry)
        entry = replay_.next_fua();
    if (entry == State::no_entry && !replay_.cached().empty())
        entry = replay_.cached().back();
    if (entry != State::no_entry)
        kind += std::string(" ") +
                place_name(place_of(layout_, replay_.image(), replay_.log()[entry].sector));
    return kind;
}

/// What the sectors may hold in such a state.
void Campaign::expect(const State& state) {
    Times times;
    const bool uses_cache = !state.cached.empty() || (state.torn != State::no_entry &&
                                                      !replay_.log()[state.torn].is(LogEntry::fua));

    // Steps that ended before the point have their mark before it. Of the next one everything may
    // be there, and in the cache may be what steps up to the next flush will have written.
    times.begun = step_of_[uses_cache ? replay_.end_of_time() : state.point];
    times.done = step_of_[state.point] - 1;
    const WriteLog& log = replay_.log();
    if (state.point == log.size())
        times.done = journal_.last_step();
    if (have_expected_ && times.done == expected_for_.done && times.begun == expected_for_.begun)
        return;
    expected_for_ = times;
    have_expected_ = true;
    expected_.clear();
    for (const std::uint64_t sector : sectors_)
        expected_.push_back({sector, journal_.allowed(sector, times.done, times.begun)});
}

std::string Campaign::look(const State& state, const View& view, std::uint64_t& errors) {
    expect(state);
    for (const Expected& expected : expected_) {
        const Value found = view.read(expected.sector);
        if (found == value_error)
            errors++;
        if (!expected.allowed.permits(found))
            return "sector " + std::to_string(expected.sector) + ": expected " +
                   expected.allowed.str() + ", found " +
                   (found == value_error     ? "an error"
                    : found == value_unknown ? "something unknown"
                                             : std::to_string(found)) +
                   ", in step " + std::to_string(step_of_[state.point]) + " (" +
                   journal_.kind(step_of_[state.point]) + ")";
    }
    return {};
}

std::string Campaign::check(const State& state) {
    std::string wrong;
    std::uint64_t errors = 0;

    replay_.go(state.point);
    replay_.with(state, [&] {
        try {
            wrong = look(state, View(replay_.image()), errors);
        } catch (const remap::Error& error) {
            wrong = std::string("does not open: ") + error.what();
        }
    });
    return wrong;
}

void Campaign::one(State state, const char* shape) {
    if (!seen_.insert(std::hash<std::string>()(state.str())).second)
        return;
    const std::string kind = kind_of(state, shape);
    std::string wrong;

    tally_->states++;
    tally_->kinds[kind]++;
    replay_.with(state, [&] {
        try {
            const View view(replay_.image());
            wrong = look(state, view, tally_->errors);
            if (wrong.empty() && *visit_)
                (*visit_)(state, kind, view);
        } catch (const remap::Error& error) {
            wrong = std::string("does not open: ") + error.what();
        }
    });
    if (wrong.empty())
        return;
    tally_->violation_count++;
    if (tally_->violations.size() < most_violations)
        tally_->violations.push_back({state.str(), wrong});
}

std::vector<std::size_t> Campaign::some_of(const std::vector<std::size_t>& all) {
    std::vector<std::size_t> some;
    const std::uint64_t of = 2 + random_() % 3;
    const bool many = (random_() & 1) != 0;

    for (const std::size_t entry : all) {
        if ((random_() % of == 0) != many)
            some.push_back(entry);
    }
    return some;
}

/// The write torn at each of its sectors, either part there, and a few in any other way. Metadata
/// has checksums, so there the sector at which it is torn may hold anything.
void Campaign::torn_states(std::size_t entry, const std::vector<std::size_t>& cached,
                           unsigned int random) {
    const LogEntry& write = replay_.log()[entry];
    const std::size_t sectors = write.sectors();
    const Place place = place_of(layout_, replay_.image(), write.sector);
    State state{replay_.point(), cached, entry, {}};

    for (std::size_t border = 0; border < sectors; border++) {
        const std::string begin(border, '1');
        state.torn_sectors = begin + 'x' + std::string(sectors - border - 1, '0');
        if (is_metadata(place))
            one(state, "torn");
        if (border == 0)
            continue;
        state.torn_sectors = begin + std::string(sectors - border, '0');
        one(state, "torn");
        state.torn_sectors = std::string(border, '0') + std::string(sectors - border, '1');
        one(state, "torn");
    }
    for (unsigned int n = 0; n < random && sectors > 1; n++) {
        for (char& sector : state.torn_sectors)
            sector = (random_() & 1) != 0 ? '1' : '0';
        one(state, "torn");
    }
}

/// All but one, and one alone, of the cached writes; of many a sample, but always the last ones.
void Campaign::single_states(const std::vector<std::size_t>& all) {
    for (std::size_t i = 0; i < all.size(); i++) {
        if (all.size() > few_cached && i + few_cached / 2 < all.size() &&
            random_() % all.size() >= few_cached / 2)
            continue;
        State without{replay_.point(), all, State::no_entry, {}};
        without.cached.erase(without.cached.begin() + static_cast<std::ptrdiff_t>(i));
        one(without, "missing");
        one({replay_.point(), {all[i]}, State::no_entry, {}}, "alone");
        torn_states(all[i], {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(i)}, 1);
    }
}

void Campaign::regular_states() {
    const std::vector<std::size_t> all = cached();
    const std::size_t next = replay_.next_fua();

    one({replay_.point(), {}, State::no_entry, {}}, "prefix");
    if (!all.empty())
        one({replay_.point(), all, State::no_entry, {}}, "prefix");
    single_states(all);
    if (next != State::no_entry) {
        torn_states(next, {}, 1);
        torn_states(next, all, 1);
    }
}

/// Some of the cached writes, and either the next write or one of the cached ones torn.
void Campaign::random_states(unsigned int count) {
    const std::vector<std::size_t> all = cached();
    const std::size_t next = replay_.next_fua();

    for (unsigned int n = 0; n < count; n++) {
        State state{replay_.point(), some_of(all), State::no_entry, {}};

        one(state, "random");
        if (!all.empty() && (next == State::no_entry || (random_() & 1) != 0))
            state.torn = all[random_() % all.size()];
        else
            state.torn = next;
        if (state.torn == State::no_entry)
            continue;
        std::erase(state.cached, state.torn);
        for (std::uint64_t i = replay_.log()[state.torn].sectors(); i > 0; i--)
            state.torn_sectors += (random_() & 1) != 0 ? '1' : '0';
        one(state, "random-torn");
    }
}

void Campaign::run(bool regular, unsigned int random, Tally& tally, const Visitor& visit) {
    tally_ = &tally;
    visit_ = &visit;
    for (const std::size_t point : replay_.points()) {
        replay_.go(point);
        if (regular)
            regular_states();
        random_states(random);
    }
}

std::vector<std::string> missing_kinds(const Tally& tally, const std::vector<std::string>& wanted) {
    std::vector<std::string> missing;

    for (const std::string& kind : wanted) {
        const bool found = std::any_of(
            tally.kinds.begin(), tally.kinds.end(),
            [&kind](const auto& counted) { return counted.first.find(kind) != std::string::npos; });
        if (!found)
            missing.push_back(kind);
    }
    return missing;
}

}  // namespace crash
