// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/export.hpp"

#include <algorithm>
#include <array>
#include <ostream>

#include "libremap/check.hpp"
#include "libremap/metadata.hpp"
#include "libremap/report.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

Superblock require_superblock(BlockIo& spare, const CheckResult& check) {
    // The messages for what is not a spare, or one that cannot be used, are there.
    return check.superblock && check.refused.empty() ? *check.superblock : load_superblock(spare);
}

}  // namespace

Exit visit_set(BlockIo& spare, bool in_use, SetVisitor& set) {
    std::optional<Superblock> sb;
    bool damaged = false;
    {
        // Its table is given back before the walk.
        const CheckResult check = check_set(spare, nullptr);
        sb = require_superblock(spare, check);
        damaged = check.damaged();
    }
    set.superblock({in_use}, *sb);
    visit_table(spare, *sb, 0, sb->table_length, false, [&](const TableBlockView& view) {
        if (view.winner < 0) {
            set.lost_block(view.index);
            return;
        }
        const TableCopy& copy = view.copies[static_cast<std::size_t>(view.winner)];
        std::array<Entry, REMAP_ENTRIES_PER_BLOCK> entries;
        table_entries(copy.bytes, entries);
        set.block(view.index, copy.header.generation);
        for (unsigned int i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++) {
            if (entries[i] != Entry{})
                set.entry(view.index * REMAP_ENTRIES_PER_BLOCK + i, entries[i]);
        }
    });
    set.finish();
    return damaged ? Exit::damage : Exit::ok;
}

namespace {

using Run = MainView::Run;

/// Joins runs that continue each other.
class Runs {
  public:
    void add(const Run& run) {
        if (run.count == 0)
            return;
        if (!runs_.empty()) {
            Run& last = runs_.back();
            const bool follows =
                run.place != Run::Place::slot || last.slot + last.count == run.slot;
            if (last.place == run.place && follows) {
                last.count += run.count;
                return;
            }
        }
        runs_.push_back(run);
    }

    /// From the end of what was added to `block`: on the main, but for hidden blocks.
    void fill(const Superblock& sb, std::uint64_t block) {
        for (const Hidden& h : sb.hidden) {
            const std::uint64_t from = std::max(at_, h.start);
            const std::uint64_t to = std::min(block, h.start + h.count);
            if (from >= to)
                continue;
            add({at_, from - at_, Run::Place::main, 0});
            add({from, to - from, Run::Place::lost, 0});
            at_ = to;
        }
        add({at_, block - at_, Run::Place::main, 0});
        at_ = block;
    }

    void take(const Run& run) {
        add(run);
        at_ = run.block + run.count;
    }

    std::vector<Run> done() { return std::move(runs_); }

  private:
    std::vector<Run> runs_;
    std::uint64_t at_ = 0;
};

}  // namespace

MainView view_main(BlockIo& spare) {
    CheckResult check = check_set(spare, nullptr);
    MainView view;
    Runs runs;

    view.superblock = require_superblock(spare, check);
    view.damaged = check.damaged();
    check = {};
    const Table table = load_table(spare, view.superblock);
    view.lost_table_blocks = table.lost.size();
    for (const Mapping& mapping : live_mappings(table)) {
        if (check_entry(view.superblock, mapping.slot, mapping.entry)) {
            view.damaged = true;
            if (mapping.block >= view.superblock.main_blocks())
                continue;
        }
        const bool in_slot = mapping.entry.state() == REMAP_ENTRY_MAPPED && !mapping.undecidable &&
                             !check_entry(view.superblock, mapping.slot, mapping.entry);
        runs.fill(view.superblock, mapping.block);
        runs.take({mapping.block, 1, in_slot ? Run::Place::slot : Run::Place::lost, mapping.slot});
    }
    runs.fill(view.superblock, view.superblock.main_blocks());
    view.runs = runs.done();
    return view;
}

void write_ddrescue_map(const MainView& view, const std::string& spare, std::ostream& out) {
    const std::uint64_t unit = view.superblock.block_size();
    std::uint64_t from = 0;
    char status = '\0';
    const auto line = [&](std::uint64_t to) {
        if (to > from)
            out << "0x" << std::hex << from << "  0x" << to - from << std::dec << "  " << status
                << "\n";
        from = to;
    };

    out << "# Mapfile for ddrescue: the main of set " << view.superblock.head.set_uuid
        << ", by its spare " << printable(spare)
        << "\n# - : not on the main (in a slot of the spare, lost, or hidden); + : on the main\n"
        << "# current_pos  current_status  current_pass\n0x0     +               1\n"
        << "#      pos        size  status\n";
    for (const Run& run : view.runs) {
        const char now = run.place == Run::Place::main ? '+' : '-';
        if (now != status)
            line(run.block * unit);
        status = now;
    }
    line(view.superblock.main_size * sector_size);
}

void write_badblocks(const MainView& view, std::uint64_t block_size, std::ostream& out) {
    const std::uint64_t unit = view.superblock.block_size();
    std::uint64_t next = 0;
    const auto list = [&](std::uint64_t from, std::uint64_t to) {
        for (std::uint64_t n = std::max(next, from * unit / block_size);
             n <= (to * unit - 1) / block_size; n++) {
            out << n << "\n";
            next = n + 1;
        }
    };

    for (const Run& run : view.runs) {
        if (run.place == Run::Place::main)
            continue;
        std::uint64_t from = run.block;
        const std::uint64_t end = run.block + run.count;
        for (const Hidden& h : view.superblock.hidden) {
            if (h.start + h.count <= from || h.start >= end)
                continue;
            if (h.start > from)
                list(from, h.start);
            from = std::min(end, h.start + h.count);
        }
        if (from < end)
            list(from, end);
    }
}

namespace {

/// A path as a word of a dm table: what would end the word is escaped.
std::string table_word(const std::string& path) {
    std::string word;

    for (const char c : path) {
        if (c == ' ' || c == '\t' || c == '\\')
            word += '\\';
        word += c;
    }
    return word;
}

}  // namespace

void write_dm_table(const MainView& view, const std::string& main, const std::string& spare,
                    std::ostream& out) {
    const std::string main_word = table_word(main);
    const std::string spare_word = table_word(spare);
    const std::uint64_t unit = view.superblock.block_sectors();

    for (const Run& run : view.runs) {
        const std::uint64_t start = run.block * unit;
        out << start << " " << run.count * unit;
        if (run.place == Run::Place::lost)
            out << " error\n";
        else if (run.place == Run::Place::main)
            out << " linear " << main_word << " " << start << "\n";
        else
            out << " linear " << spare_word << " " << view.superblock.slot_sector(run.slot) << "\n";
    }
}

}  // namespace remap
