// SPDX-License-Identifier: GPL-2.0-or-later
//
// Lives told step by step: what one needs several rare events in a row for, random lives meet too
// seldom. Each says at what point which line of the target is needed.
#include <dm-remap-format.h>

#include <algorithm>
#include <iostream>
#include <set>

#include "stage.hpp"
#include "workload.hpp"

namespace model {
namespace {

constexpr std::uint64_t block = 2050;  ///< of the window, on the main
constexpr std::uint64_t other_block = 2070;
constexpr std::uint64_t good_block = 2100;
constexpr unsigned long hour = 3601UL * 250;
constexpr Outcome no_trace{MODEL_IOERR, {Extent::none, 0, 0}, false};

bool is_label(const Stage& stage, DiskId id, const model_io& io) {
    return id == main_disk && io.op == MODEL_WRITE &&
           stage.layout().hidden(io.sector / stage.layout().block_sectors());
}

bool is_superblock(const Stage& stage, DiskId id, const model_io& io) {
    return id == spare_disk && io.op == MODEL_WRITE && stage.layout().superblock_copy(io.sector);
}

bool is_table(const Stage& stage, DiskId id, const model_io& io) {
    return id == spare_disk && io.op == MODEL_WRITE && stage.layout().table_copy(io.sector);
}

bool is_slot(const Stage& stage, DiskId id, const model_io& io) {
    return id == spare_disk && io.op == MODEL_WRITE && !is_superblock(stage, id, io) &&
           !is_table(stage, id, io);
}

/// Which block of its copy a write to the table is for.
std::uint64_t table_index(const Stage& stage, const model_io& io) {
    const unsigned int copy = *stage.layout().table_copy(io.sector);

    return (io.sector - stage.layout().table_start[copy]) / REMAP_TABLE_BLOCK_SECTORS;
}

std::uint64_t sector_of(const Stage& stage, std::uint64_t b) {
    return b * stage.layout().block_sectors();
}

void fails(Stage& stage, std::uint64_t b) {
    stage.faults.bad_write[main_disk].insert(sector_of(stage, b));
}

void works(Stage& stage, std::uint64_t b) {
    stage.faults.bad_write[main_disk].erase(sector_of(stage, b));
}

/// The flushes behind the labels fail, but the labels are in the main's cache, and the next load
/// reads them there. The spare must not ask for their epoch before a flush went well.
void label_in_the_cache(Stage& stage) {
    stage.open();
    stage.faults.script = [](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return id == main_disk && io.op == MODEL_FLUSH ? std::optional(no_trace) : std::nullopt;
    };
    stage.expect(!stage.write(good_block), "the first write is acknowledged without a flush");
    stage.expect(stage.counted("label frozen") != 0, "the label is not frozen");
    stage.faults.script = nullptr;
    stage.reload();
    stage.expect(stage.write(good_block), "a write fails");
    stage.expect(stage.status(status_epoch) == 3, "the epoch was not raised twice");
    stage.close();
}

/// None of the labels can be read, nor at first be written. Such a main is taken if that is asked
/// for.
void labels_cannot_be_read(Stage& stage) {
    const auto sectors = stage.layout().label_sector;
    bool writes_fail = true;

    stage.open();
    fails(stage, block);
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (id != main_disk || !(io.op == MODEL_READ || (io.op == MODEL_WRITE && writes_fail)))
            return std::nullopt;
        if (std::find(sectors.begin(), sectors.end(), io.sector) == sectors.end())
            return std::nullopt;
        return no_trace;
    };
    stage.must(!stage.try_open().empty(), "3", "a main without labels is taken");

    stage.world().features = {"no_label"};
    stage.open();
    stage.expect(stage.status(status_epoch) == 2, "the epoch is raised by opening");
    stage.expect(stage.write(block) && stage.write(good_block) && stage.flush(), "a write fails");
    stage.expect(stage.counted("label frozen") != 0, "the label is not frozen");
    stage.reload();
    writes_fail = false;
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
    // They could be written, so now they tell.
    stage.faults.script = nullptr;
    stage.world().features.clear();
    stage.open();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
}

/// A power cut has left one label with the newest epoch. It must not be torn before there is
/// another one.
void one_newest_label(Stage& stage) {
    stage.open();
    stage.faults.script = [&stage](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (is_label(stage, id, io) && io.sector != stage.layout().label_sector.back())
            return no_trace;
        return std::nullopt;
    };
    stage.expect(stage.write(good_block), "the first write fails");
    stage.faults.script = nullptr;
    stage.reload();
    stage.expect(stage.write(good_block), "a write fails");
    stage.expect(stage.flush(), "a flush fails");
    stage.expect(stage.status(status_epoch) == 3, "the epoch was not raised twice");
    stage.close();
}

/// A block has left a slot whose entry could not be marked bad any more. Its newest entry must not
/// go before that: the older one would come to light.
void forget_one_of_two_entries(Stage& stage, bool loaded_anew) {
    std::uint64_t slot = 0;

    stage.open();
    fails(stage, other_block);
    fails(stage, block);
    // The last slot of the table's first block, then the first one of its second block.
    stage.expect(stage.write(other_block) && stage.write(block), "a write fails");
    stage.expect(stage.status(status_table_length) > 1, "the table was not extended");
    works(stage, other_block);
    stage.expect(stage.forget(other_block) == 0, "forget fails");

    // The block moves back to the first one, and the second one does not learn of it.
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (is_slot(stage, id, io) && (slot == 0 || slot == io.sector)) {
            slot = io.sector;
            return no_trace;
        }
        if (is_table(stage, id, io) && table_index(stage, io) != 0)
            return no_trace;
        return std::nullopt;
    };
    stage.expect(stage.write(block), "a write to a slot that fails is not rescued");
    stage.expect(stage.slots_of(block) == 2, "the old entry is gone");
    stage.faults.script = nullptr;
    works(stage, block);
    stage.expect(stage.flush(), "a flush fails");
    if (loaded_anew)
        stage.reload();
    stage.expect(stage.forget(block) == 0, "forget fails");
    stage.must(stage.slots_of(block) == 0, "1", "an entry is left after message forget");
    stage.reload();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
}

void forget_the_newest_entry(Stage& stage) {
    forget_one_of_two_entries(stage, false);
}

/// A load finds both of them.
void forget_one_of_a_pair(Stage& stage) {
    forget_one_of_two_entries(stage, true);
}

/// The table grows, again after a try without superblocks, and once more while a copy of it fails.
void table_extended(Stage& stage) {
    unsigned int superblocks = 0;

    stage.open();
    for (std::uint64_t b = block; b < block + 6; b++)
        fails(stage, b);
    stage.expect(stage.write(block, 2), "a write fails");
    stage.expect(stage.status(status_table_length) == 1, "the table was extended too soon");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return is_superblock(stage, id, io) && superblocks++ % 4 != 0 ? std::optional(no_trace)
                                                                      : std::nullopt;
    };
    stage.write(block + 2, 2);
    stage.expect(superblocks != 0, "the table is not extended");
    stage.must(stage.status(status_table_length) == 1, "3",
               "the table is longer than most of the superblocks say");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return is_table(stage, id, io) && *stage.layout().table_copy(io.sector) == 0 &&
                       table_index(stage, io) != 0
                   ? std::optional(no_trace)
                   : std::nullopt;
    };
    stage.expect(stage.write(block + 3, 3), "a write fails");
    stage.expect(stage.status(status_table_length) > 1, "the table was not extended");
    stage.expect(stage.flush(), "a flush fails");
    stage.reload();
    stage.expect(stage.write(block, 6) && stage.flush(), "a write fails");
    stage.close();
}

/// A copy of the table fails, and the next commits are not on it: it must not have a say any more.
void table_copy_dies(Stage& stage) {
    stage.open();
    fails(stage, block);
    stage.expect(stage.write(good_block) && stage.flush(), "a write fails");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return is_table(stage, id, io) && *stage.layout().table_copy(io.sector) == 0
                   ? std::optional(Outcome{MODEL_IOERR, {Extent::subset, 0, 3}, false})
                   : std::nullopt;
    };
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.expect(stage.counted("table copy dead") != 0, "no copy is dead");
    fails(stage, other_block);
    stage.expect(stage.write(other_block) && stage.flush(), "a write fails");
    stage.close();
}

/// Blocks that the main cannot read any more are lost by message remap, until they are written.
void lost_by_message(Stage& stage) {
    stage.open();
    for (const std::uint64_t b : {block, block + 1})
        stage.faults.bad_read[main_disk].insert(sector_of(stage, b));
    stage.expect(stage.write(block + 2) && stage.flush(), "a write fails");
    stage.expect(stage.remap(block, 3) == 0, "message remap fails");
    stage.expect(stage.slots_of(block) == 1 && stage.slots_of(block + 2) == 1, "not moved");
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.reload();
    stage.expect(stage.write(block + 1, 2) && stage.flush(), "a write fails");
    stage.close();
}

/// A commit long after the epoch was raised raises it again, with labels.
void epoch_raised_by_a_commit(Stage& stage) {
    stage.open();
    fails(stage, block);
    fails(stage, other_block);
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    jiffies = jiffies + hour;
    model_seconds += 3601;
    stage.expect(stage.write(other_block) && stage.flush(), "a write fails");
    stage.expect(stage.status(status_epoch) == 3, "the epoch was not raised twice");
    stage.close();
}

/// Slots fail: new ones, and one that has been in use.
void slots_fail(Stage& stage) {
    unsigned int writes = 0;

    stage.open();
    fails(stage, block);
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return is_slot(stage, id, io) && writes++ < 2 ? std::optional(no_trace) : std::nullopt;
    };
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.faults.script = nullptr;
    stage.reload();
    std::uint64_t slot = 0;
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (!is_slot(stage, id, io) || (slot != 0 && slot != io.sector))
            return std::nullopt;
        slot = io.sector;
        return Outcome{MODEL_IOERR, {Extent::subset, 0, 5}, false};
    };
    stage.expect(stage.write(block, 1, true), "a write fails");
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.expect(stage.slots_of(block) == 1, "more than one slot");
    stage.close();
}

/// Somebody else's flush fails and loses the cache, in which the slot was, before the commit.
void slot_lost_before_its_commit(Stage& stage) {
    bool slot_sent = false;
    bool asked = false;
    bool failed = false;

    stage.open();
    stage.expect(stage.write(good_block), "the first write fails");
    fails(stage, block);
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        slot_sent = slot_sent || is_slot(stage, id, io);
        if (id != spare_disk || io.op != MODEL_FLUSH || !asked || failed)
            return std::nullopt;
        failed = true;
        return Outcome{MODEL_IOERR, {Extent::none, 0, 0}, true};
    };
    stage.world().each_step = [&] {
        if (!slot_sent || asked)
            return;
        asked = true;
        stage.world().user_flush();
    };
    stage.write(block);
    stage.world().each_step = nullptr;
    stage.expect(asked && failed, "no flush has failed");
    stage.faults.script = nullptr;
    stage.flush();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.reload();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
}

/// All copies of the table fail, yet reach the medium: the outcome is open until the next commit.
void commit_in_doubt(Stage& stage) {
    stage.open();
    fails(stage, block);
    stage.expect(stage.write(good_block) && stage.flush(), "a write fails");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return is_table(stage, id, io)
                   ? std::optional(Outcome{MODEL_IOERR, {Extent::all, 0, 0}, false})
                   : std::nullopt;
    };
    stage.must(!stage.write(block), "1", "a write is acknowledged without its entry");
    stage.expect(stage.status(status_doubt) == 1, "nothing is in doubt");
    works(stage, block);
    stage.must(!stage.write(block), "1", "a write to a block in doubt is acknowledged");
    stage.faults.script = nullptr;
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.expect(stage.status(status_doubt) == 0, "the block is still in doubt");
    stage.reload();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
}

/// One commit after the other is in doubt, and each time the slot fails: what is left behind must
/// be gone when the last one is durable.
void slots_left_in_doubt(Stage& stage) {
    std::set<std::uint64_t> used;
    bool table_fails = true;

    stage.open();
    fails(stage, block);
    stage.expect(stage.write(good_block) && stage.flush(), "a write fails");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (is_table(stage, id, io) && table_fails)
            return Outcome{MODEL_IOERR, {Extent::all, 0, 0}, false};
        if (is_slot(stage, id, io) && !used.insert(io.sector).second)
            return no_trace;
        return std::nullopt;
    };
    for (unsigned int i = 0; i < 3; i++)
        stage.must(!stage.write(block), "1", "a write is acknowledged without its entry");
    table_fails = false;
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.expect(used.size() >= 4, "the slots did not fail");
    stage.must(stage.slots_of(block) == 1, "4", "old entries are left behind");
    stage.faults.script = nullptr;
    stage.reload();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
}

/// Superblocks fail at the first write: nothing may be written before the epoch is up.
void activation_fails(Stage& stage) {
    stage.open();
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return is_superblock(stage, id, io) && stage.layout().superblock_copy(io.sector) != 1
                   ? std::optional(no_trace)
                   : std::nullopt;
    };
    stage.must(!stage.write(good_block), "8", "a write passes without an epoch");
    stage.faults.script = nullptr;
    fails(stage, block);
    stage.expect(stage.write(good_block) && stage.write(block) && stage.flush(), "a write fails");
    stage.close();
}

/// Two activations that were interrupted tear the same superblock, and what is left of both is a
/// valid one of the first. It must not be as new as those of the second.
void superblock_torn_twice(Stage& stage) {
    const auto tear = [&stage](Extent extent, bool others) {
        stage.faults.script = [=, &stage](DiskId id, const model_io& io) -> std::optional<Outcome> {
            if (!is_superblock(stage, id, io))
                return std::nullopt;
            if (stage.layout().superblock_copy(io.sector) == 0U)
                return Outcome{MODEL_IOERR, extent, false};
            return others ? std::nullopt : std::optional(no_trace);
        };
    };

    stage.open();
    tear({Extent::prefix, 7, 0, true}, false);
    stage.expect(!stage.write(good_block), "a write passes without an epoch");
    stage.reload();
    model_seconds += 5;
    tear({Extent::suffix, 7, 0, false}, true);
    stage.expect(stage.write(good_block) && stage.flush(), "a write fails");
    stage.faults.script = nullptr;
    stage.reload();
    stage.expect(stage.write(good_block) && stage.flush(), "a write fails");
    stage.close();
}

/// The flush behind somebody's write with FUA fails and loses the cache, and another flush goes
/// well before the worker knows what has failed.
void flush_beside_a_write_with_fua(Stage& stage) {
    const std::uint64_t losses = stage.counted("cache lost");
    bool failed = false;
    bool asked = false;

    stage.open();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    for (std::uint64_t b = good_block; b < good_block + 8; b++)
        stage.expect(stage.write(b), "a write fails");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (id != main_disk || io.op != MODEL_FLUSH || failed)
            return std::nullopt;
        failed = true;
        return Outcome{MODEL_IOERR, {Extent::none, 0, 0}, true};
    };
    stage.world().each_step = [&] {
        if (asked || stage.counted("cache lost") == losses)
            return;
        asked = true;
        stage.world().user_flush();
    };
    stage.must(!stage.write(other_block, 1, true), "2", "the loss of the cache is not reported");
    stage.world().each_step = nullptr;
    stage.expect(asked, "no flush was sent meanwhile");
    stage.flush();
    stage.expect(stage.write(good_block) && stage.flush(), "a write fails");
    stage.close();
}

/// Message forget on a main that says it has written what it has not.
void forget_on_a_main_that_lies(Stage& stage) {
    Outcome outcome = no_trace;

    stage.open();
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (id == main_disk && io.op == MODEL_WRITE && io.sector == sector_of(stage, block))
            return outcome;
        return std::nullopt;
    };
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    outcome.status = MODEL_OK;
    stage.must(stage.forget(block) != 0, "1", "message forget does not see what the main keeps");
    stage.faults.script = nullptr;
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.close();
}

/// A slot that is forgotten while somebody reads it must not get another block's data before.
void slot_forgotten_while_it_is_read(Stage& stage) {
    constexpr unsigned int long_time = 500;
    const model_io* slow = nullptr;
    unsigned int steps = 0;
    bool home = false;
    bool asked = false;

    stage.open();
    fails(stage, block);
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    works(stage, block);
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        home = home || (id == main_disk && io.op == MODEL_WRITE);
        if (id == spare_disk && io.op == MODEL_READ && asked && slow == nullptr)
            slow = &io;
        return std::nullopt;
    };
    stage.world().late = [&](const model_io& io) { return &io == slow && steps < long_time; };
    stage.world().each_step = [&] {
        steps++;
        if (!home || asked)
            return;
        asked = true;
        stage.world().user_read(block, 1);
    };
    stage.expect(stage.forget(block) == 0, "forget fails");
    stage.expect(slow != nullptr, "the slot was not read");
    stage.faults.script = nullptr;
    fails(stage, other_block);
    stage.world().user_write(other_block, 1, false, false);
    while (steps < 2 * long_time)
        stage.world().step();
    stage.world().each_step = nullptr;
    stage.world().late = nullptr;
    stage.world().drain();
    stage.expect(stage.slots_of(other_block) == 1, "the other block has no slot");
    stage.close();
}

/// An activation is cut short when the spare has the new epoch and the labels have not. Whatever
/// was copied then must not pass for the spare later.
void spare_copied_in_an_activation(Stage& stage) {
    unsigned int superblocks = 0;

    stage.open();
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (is_label(stage, id, io) ||
            (is_superblock(stage, id, io) && superblocks++ >= REMAP_SB_COPIES))
            return no_trace;
        return std::nullopt;
    };
    stage.must(!stage.write(good_block), "8", "a write passes without an epoch");
    stage.faults.script = nullptr;
    stage.close();
    stage.keep_spare();
    stage.open();
    stage.expect(stage.write(good_block) && stage.flush(), "a write fails");
    stage.close();
    stage.must_refuse_kept_spare();
}

/// Linux 6.1 sends a journal's commit record although the flush in front of it has failed.
void record_behind_a_failed_flush(Stage& stage) {
    const std::uint64_t failed = stage.counted("writes failed");
    bool lost = false;

    stage.open();
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    for (std::uint64_t b = good_block; b < good_block + 8; b++)
        stage.expect(stage.write(b), "a write fails");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (id != main_disk || io.op != MODEL_FLUSH || lost)
            return std::nullopt;
        lost = true;
        return Outcome{MODEL_IOERR, {Extent::none, 0, 0}, true};
    };
    model_drops_flush_errors = true;
    stage.world().user_write(other_block, 1, true, true);
    stage.world().drain();
    model_drops_flush_errors = false;
    stage.expect(lost, "no flush has failed");
    stage.must(stage.counted("writes failed") > failed, "2", "the record is acknowledged");
    stage.expect(stage.write(good_block, 8) && stage.flush(), "a write fails");
    stage.close();
}

/// The superblocks that know of the table's new length cannot be read. The older ones must not be
/// taken for the truth.
void old_superblocks(Stage& stage) {
    const auto& places = stage.layout().sb_sector;

    stage.open();
    for (std::uint64_t b = block; b < block + 3; b++)
        fails(stage, b);
    stage.expect(stage.write(block) && stage.flush(), "a write fails");
    stage.faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        return is_superblock(stage, id, io) && *stage.layout().superblock_copy(io.sector) > 2
                   ? std::optional(no_trace)
                   : std::nullopt;
    };
    stage.expect(stage.write(block + 1, 2) && stage.flush(), "a write fails");
    stage.expect(stage.status(status_table_length) > 1, "the table was not extended");
    stage.faults.script = nullptr;
    stage.close();
    stage.faults.bad_read[spare_disk].insert(places.begin(), places.begin() + 3);
    stage.must(!stage.try_open().empty(), "2",
               "a set is loaded by superblocks older than its table");
    stage.faults.bad_read[spare_disk].clear();
    stage.open();
    stage.expect(stage.write(block, 3) && stage.flush(), "a write fails");
    stage.close();
}

// ---- All of them ----

SetOptions plain(bool adopted) {
    SetOptions options;

    options.adopted = adopted;
    options.mapped = 0;
    options.lost = 0;
    return options;
}

/// The first block of the table has `free` free slots left.
SetOptions nearly_full_set(bool adopted, std::uint64_t free) {
    SetOptions options = plain(adopted);

    options.nr_slots = 700;
    options.bad_slots = nearly_full(options, free);
    return options;
}

struct Script {
    const char* name;
    void (*live)(Stage& stage);
    SetOptions set;
    bool without_fua = false;  ///< only on disks that have none
};

const std::vector<Script>& scripts() {
    static const std::vector<Script> all{
        {"label in the cache", label_in_the_cache, plain(true), true},
        {"one newest label", one_newest_label, plain(true)},
        {"labels cannot be read", labels_cannot_be_read, plain(true)},
        {"forget the newest entry", forget_the_newest_entry, nearly_full_set(true, 1)},
        {"forget the newest entry, bare", forget_the_newest_entry, nearly_full_set(false, 1)},
        {"forget one of a pair", forget_one_of_a_pair, nearly_full_set(true, 1)},
        {"forget on a main that lies", forget_on_a_main_that_lies, plain(false)},
        {"slot forgotten while it is read", slot_forgotten_while_it_is_read, plain(false)},
        {"table extended", table_extended, nearly_full_set(true, 3)},
        {"table extended, bare", table_extended, nearly_full_set(false, 3)},
        {"table copy dies", table_copy_dies, plain(false)},
        {"lost by message", lost_by_message, plain(false)},
        {"epoch raised by a commit", epoch_raised_by_a_commit, plain(true)},
        {"slots fail", slots_fail, plain(false)},
        {"slot lost before its commit", slot_lost_before_its_commit, plain(false)},
        {"commit in doubt", commit_in_doubt, plain(false)},
        {"slots left in doubt", slots_left_in_doubt, plain(false)},
        {"record behind a failed flush", record_behind_a_failed_flush, plain(false)},
        {"old superblocks", old_superblocks, nearly_full_set(true, 1)},
        {"activation fails", activation_fails, plain(true)},
        {"spare copied in an activation", spare_copied_in_an_activation, plain(true)},
        {"superblock torn twice", superblock_torn_twice, plain(true)},
        {"superblock torn twice, bare", superblock_torn_twice, plain(false)},
        {"flush beside a write with FUA", flush_beside_a_write_with_fua, plain(false), true},
    };
    return all;
}

void run_script(const Script& script, bool fua, Counters& counters, bool verbose) {
    StageOptions options{script.set, {}, verbose};
    for (DiskTraits& traits : options.traits)
        traits.fua = fua;

    try {
        Stage stage(options, counters);
        script.live(stage);
        const std::uint64_t states = stage.check({0, 10, 1, 5, 6, true});
        if (verbose)
            std::cout << script.name << (fua ? "" : ", no FUA") << ": " << states << " states\n";
    } catch (const Violation& v) {
        throw Violation(v.invariant(), std::string(script.name) +
                                           (fua ? "" : ", disks without FUA") + ": " + v.what());
    }
}

}  // namespace

std::uint64_t run_scripts(Counters& counters, bool verbose) {
    std::uint64_t lives = 0;

    for (const Script& script : scripts()) {
        for (const bool fua : {true, false}) {
            if (fua && script.without_fua)
                continue;
            run_script(script, fua, counters, verbose);
            lives++;
        }
    }
    return lives;
}

}  // namespace model
