// SPDX-License-Identifier: GPL-2.0-or-later
#include "hostile_set.hpp"

#include <algorithm>
#include <set>

#include "libremap/places.hpp"

namespace fuzz {
namespace {

using remap::sector_size;
using remap::test::SampleOptions;
using remap::test::SampleSet;

constexpr std::uint8_t unsealed = 0x80;
constexpr std::uint64_t most_sectors = 16384;

struct Patch {
    std::size_t offset;
    std::vector<std::uint8_t> bytes;

    explicit Patch(Input& input)
        : offset(input.word()), bytes(input.bytes(input.byte() % 32 + 1)) {}

    void apply(std::span<std::uint8_t> to) const {
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            to[(offset + i) % to.size()] = bytes[i];
        }
    }
};

}  // namespace

const std::vector<SampleSet>& sample_sets() {
    static const std::vector<SampleSet> sets = [] {
        std::vector<SampleSet> made;
        made.emplace_back(SampleOptions{2048, 2048, 9, 4, 12, 1});
        made.emplace_back(SampleOptions{2048, 2048, 9, 0, 12, 2});
        made.emplace_back(SampleOptions{8192, 4096, 12, 3, 20, 3});
        made.emplace_back(SampleOptions{4096, 4096, 9, 8, 600, 4});
        return made;
    }();
    return sets;
}

const SampleSet& damaged_set() {
    static const SampleSet damaged = [] {
        SampleSet set = sample_sets().front();
        remap::test::scribble(set.spare, set.superblock.sb_sector[1], 2);
        remap::test::flip(set.spare, set.superblock.table_sector(0, 1), 5000);
        remap::test::scribble(set.main, set.superblock.label_sector[0], 1);
        return set;
    }();
    return damaged;
}

HostileSet::HostileSet(Input& input)
    : sample(sample_sets()[input.byte() % sample_sets().size()]),
      main_below("main.img", sample.main.content(), sample.superblock.block_size()),
      spare_below("spare.img", sample.spare.content(), 512),
      main(main_below),
      spare(spare_below) {
    constexpr unsigned int most_steps = 64;
    for (unsigned int i = 0; i < most_steps && !input.empty(); ++i) {
        step(input);
    }
}

void HostileSet::freeze(const std::string& why) {
    main_below.freeze(why);
    spare_below.freeze(why);
}

void HostileSet::thaw() {
    main_below.thaw();
    spare_below.thaw();
}

/// A sector of the spare; every second value names one where a structure lies.
std::uint64_t HostileSet::place(Input& input) const {
    const std::uint16_t value = input.word();
    const remap::Superblock& sb = sample.superblock;
    if ((value & 1) == 0) {
        return value / 2 % spare.size();
    }
    const std::uint64_t which = value / 2U;
    const std::uint64_t copies = sb.segment().nr_copies;
    if (which % 2 == 0) {
        return sb.sb_sector.at(which / 2 % REMAP_SB_COPIES);
    }
    return sb.table_sector(which / 2 / copies % sb.table_length,
                           static_cast<unsigned int>(which / 2 % copies));
}

/// The first sector of one of the main's hidden blocks; 0 for a bare set.
std::uint64_t HostileSet::hidden_place(Input& input) const {
    const std::uint8_t which = input.byte();
    const std::set<std::uint64_t> blocks = remap::hidden_blocks_of(sample.superblock);
    if (blocks.empty()) {
        return 0;
    }
    const auto at = static_cast<std::ptrdiff_t>(which % blocks.size());
    return *std::next(blocks.begin(), at) * sample.superblock.block_sectors();
}

void HostileSet::patch_superblocks(Input& input) {
    const std::uint8_t mask = input.byte();
    const Patch patch(input);
    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; ++copy) {
        const std::uint64_t sector = sample.superblock.sb_sector.at(copy);
        std::vector<std::uint8_t> bytes(REMAP_SB_SIZE);
        if ((mask >> copy & 1) == 0 || spare_below.try_read(sector, bytes) != 0) {
            continue;
        }
        patch.apply(bytes);
        if ((mask & unsealed) == 0) {
            seal_head(bytes);
        }
        spare_below.put(sector * sector_size, bytes);
    }
}

void HostileSet::patch_table(Input& input) {
    const remap::Superblock& sb = sample.superblock;
    const std::uint64_t index = input.byte() % sb.table_length;
    const std::uint8_t mask = input.byte();
    const Patch patch(input);
    for (unsigned int copy = 0; copy < sb.segment().nr_copies; ++copy) {
        const std::uint64_t sector = sb.table_sector(index, copy);
        std::vector<std::uint8_t> bytes(REMAP_TABLE_BLOCK_SIZE);
        if ((mask >> copy & 1) == 0 || spare_below.try_read(sector, bytes) != 0) {
            continue;
        }
        patch.apply(bytes);
        if ((mask & unsealed) == 0) {
            seal_table_block(bytes, sb.seed());
        }
        spare_below.put(sector * sector_size, bytes);
    }
}

void HostileSet::patch_label(Input& input) {
    const std::uint64_t sector = hidden_place(input);
    const std::uint8_t mask = input.byte();
    const Patch patch(input);
    std::vector<std::uint8_t> bytes(REMAP_LABEL_SIZE);
    if (main_below.try_read(sector, bytes) != 0) {
        return;
    }
    patch.apply(bytes);
    if ((mask & unsealed) == 0) {
        seal_head(bytes);
    }
    main_below.put(sector * sector_size, bytes);
}

void HostileSet::step(Input& input) {
    switch (static_cast<Step>(input.byte() % static_cast<unsigned int>(Step::count))) {
        case Step::superblock:
            return patch_superblocks(input);
        case Step::table:
            return patch_table(input);
        case Step::label:
            return patch_label(input);
        case Step::scribble: {
            const std::uint64_t sector = place(input);
            spare_below.put(sector * sector_size,
                            std::vector<std::uint8_t>(sector_size, input.byte()));
            return;
        }
        case Step::bad_read:
            spare.bad_reads.insert(place(input));
            return;
        case Step::bad_write:
            spare.bad_writes.insert(place(input));
            return;
        case Step::copy: {
            std::vector<std::uint8_t> bytes(REMAP_SB_SIZE);
            const std::uint64_t from = place(input);
            const std::uint64_t to = place(input);
            if (spare_below.try_read(from, bytes) == 0) {
                spare_below.put(to * sector_size, bytes);
            }
            return;
        }
        case Step::resize:
            spare_below.resize(std::clamp<std::uint64_t>(input.word(), 64, most_sectors));
            return;
        case Step::bad_main: {
            const std::uint64_t sector = hidden_place(input);
            main.bad_reads.insert(sector);
            main.bad_writes.insert(sector);
            return;
        }
        case Step::count:
            return;
    }
}

}  // namespace fuzz
