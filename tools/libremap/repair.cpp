// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "libremap/adopt.hpp"
#include "libremap/check.hpp"
#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

using Kind = PlannedWrite::Kind;

/// Makes all of `count` writes, also when some fail. Throws the first failure.
void write_all(std::uint64_t count, const std::function<void(std::uint64_t)>& write) {
    std::optional<Error> first;
    std::uint64_t failed = 0;

    for (std::uint64_t i = 0; i < count; i++) {
        try {
            write(i);
        } catch (const Error& error) {
            failed++;
            if (!first)
                first = error;
        }
    }
    if (first)
        throw Error(
            first->code(),
            cat(first->what(), failed > 1 ? cat(" (and ", failed - 1, " more)") : std::string()));
}

class Repairer {
  public:
    Repairer(CheckResult& result, BlockIo& spare, BlockIo* main)
        : result_(result), spare_(spare), main_(main) {}

    void carry_out(const PlannedWrite& step);

  private:
    void superblock_copy(unsigned int copy);
    void all_superblocks();
    void table_copies(unsigned int copy, std::uint64_t index, std::uint64_t count);
    void table_blocks(std::uint64_t index, std::uint64_t count);
    void rebuild_copy(unsigned int copy);
    void salvage();
    bool is_written(std::uint64_t index);
    void new_superblock(const Superblock& superblock);
    void label(unsigned int number);
    void filler(std::uint64_t block);
    void write_main_block(std::uint64_t sector, const LabelBytes& bytes);
    std::span<const Entry> entries_of(std::uint64_t index) const;
    const Superblock& sb() const { return *result_.superblock; }

    CheckResult& result_;
    BlockIo& spare_;
    BlockIo* main_;
};

void Repairer::superblock_copy(unsigned int copy) {
    SuperblockBytes bytes = result_.superblock_bytes;
    const std::uint64_t sector = sb().sb_sector[copy];

    relocate_superblock(bytes, copy, sector);
    spare_.write(sector, bytes);
    spare_.flush();
}

std::span<const Entry> Repairer::entries_of(std::uint64_t index) const {
    return std::span(result_.table.entries)
        .subspan(index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK);
}

void Repairer::all_superblocks() {
    write_all(REMAP_SB_COPIES,
              [this](std::uint64_t copy) { superblock_copy(static_cast<unsigned int>(copy)); });
}

/// None of these blocks is the only good copy of anything, so one flush does for all.
void Repairer::table_copies(unsigned int copy, std::uint64_t index, std::uint64_t count) {
    write_all(count, [this, copy, index](std::uint64_t i) {
        spare_.write(sb().table_sector(index + i, copy),
                     table_block_bytes(sb(), copy, index + i, result_.table.generations[index + i],
                                       entries_of(index + i)));
    });
    spare_.flush();
}

/// One copy after the other, so that a torn write leaves the others' sectors as they are.
void Repairer::table_blocks(std::uint64_t index, std::uint64_t count) {
    const unsigned int copies = sb().segment().nr_copies;

    write_all(count * copies, [this, copies, index](std::uint64_t i) {
        const auto copy = static_cast<unsigned int>(i % copies);
        const std::uint64_t block = index + i / copies;
        if ((sb().live_copies & (1U << copy)) != 0)
            write_table_copy(spare_, sb(), copy, block, result_.table.generations[block],
                             entries_of(block));
    });
}

/// The copy counts again only when all of it is there, so a power cut leaves it dead.
void Repairer::rebuild_copy(unsigned int copy) {
    Superblock changed = sb();

    for (std::uint64_t index = 0; index < sb().table_length; index++)
        spare_.write(sb().table_sector(index, copy),
                     table_block_bytes(sb(), copy, index, result_.table.generations[index],
                                       entries_of(index)));
    spare_.flush();
    changed.live_copies = static_cast<std::uint8_t>(changed.live_copies | 1U << copy);
    new_superblock(changed);
}

/// Read-only before anything of the table is given up, so that after a power cut nobody writes.
void Repairer::salvage() {
    Superblock changed = sb();

    changed.head.flags |= REMAP_FLAG_READ_ONLY;
    new_superblock(changed);
    Table& table = result_.table;
    const std::uint64_t seen = std::max(result_.scan.highest_generation, table.highest_generation);
    const std::uint64_t generation = next_generation(sb().epoch, seen);
    table.highest_generation = generation;
    for (const auto& [index, entries] : result_.loss.changed) {
        std::copy(
            entries.begin(), entries.end(),
            table.entries.begin() + static_cast<std::ptrdiff_t>(index * REMAP_ENTRIES_PER_BLOCK));
        table.generations[index] = generation;
    }
    std::optional<Error> first;
    for (const auto& [index, entries] : result_.loss.changed) {
        try {
            table_blocks(index, 1);
        } catch (const Error& error) {
            // Without the marks that it holds, those after it would open and read old data.
            if (!is_written(index))
                throw;
            first = first ? first : error;
        }
    }
    if (first)
        throw Error(*first);
}

/// Has any live copy of the table block the present generation?
bool Repairer::is_written(std::uint64_t index) {
    TableBlockBytes bytes{};

    for (unsigned int copy = 0; copy < sb().segment().nr_copies; copy++) {
        const std::uint64_t sector = sb().table_sector(index, copy);
        if ((sb().live_copies & (1U << copy)) == 0 || spare_.try_read(sector, bytes) != 0)
            continue;
        const auto decoded = decode_table_header(bytes, sb().seed(), index, copy, sector);
        if (decoded.valid() && decoded.value.generation == result_.table.generations[index])
            return true;
    }
    return false;
}

void Repairer::new_superblock(const Superblock& superblock) {
    Superblock changed = superblock;
    const std::uint64_t seen =
        std::max(result_.scan.highest_generation, result_.table.highest_generation);

    changed.head.generation = next_generation(changed.epoch, seen);
    write_superblock(spare_, changed);
    result_.scan.highest_generation = changed.head.generation;
    result_.superblock = changed;
}

void Repairer::write_main_block(std::uint64_t sector, const LabelBytes& bytes) {
    std::vector<std::uint8_t> block(sb().block_size());

    std::copy(bytes.begin(), bytes.end(), block.begin());
    main_->write(sector, block);
    main_->flush();
}

void Repairer::label(unsigned int number) {
    const std::uint64_t sector = sb().label_sector[number];
    write_main_block(sector, encode_label(*result_.label, number, sector));
}

void Repairer::filler(std::uint64_t block) {
    const std::uint64_t sector = block * sb().block_sectors();
    write_main_block(sector, encode_filler(make_filler(sb()), sector));
}

void Repairer::carry_out(const PlannedWrite& step) {
    switch (step.kind) {
        case Kind::superblock_copy:
            return superblock_copy(step.copy);
        case Kind::superblock:
            return all_superblocks();
        case Kind::table_copy:
            return table_copies(step.copy, step.index, step.count);
        case Kind::table_block:
            return table_blocks(step.index, step.count);
        case Kind::rebuild_copy:
            return rebuild_copy(step.copy);
        case Kind::extend_table: {
            Superblock changed = sb();
            changed.table_length = step.index;
            return new_superblock(changed);
        }
        case Kind::salvage:
            return salvage();
        case Kind::confirm_loss: {
            Superblock changed = sb();
            changed.head.flags &= ~REMAP_FLAG_READ_ONLY;
            return new_superblock(changed);
        }
        case Kind::label:
            return label(step.copy);
        case Kind::filler:
            return filler(step.index);
        case Kind::recover:
            result_.findings[step.finding].found += cat("; ", adopt_recover(*main_, spare_).text);
            return;
    }
}

}  // namespace

void apply_plan(CheckResult& result, BlockIo& spare, BlockIo* main, const Wanted& wanted) {
    Repairer repairer(result, spare, main);

    for (const PlannedWrite& step : result.plan) {
        Finding& finding = result.findings[step.finding];
        if (!wanted(finding) || (step.on_main() && !main))
            continue;
        try {
            repairer.carry_out(step);
            finding.repaired = finding.repair_error.empty();
        } catch (const Error& error) {
            finding.repair_error = error.what();
            finding.repaired = false;
        }
    }
}

}  // namespace remap
