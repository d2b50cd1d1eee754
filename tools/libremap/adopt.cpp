// SPDX-License-Identifier: GPL-2.0-or-later
//
// The writes of adoption.
#include "libremap/adopt.hpp"

#include <algorithm>
#include <cerrno>

#include "libremap/error.hpp"
#include "libremap/metadata.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// The slots that hold the hidden blocks, found by writing and reading back.
class SlotWriter {
  public:
    SlotWriter(BlockIo& spare, const AdoptPlan& plan)
        : spare_(spare),
          superblock_(plan.superblock),
          time_(plan.entry_time),
          entries_(plan.skip_slots) {}

    /// Writes all blocks, then reads them back; those that fail get other slots.
    void write(const HiddenContent& content, Observer& observer) {
        std::vector<std::size_t> todo(content.blocks.size());
        for (std::size_t i = 0; i < todo.size(); ++i) {
            todo[i] = i;
        }
        while (!todo.empty()) {
            todo = write_once(content, todo, observer);
        }
    }

    const std::vector<Entry>& entries() const { return entries_; }
    std::uint64_t bad_slots() const { return bad_; }

  private:
    std::uint64_t next_slot() {
        while (entries_.size() < superblock_.segment().nr_slots &&
               superblock_.slot_reserved(entries_.size())) {
            entries_.emplace_back();
        }
        if (entries_.size() >= superblock_.segment().nr_slots) {
            throw Error(Exit::operational, cat(spare_.name(), ": not enough working slots: ", bad_,
                                               " of ", entries_.size(), " that were tried failed"));
        }
        entries_.emplace_back();
        return entries_.size() - 1;
    }

    Entry entry(remap_entry_state state, std::uint64_t block, int error) {
        return Entry::make(state, block, REMAP_CAUSE_HIDDEN, static_cast<std::uint8_t>(error),
                           ++sequence_, time_);
    }

    void mark_bad(std::uint64_t slot, std::uint64_t block, int error) {
        entries_[slot] = entry(REMAP_ENTRY_BAD, block, error);
        ++bad_;
    }

    /// Neighbouring blocks in neighbouring slots, which go in one request.
    struct SlotRun {
        std::uint64_t slot = 0;
        std::size_t index = 0;
        std::size_t count = 0;
    };

    std::vector<SlotRun> assign(const std::vector<std::size_t>& todo, std::size_t limit) {
        std::vector<SlotRun> runs;
        for (const std::size_t i : todo) {
            const std::uint64_t slot = next_slot();
            if (!runs.empty() && runs.back().slot + runs.back().count == slot &&
                runs.back().index + runs.back().count == i && runs.back().count < limit) {
                ++runs.back().count;
            } else {
                runs.push_back({slot, i, 1});
            }
        }
        return runs;
    }

    ConstBytes bytes_of(const HiddenContent& content, const SlotRun& run) const {
        return ConstBytes(content.bytes)
            .subspan(run.index * content.block_bytes, run.count * content.block_bytes);
    }

    /// Writes or verifies a run; false if any of it failed.
    bool put(const HiddenContent& content, const SlotRun& run) {
        last_error_ = spare_.try_write(superblock_.slot_sector(run.slot), bytes_of(content, run));
        return last_error_ == 0;
    }
    bool verify(const HiddenContent& content, const SlotRun& run) {
        const ConstBytes expected = bytes_of(content, run);
        std::vector<std::uint8_t> back(expected.size());
        last_error_ = spare_.try_read(superblock_.slot_sector(run.slot), back);
        return last_error_ == 0 && std::equal(back.begin(), back.end(), expected.begin());
    }

    /// Applies `step` to all runs, block by block where a whole run fails; what failed becomes a
    /// bad slot and is left out of the result.
    template <typename Step>
    std::vector<SlotRun> each(const HiddenContent& content, const std::vector<SlotRun>& runs,
                              std::vector<std::size_t>& again, Step step) {
        std::vector<SlotRun> good;
        for (const SlotRun& run : runs) {
            if (step(run)) {
                good.push_back(run);
                continue;
            }
            for (std::size_t i = 0; i < run.count; ++i) {
                const SlotRun one{run.slot + i, run.index + i, 1};
                if (step(one)) {
                    good.push_back(one);
                } else {
                    mark_bad(one.slot, content.blocks[one.index], last_error_);
                    again.push_back(one.index);
                }
            }
        }
        return good;
    }

    /// Returns the indices whose slots failed.
    std::vector<std::size_t> write_once(const HiddenContent& content,
                                        const std::vector<std::size_t>& todo, Observer& observer) {
        constexpr std::size_t chunk_bytes = 128U << 10;
        std::vector<std::size_t> again;
        auto runs = assign(todo, chunk_bytes / content.block_bytes);
        const std::size_t total = 2 * runs.size();
        std::size_t done = 0;
        const auto shown = [&](bool ok) {
            observer.progress("copying to the spare", ++done, total);
            return ok;
        };
        // Slots of lost blocks are written as well: what was there before must not show.
        runs = each(content, runs, again,
                    [&](const SlotRun& run) { return shown(put(content, run)); });
        spare_.flush();
        runs = each(content, runs, again,
                    [&](const SlotRun& run) { return shown(verify(content, run)); });
        for (const SlotRun& run : runs) {
            for (std::size_t i = 0; i < run.count; ++i) {
                const std::uint64_t block = content.blocks[run.index + i];
                const bool lost = content.lost.count(block) != 0;
                entries_[run.slot + i] =
                    entry(lost ? REMAP_ENTRY_LOST : REMAP_ENTRY_MAPPED, block, lost ? EIO : 0);
            }
        }
        return again;
    }

    BlockIo& spare_;
    const Superblock& superblock_;
    std::uint32_t time_;
    std::vector<Entry> entries_;
    std::uint32_t sequence_ = 0;
    std::uint64_t bad_ = 0;
    int last_error_ = 0;
};

void wipe_ranges(BlockIo& spare, const std::vector<ByteRange>& ranges) {
    const std::uint64_t unit = spare.logical_block_size();
    for (const ByteRange& range : ranges) {
        const std::uint64_t start = range.offset / unit * unit;
        const std::uint64_t end = std::min((range.offset + range.length + unit - 1) / unit * unit,
                                           spare.size() * sector_size);
        if (range.length == 0 || start >= end) {
            continue;
        }
        spare.write(start / sector_size, std::vector<std::uint8_t>(end - start));
    }
    spare.flush();
}

/// Tests that what must be overwritten can be.
void test_places(MainBlocks& main, const AdoptPlan& plan, const HiddenContent& content,
                 Observer& observer) {
    std::set<std::uint64_t> vital = plan.vital;
    vital.insert(deciding_block(plan.superblock));
    const auto require = [&](const std::set<std::uint64_t>& bad, const char* what) {
        for (const std::uint64_t block : vital) {
            if (bad.count(block) != 0) {
                throw Error(
                    Exit::operational,
                    cat(main.io().name(), ": sector ", main.sector(block), ": cannot be ", what,
                        ", but the payload's own signature lies there and could "
                        "not be hidden; nothing was changed. Copy the data to another disk, with "
                        "ddrescue(1) if need be"));
            }
        }
    };
    require(content.lost, "read");
    const std::set<std::uint64_t> failed = rewrite_hidden(main, content, observer);
    require(failed, "rewritten");
    if (!failed.empty()) {
        observer.warning(cat(main.io().name(), ": ", failed.size(),
                             " of the blocks to hide cannot be written, the first at sector ",
                             main.sector(*failed.begin())));
    }
}

/// The table's length in entries: whole table blocks, at least as planned.
std::vector<Entry> padded_table(Superblock& superblock, std::vector<Entry> entries) {
    const std::uint64_t used =
        (entries.size() + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK;
    superblock.table_length = std::max(superblock.table_length, used);
    entries.resize(
        std::min(superblock.table_length * REMAP_ENTRIES_PER_BLOCK, superblock.segment().nr_slots));
    return entries;
}

/// While the payload's own signature is there, nobody turns to these; without it they would be
/// taken for it.
void hide_replicas(MainBlocks& main, const AdoptPlan& plan, Observer& observer) {
    if (plan.replicas.empty()) {
        return;
    }
    conceal(main, plan.superblock, plan.replicas, observer);
    main.io().flush();
    for (const std::uint64_t block : plan.replicas) {
        const Place place = look_at_place(main, plan.superblock, block);
        if (place != Place::ours && place != Place::unreadable) {
            throw NotDecided(cat(main.io().name(), ": sector ", main.sector(block),
                                 ": a replica of the payload's signature lies there and could not "
                                 "be hidden"));
        }
    }
}

AdoptResult format_bare(BlockIo& spare, const AdoptPlan& plan) {
    AdoptResult result;
    result.superblock = plan.superblock;
    wipe_ranges(spare, plan.wipe);
    wipe_superblocks(spare);
    const auto table = padded_table(result.superblock, {});
    write_table(spare, result.superblock, result.superblock.head.generation, table);
    result.superblock = next_superblock(spare, result.superblock);
    write_superblock(spare, result.superblock);
    return result;
}

}  // namespace

AdoptResult adopt(BlockIo& main, BlockIo& spare, const AdoptPlan& plan, const RescueWriter& rescue,
                  Observer& observer, const std::function<void()>& deciding) {
    if (plan.superblock.is_bare()) {
        return format_bare(spare, plan);
    }
    MainBlocks blocks(main, plan.superblock.block_sectors());
    const HiddenContent content = read_hidden(blocks, plan.superblock);
    // Before the test, which writes to the main already, if only what is there.
    rescue(plan.superblock, content);
    test_places(blocks, plan, content, observer);

    wipe_ranges(spare, plan.wipe);
    wipe_superblocks(spare);
    SlotWriter slots(spare, plan);
    slots.write(content, observer);

    AdoptResult result;
    result.superblock = plan.superblock;
    result.lost = content.lost;
    result.bad_slots = slots.bad_slots();
    const auto table = padded_table(result.superblock, slots.entries());
    write_table(spare, result.superblock, result.superblock.head.generation, table);
    result.superblock = next_superblock(spare, result.superblock);
    write_superblock(spare, result.superblock);

    // From here on the set exists: the first write of finish_adoption decides.
    if (deciding) {
        deciding();
    }
    try {
        hide_replicas(blocks, plan, observer);
        result.exposed = finish_adoption(main, spare, result.superblock, observer);
    } catch (const NotDecided&) {
        adopt_recover(main, spare);
        throw;
    }
    return result;
}

}  // namespace remap
