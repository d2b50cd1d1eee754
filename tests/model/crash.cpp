// SPDX-License-Identifier: GPL-2.0-or-later
#include "crash.hpp"

#include <algorithm>
#include <iostream>

#include "workload.hpp"

namespace model {

// ---- What a power cut may leave ----

Replay::Replay(Scene& scene, const Log& log, Oracle oracle, unsigned int failed_copies)
    : scene_(scene), log_(log), oracle_(std::move(oracle)), failed_copies_(failed_copies) {}

void Replay::make_durable(const Open& open) {
    const Write& write = log_.writes[open.id];
    const std::uint32_t sectors = write.sectors();

    for (std::uint32_t i = 0; i < sectors; i++) {
        auto& since = durable_since_[write.disk][write.sector + i];
        const bool spoilt = open.extent.spoilt(i, sectors);
        if ((!open.extent.has(i, sectors) && !spoilt) || open.end < since)
            continue;
        since = open.end;
        scene_.images[write.disk]->write(write.sector + i,
                                         spoilt ? garbage() : write.data.data() + i * sector_size);
    }
}

void Replay::finish(const Event& event) {
    const auto it = std::find_if(open_.begin(), open_.end(),
                                 [&](const Open& o) { return o.id == event.id && o.end == 0; });
    Open done = *it;
    const Write& write = log_.writes[done.id];

    open_.erase(it);
    done.end = clock_;
    done.extent = event.extent;
    if (!event.ok && event.disk == spare_disk) {
        if (const auto copy = scene_.layout.table_copy(write.sector))
            failed_copies_ |= 1U << *copy;
    }
    if (write.durable) {
        make_durable(done);
        return;
    }
    const auto first_in_flight =
        std::find_if(open_.begin(), open_.end(), [](const Open& o) { return o.end == 0; });
    open_.insert(first_in_flight, done);
}

void Replay::flushed(const Event& event) {
    const std::uint64_t begin = flush_begin_[event.id];

    std::erase_if(open_, [&](const Open& open) {
        if (log_.writes[open.id].disk != event.disk || open.end == 0 || open.end > begin)
            return false;
        make_durable(open);
        return true;
    });
}

/// Without FUA the flush belongs to the write in front of it.
void Replay::flush_failed() {
    for (const Open& open : open_) {
        const Write& write = log_.writes[open.id];
        const auto copy = scene_.layout.table_copy(write.sector);
        if (write.disk == spare_disk && open.end != 0 && copy)
            failed_copies_ |= 1U << *copy;
    }
}

void Replay::lost(const Event& event) {
    std::erase_if(open_, [&](const Open& open) {
        if (log_.writes[open.id].disk != event.disk || open.end == 0)
            return false;
        if (std::find(event.kept.begin(), event.kept.end(), open.id) != event.kept.end())
            make_durable(open);
        return true;
    });
}

bool Replay::changes_disk(const Event& event) {
    return event.type == Event::write || event.type == Event::write_done ||
           event.type == Event::user_write_done || event.type == Event::user_flush_done;
}

bool Replay::advance() {
    if (at_ == log_.events.size())
        return false;
    const Event& event = log_.events[at_++];

    clock_++;
    tried_.clear();
    changed_ = changes_disk(event);
    switch (event.type) {
        case Event::write:
            open_.push_back({event.id, {}, 0});
            break;
        case Event::write_done:
            finish(event);
            break;
        case Event::flush:
            flush_begin_[event.id] = clock_;
            break;
        case Event::flush_done:
            if (event.ok)
                flushed(event);
            else if (event.disk == spare_disk)
                flush_failed();
            break;
        case Event::cache_lost:
            lost(event);
            oracle_.cache_lost(scene_.traits[event.disk].fua);
            break;
        case Event::user_write:
            oracle_.write(log_.user_writes[event.id]);
            break;
        case Event::user_write_done:
            oracle_.write_done(log_.user_writes[event.id], event.ok);
            break;
        case Event::user_flush:
            oracle_.flush(event.id);
            break;
        case Event::user_flush_done:
            oracle_.flush_done(event.id, event.ok);
            break;
    }
    return true;
}

/// May the sector at which this write is torn be neither old nor new?
/// Not in user data. Where label places fail, one may be the only one that is up to date:
/// docs/design.md, limits.
static bool may_spoil(const Scene& scene, const Write& write) {
    const SetLayout& layout = scene.layout;

    if (write.disk == spare_disk)
        return layout.table_copy(write.sector) || layout.superblock_copy(write.sector);
    if (!layout.hidden(write.sector / layout.block_sectors()) || scene.faults == nullptr ||
        scene.faults->write_permille[main_disk] != 0)
        return false;
    return std::none_of(
        layout.label_sector.begin(), layout.label_sector.end(),
        [&](std::uint64_t s) { return scene.faults->bad_write[main_disk].count(s) != 0; });
}

/// As choose() counts them.
std::uint64_t Replay::variants() const {
    const std::uint64_t n = open_.size();

    return n == 0 ? 2 : 2 + 4 * n + 2 * n + 2;
}

/// None, all; each one missing, alone, torn beside all others, torn alone; then random ones, torn
/// or whole.
std::vector<Extent> Replay::choose(std::uint64_t variant) {
    const std::size_t n = open_.size();
    std::vector<Extent> choice(n);

    if (variant == 0 || variant == 1) {
        for (Extent& extent : choice)
            extent.kind = variant == 0 ? Extent::none : Extent::all;
        return choice;
    }
    variant -= 2;
    if (variant < 2 * n) {
        const bool alone = variant >= n;
        for (std::size_t i = 0; i < n; i++)
            choice[i].kind = (i == variant % n) == alone ? Extent::all : Extent::none;
        scene_.counters[alone ? "one volatile write alone" : "one volatile write missing"]++;
        return choice;
    }
    variant -= 2 * n;
    if (variant < 2 * n) {
        const bool alone = variant >= n;
        scene_.counters[alone ? "one volatile write torn alone"
                              : "one volatile write torn beside others"]++;
        const Write& write = log_.writes[open_[variant % n].id];
        for (Extent& extent : choice)
            extent.kind = alone ? Extent::none : Extent::all;
        choice[variant % n] = Extent::torn(scene_.random, write.sectors());
        choice[variant % n].spoils = may_spoil(scene_, write);
        return choice;
    }
    for (std::size_t i = 0; i < n; i++) {
        const std::uint32_t sectors = log_.writes[open_[i].id].sectors();
        switch (scene_.random.below(3)) {
            case 0:
                choice[i].kind = Extent::none;
                break;
            case 1:
                choice[i].kind = Extent::all;
                break;
            default:
                choice[i] = Extent::torn(scene_.random, sectors);
                choice[i].spoils =
                    may_spoil(scene_, log_.writes[open_[i].id]) && scene_.random.percent(50);
                break;
        }
    }
    return choice;
}

bool Replay::apply(std::uint64_t variant) {
    const std::vector<Extent> choice = choose(variant);
    const unsigned int all = (1U << scene_.layout.options.nr_copies) - 1;
    std::uint64_t hash = 0;
    bool torn = false;

    may_be_refused_ = false;
    for (std::size_t i = 0; i < open_.size(); i++) {
        const Open& open = open_[i];
        const Write& write = log_.writes[open.id];
        const std::uint32_t sectors = write.sectors();
        bool some = false;
        bool missing = false;

        for (std::uint32_t s = 0; s < sectors; s++) {
            const bool reached = open.extent.has(s, sectors);
            const bool spoilt = reached && choice[i].spoilt(s, sectors);
            const bool there = reached && choice[i].has(s, sectors);
            some = some || there || spoilt;
            missing = missing || !there;
            if (!there && !spoilt)
                continue;
            hash = Random::mix(hash ^ (std::uint64_t{open.id} << 16 | s << 1 | (spoilt ? 1 : 0)));
            const auto since = durable_since_[write.disk].find(write.sector + s);
            if (open.end == 0 || since == durable_since_[write.disk].end() ||
                since->second < open.end)
                scene_.images[write.disk]->write(
                    write.sector + s, spoilt ? garbage() : write.data.data() + s * sector_size);
        }
        if (!some || !missing)
            continue;
        torn = true;
        const auto copy =
            write.disk == spare_disk ? scene_.layout.table_copy(write.sector) : std::nullopt;
        if (copy && (all & ~failed_copies_ & ~(1U << *copy)) == 0)
            may_be_refused_ = true;
        if (copy)
            scene_.counters["table block torn"]++;
        else if (write.disk == spare_disk && scene_.layout.superblock_copy(write.sector))
            scene_.counters["superblock torn"]++;
    }
    if (!tried_.insert(hash).second)
        return false;
    if (torn)
        scene_.counters["states with a torn write"]++;
    return true;
}

// ---- What the kernel's code makes of it ----

namespace {

std::string describe_place(const SetLayout& layout, const Write& write) {
    const std::string where =
        " sector " + std::to_string(write.sector) + "+" + std::to_string(write.sectors());
    if (write.disk == main_disk) {
        const auto& labels = layout.label_sector;
        const bool label = std::find(labels.begin(), labels.end(), write.sector) != labels.end();
        return (label ? "label,"
                      : "main, block " + std::to_string(write.sector / layout.block_sectors()) +
                            ",") +
               where;
    }
    if (const auto copy = layout.table_copy(write.sector))
        return "table copy " + std::to_string(*copy) + "," + where;
    if (const auto copy = layout.superblock_copy(write.sector))
        return "superblock " + std::to_string(*copy) + "," + where;
    return "slot " + std::to_string((write.sector - layout.data_start) / layout.block_sectors()) +
           "," + where;
}

std::string describe(const SetLayout& layout, const Log& log, const Event& event) {
    static constexpr std::array names{"write",           "write done", "flush",
                                      "flush done",      "cache lost", "user write",
                                      "user write done", "user flush", "user flush done"};
    std::string text = names.at(event.type);

    text += " " + std::to_string(event.id) + (event.ok ? "" : " FAILED");
    switch (event.type) {
        case Event::write:
        case Event::write_done: {
            const Write& write = log.writes[event.id];
            text += " " + describe_place(layout, write) + (write.durable ? " (durable)" : "");
            if (event.type == Event::write_done && event.extent.kind != Extent::all)
                text += ", reached: " + std::to_string(event.extent.kind);
            break;
        }
        case Event::user_write:
        case Event::user_write_done: {
            const UserWrite& write = log.user_writes[event.id];
            text += " version " + std::to_string(write.version) + " block " +
                    std::to_string(write.block) + "+" + std::to_string(write.count) +
                    (write.fua ? " FUA" : "") + (write.preflush ? " PREFLUSH" : "");
            break;
        }
        case Event::flush:
        case Event::flush_done:
        case Event::cache_lost:
            text += event.disk == main_disk ? " of main" : " of spare";
            break;
        case Event::user_flush:
        case Event::user_flush_done:
            break;
    }
    return text;
}

/// One block after the other where a whole run cannot be read.
class Blocks {
  public:
    Blocks(World& world, const SetLayout& layout)
        : layout_(layout),
          block_bytes_(layout.block_sectors() * sector_size),
          pages_((layout.window.blocks.size() * block_bytes_ + 8191) / 4096 * 4096) {
        const auto& blocks = layout.window.blocks;
        base_ = pages_.data() + (4096 - reinterpret_cast<std::uintptr_t>(pages_.data()) % 4096);
        seen_.resize(blocks.size());
        for (std::size_t i = 0; i < blocks.size();) {
            std::size_t end = i + 1;
            while (end < blocks.size() && blocks[end] == blocks[end - 1] + 1 && end - i < 32)
                end++;
            read(world, i, end);
            i = end;
        }
    }
    const Seen& seen(std::size_t i) const { return seen_[i]; }

  private:
    void read(World& world, std::size_t i, std::size_t end) {
        const std::uint64_t block = layout_.window.blocks[i];
        // bios want whole pages
        std::vector<std::uint8_t> buffer((end - i) * block_bytes_ + 8192);
        std::uint8_t* data =
            buffer.data() + (4096 - reinterpret_cast<std::uintptr_t>(buffer.data()) % 4096);

        const bool ok = world.read_now(block, static_cast<std::uint32_t>(end - i), data);
        if (!ok && end - i > 1) {
            const std::size_t middle = i + (end - i) / 2;
            read(world, i, middle);
            read(world, middle, end);
            return;
        }
        std::copy(data, data + (end - i) * block_bytes_, base_ + i * block_bytes_);
        for (; i < end; i++)
            seen_[i] = {!ok, base_ + i * block_bytes_};
    }

    const SetLayout& layout_;
    std::size_t block_bytes_;
    std::vector<std::uint8_t> pages_;
    std::uint8_t* base_;
    std::vector<Seen> seen_;
};

/// A state is good as far as it can be read: now write to it, and cut the power again.
void check_deeper(Scene& scene, World& world, Oracle oracle, unsigned int failed_copies,
                  const CrashPlan& plan, const std::array<std::size_t, 2>& marks) {
    Log log;
    Faults faults;
    const Oracle before = oracle;

    if (scene.faults != nullptr) {
        faults.bad_write = scene.faults->bad_write;
        faults.write_permille = scene.faults->write_permille;
        world.faults = &faults;
    }
    world.failed_copies = failed_copies;
    world.ordered = false;
    world.log = &log;
    world.oracle = &oracle;
    world.next_version = 1U << 24 | static_cast<std::uint32_t>(scene.random.below(1U << 20)) << 4;
    world.forbid_writes = {};
    run_short_workload(scene, world, oracle);
    world.close();

    for (const DiskId id : {main_disk, spare_disk})
        scene.images[id]->undo_to(marks[id]);
    scene.counters["recoveries cut again"]++;
    check_crash_states(scene, log, before, failed_copies, plan);
}

/// A copy of the table that is no newer than the others and cannot be read for a while.
void check_without_old_copy(Scene& scene, const Oracle& settled) {
    const std::optional<unsigned int> copy =
        old_table_copy(scene.layout, *scene.images[spare_disk]);
    if (!copy)
        return;
    const std::uint64_t start = scene.layout.table_start[*copy];
    World world(scene.layout, scene.traits, scene.images, scene.random, scene.counters);
    Faults faults;

    for (std::uint64_t s = start; s < start + scene.layout.table_sectors(); s++)
        faults.bad_read[spare_disk].insert(s);
    world.faults = &faults;
    world.features = scene.features;
    world.forbid_writes = {true, true};
    const std::string reason = world.open();
    if (!reason.empty())
        throw Violation("3", "without table copy " + std::to_string(*copy) +
                                 " the set does not load: " + reason);
    const Blocks blocks(world, scene.layout);
    for (std::size_t i = 0; i < scene.layout.window.blocks.size(); i++) {
        const std::uint64_t block = scene.layout.window.blocks[i];
        const std::string problem = settled.check_after_cut(block, blocks.seen(i));
        if (!problem.empty())
            throw Violation("2", "without table copy " + std::to_string(*copy) + " block " +
                                     std::to_string(block) + " " + problem);
    }
    world.close();
    scene.counters["loaded without an old table copy"]++;
}

}  // namespace

void check_state(Scene& scene, const Oracle& oracle, unsigned int failed_copies,
                 bool may_be_refused, const CrashPlan& deeper) {
    const std::array<std::size_t, 2> marks{scene.images[0]->mark(), scene.images[1]->mark()};
    World world(scene.layout, scene.traits, scene.images, scene.random, scene.counters);

    world.features = scene.features;
    world.forbid_writes = {true, true};
    const std::string reason = world.open();
    if (!reason.empty()) {
        if (!may_be_refused) {
            std::string text = reason;
            for (const std::string& message : world.messages)
                text += "\n    " + message;
            throw Violation("3", "the set does not load: " + text);
        }
        scene.counters["refused: the last live copy torn"]++;
        return;
    }

    Oracle settled = oracle;
    {
        const Blocks blocks(world, scene.layout);
        for (std::size_t i = 0; i < scene.layout.window.blocks.size(); i++) {
            const std::uint64_t block = scene.layout.window.blocks[i];
            const std::string problem =
                oracle.check_after_cut(block, blocks.seen(i), may_be_refused);
            if (!problem.empty())
                throw Violation(
                    blocks.seen(i).error ? "3" : "2",
                    "after the power cut block " + std::to_string(block) + " " + problem);
            settled.settle(block, blocks.seen(i));
        }
    }
    if (scene.random.percent(deeper.unreadable_percent)) {
        world.close();
        check_without_old_copy(scene, settled);
        return;
    }
    if (deeper.depth > 0 && scene.random.percent(deeper.deeper_percent)) {
        CrashPlan plan = deeper;
        plan.depth--;
        plan.every = false;
        plan.states = plan.deeper_states;
        check_deeper(scene, world, std::move(settled), failed_copies, plan, marks);
    } else {
        world.close();
    }
}

void print_log(const Scene& scene, const Log& log, std::size_t end) {
    if (!scene.verbose)
        return;
    std::cout << "---- log\n";
    for (std::size_t i = 0; i < end; i++)
        std::cout << i + 1 << " " << describe(scene.layout, log, log.events[i]) << "\n";
}

std::uint64_t check_crash_states(Scene& scene, const Log& log, const Oracle& oracle,
                                 unsigned int failed_copies, const CrashPlan& plan) {
    const std::array<std::size_t, 2> begin{scene.images[0]->mark(), scene.images[1]->mark()};
    Replay replay(scene, log, oracle, failed_copies);
    std::uint64_t checked = 0;
    const auto places = static_cast<std::uint64_t>(
        std::count_if(log.events.begin(), log.events.end(), Replay::changes_disk));
    std::uint64_t due = 0;

    while (replay.advance()) {
        if (!replay.last_changed_disk())
            continue;
        due += plan.states;
        std::uint64_t here = due / places;
        due %= places;
        if (places > plan.states) {
            // Not always the same places.
            here = scene.random.below(places) < plan.states ? 1 : 0;
        }
        if (plan.every)
            here = replay.variants();
        while (here-- > 0) {
            const std::array<std::size_t, 2> marks{scene.images[0]->mark(),
                                                   scene.images[1]->mark()};
            const std::uint64_t variant = plan.every ? here : scene.random.below(replay.variants());
            if (replay.apply(variant)) {
                try {
                    check_state(scene, replay.oracle(), replay.failed_copies(),
                                replay.may_be_refused(), plan);
                } catch (const Violation& v) {
                    print_log(scene, log, replay.position());
                    throw Violation(v.invariant(), "event " + std::to_string(replay.position()) +
                                                       " of " + std::to_string(log.events.size()) +
                                                       ", variant " + std::to_string(variant) +
                                                       ": " + v.what());
                }
                scene.counters["states"]++;
                checked++;
            }
            for (const DiskId id : {main_disk, spare_disk})
                scene.images[id]->undo_to(marks[id]);
        }
    }
    for (const DiskId id : {main_disk, spare_disk})
        scene.images[id]->undo_to(begin[id]);
    return checked;
}

}  // namespace model
