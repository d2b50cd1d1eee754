// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/import.hpp"

#include <algorithm>
#include <bit>
#include <set>

#include "libremap/check.hpp"
#include "libremap/error.hpp"
#include "libremap/pair.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// A set to which entries may be added: complete, whole, and with a copy to spare while the other
/// one is written.
Superblock require_sound(BlockIo& spare) {
    const Superblock sb = require_openable(spare, false);
    const CheckResult check = check_set(spare, nullptr);

    if (check.damaged() || !check.refused.empty())
        throw Error(Exit::unrecognised, cat(spare.name(),
                                            ": expected a set without damage, found damage; run "
                                            "\"remap-fsck -p ",
                                            spare.name(), "\" first"));
    if ((sb.head.flags & REMAP_FLAG_READ_ONLY) != 0)
        throw Error(Exit::unrecognised,
                    cat(spare.name(),
                        ": expected a set that may be written, found one that is "
                        "read-only until a loss is confirmed"));
    if (std::popcount(sb.live_copies) < 2)
        throw Error(Exit::unrecognised,
                    cat(spare.name(),
                        ": expected two live copies of the table, found one; run "
                        "\"remap-fsck -p ",
                        spare.name(), "\" first"));
    return sb;
}

/// The blocks of the list, ascending, each once.
std::vector<std::uint64_t> blocks_of(const Superblock& sb, const std::string& device,
                                     const BadList& list, bool skip, std::uint64_t& skipped) {
    std::vector<std::uint64_t> blocks;
    const std::uint64_t unit = sb.block_sectors();

    for (const SectorRun& run : list.runs) {
        const std::uint64_t last = (run.start + run.count - 1) / unit;
        if (last >= sb.main_blocks() && !skip)
            throw Error(Exit::unrecognised,
                        cat(device, ": expected bad sectors below ", sb.main_size,
                            ", the size of the main, found sector ",
                            std::max(run.start, sb.main_size), "; --skip leaves such sectors out"));
        for (std::uint64_t block = run.start / unit; block <= last; block++) {
            if (block >= sb.main_blocks()) {
                skipped += last - block + 1;
                break;
            }
            blocks.push_back(block);
            if (blocks.size() > 2 * sb.segment().nr_slots)
                throw Error(Exit::unrecognised,
                            cat(device, ": expected bad blocks for its ", sb.segment().nr_slots,
                                " slots, found far more"));
        }
    }
    std::sort(blocks.begin(), blocks.end());
    blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
    return blocks;
}

/// Free slots, also of table blocks that are not initialised yet.
std::uint64_t count_free(const Superblock& sb, const Table& table) {
    std::uint64_t free = 0;

    for (std::uint64_t slot = 0; slot < sb.segment().nr_slots; slot++) {
        const bool unused = slot >= table.entries.size() || table.entries[slot] == Entry{};
        free += unused && !sb.slot_reserved(slot);
    }
    return free;
}

}  // namespace

ImportPlan plan_import(BlockIo& spare, const BadList& list, bool skip) {
    ImportPlan plan;

    plan.superblock = require_sound(spare);
    const Superblock& sb = plan.superblock;
    plan.table = load_intact_table(spare, sb);
    std::vector<std::uint64_t> mapped;
    for (const Mapping& mapping : live_mappings(plan.table))
        mapped.push_back(mapping.block);
    for (const std::uint64_t block : blocks_of(sb, spare.name(), list, skip, plan.skipped)) {
        if (std::binary_search(mapped.begin(), mapped.end(), block)) {
            plan.known++;
        } else if (!sb.block_hidden(block)) {
            plan.blocks.push_back(block);
        } else if (skip) {
            plan.skipped++;
        } else {
            throw Error(Exit::unrecognised,
                        cat(spare.name(), ": sector ", block * sb.block_sectors(),
                            " of the main is hidden: its data is not there; --skip leaves such "
                            "sectors out"));
        }
    }
    const std::uint64_t free = count_free(sb, plan.table);
    if (plan.blocks.size() > free)
        throw Error(Exit::unrecognised, cat(spare.name(), ": expected free slots for ",
                                            plan.blocks.size(), " blocks, found ", free));
    plan.free_slots = free - plan.blocks.size();
    return plan;
}

namespace {

/// Of all sequences the one that the next entry gets, as the kernel counts.
std::uint32_t next_sequence(const Table& table) {
    std::uint32_t next = 0;
    bool any = false;

    for (const Entry& entry : table.entries) {
        if (entry.is_free())
            continue;
        const std::uint32_t after = (entry.sequence() + 1) & REMAP_ENTRY_SEQ_MASK;
        if (!any || remap_seq_newer(after, next))
            next = after;
        any = true;
    }
    return next;
}

class Import {
  public:
    Import(BlockIo& spare, ImportPlan plan, std::uint32_t now)
        : spare_(spare),
          sb_(std::move(plan.superblock)),
          table_(std::move(plan.table)),
          blocks_(std::move(plan.blocks)),
          now_(now),
          highest_(
              std::max(scan_superblocks(spare).highest_generation, table_.highest_generation)) {}

    void run(Observer& observer);

  private:
    std::span<const Entry> entries_of(std::uint64_t index) const {
        return std::span(table_.entries)
            .subspan(index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK);
    }
    void level_copies();
    void enter();
    void extend();
    void commit(const std::vector<std::uint64_t>& indices, std::uint64_t generation,
                Observer& observer);

    BlockIo& spare_;
    Superblock sb_;
    Table table_;
    std::vector<std::uint64_t> blocks_;
    std::uint32_t now_;
    std::uint64_t highest_;
    std::set<std::uint64_t> changed_;  ///< table blocks
};

/// A copy that is one commit behind is brought up first: else the only newest copy of a block would
/// be written over.
void Import::level_copies() {
    for (const TableProblem& problem : table_.problems)
        write_table_copy(spare_, sb_, problem.copy, problem.index,
                         table_.generations[problem.index], entries_of(problem.index));
}

/// Gives each block a slot, in memory.
void Import::enter() {
    std::uint32_t sequence = next_sequence(table_);
    std::uint64_t slot = 0;

    for (const std::uint64_t block : blocks_) {
        while (slot < table_.entries.size() && !slot_allocatable(sb_, table_, slot))
            slot++;
        while (slot >= table_.entries.size()) {
            table_.entries.resize(table_.entries.size() + REMAP_ENTRIES_PER_BLOCK);
            table_.generations.push_back(0);
            while (slot < table_.entries.size() && !slot_allocatable(sb_, table_, slot))
                slot++;
        }
        table_.entries[slot] =
            Entry::make(REMAP_ENTRY_LOST, block, REMAP_CAUSE_IMPORT, 0, sequence, now_);
        changed_.insert(slot / REMAP_ENTRIES_PER_BLOCK);
        sequence = (sequence + 1) & REMAP_ENTRY_SEQ_MASK;
        slot++;
    }
}

/// Empty blocks on every copy, then the length: nothing is in them before they count.
void Import::extend() {
    const std::uint64_t length = table_.generations.size();
    const std::uint64_t generation = next_generation(sb_.epoch, highest_);
    const std::vector<Entry> empty(REMAP_ENTRIES_PER_BLOCK);

    if (length == sb_.table_length)
        return;
    for (unsigned int copy = 0; copy < sb_.segment().nr_copies; copy++) {
        if ((sb_.live_copies & (1U << copy)) == 0)
            continue;
        for (std::uint64_t index = sb_.table_length; index < length; index++)
            spare_.write(sb_.table_sector(index, copy),
                         table_block_bytes(sb_, copy, index, generation, empty));
        spare_.flush();
    }
    sb_.table_length = length;
    sb_.head.generation = highest_ = next_generation(sb_.epoch, generation);
    sb_.updated = now_;
    write_superblock(spare_, sb_);
}

void Import::commit(const std::vector<std::uint64_t>& indices, std::uint64_t generation,
                    Observer& observer) {
    const std::uint64_t total = indices.size() * sb_.segment().nr_copies;
    std::uint64_t done = 0;

    for (unsigned int copy = 0; copy < sb_.segment().nr_copies; copy++) {
        if ((sb_.live_copies & (1U << copy)) == 0)
            continue;
        for (const std::uint64_t index : indices) {
            spare_.write(sb_.table_sector(index, copy),
                         table_block_bytes(sb_, copy, index, generation, entries_of(index)));
            observer.progress("writing the table", ++done * REMAP_TABLE_BLOCK_SECTORS,
                              total * REMAP_TABLE_BLOCK_SECTORS);
        }
        spare_.flush();
    }
}

void Import::run(Observer& observer) {
    if (blocks_.empty())
        return;
    level_copies();
    enter();
    extend();
    commit({changed_.begin(), changed_.end()}, next_generation(sb_.epoch, highest_), observer);
    if (load_intact_table(spare_, load_superblock(spare_)).entries != table_.entries)
        throw Error(Exit::operational,
                    cat(spare_.name(), ": what was written is not what is read back"));
}

}  // namespace

void run_import(BlockIo& spare, ImportPlan plan, std::uint32_t now, Observer& observer) {
    Import(spare, std::move(plan), now).run(observer);
}

}  // namespace remap
