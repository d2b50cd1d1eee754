// SPDX-License-Identifier: GPL-2.0-or-later
#include "sample_set.hpp"

#include <algorithm>
#include <cstddef>

#include "libremap/crc.hpp"
#include "libremap/layout.hpp"

namespace remap::test {
namespace {

Uuid uuid_from(std::mt19937& random) {
    Uuid uuid;
    for (auto& byte : uuid.bytes)
        byte = static_cast<std::uint8_t>(random());
    return uuid;
}

/// Something in every sector that is no structure of ours.
void fill(std::vector<std::uint8_t>& content, std::mt19937& random) {
    for (std::size_t at = 0; at + 64 <= content.size(); at += 64)
        content[at] = static_cast<std::uint8_t>(random());
}

Superblock make_superblock(const SampleOptions& o, std::mt19937& random) {
    const std::uint32_t block_sectors = 1U << (o.block_shift - 9);
    const std::uint64_t blocks = o.main_size / block_sectors;
    LayoutRequest request{o.spare_size, o.main_size, block_sectors, 2 * o.hidden_each_end, 0};
    const Layout layout = plan_layout(request);
    Superblock sb;

    sb.head.role = REMAP_ROLE_SPARE;
    sb.head.state = REMAP_STATE_COMPLETE;
    sb.head.block_shift = o.block_shift;
    sb.head.set_uuid = uuid_from(random);
    sb.head.nonce = random();
    sb.head.member_uuid = uuid_from(random);
    sb.head.partner_uuid = uuid_from(random);
    sb.epoch = 1;
    sb.live_copies = 3;
    sb.main_size = o.main_size;
    sb.spare_size = o.spare_size;
    sb.sb_sector = layout.sb_sector;
    sb.segments = {layout.segment};
    sb.segments[0].member = 1;
    sb.table_length = layout.table_length;
    sb.created = 1700000000;
    sb.updated = 1700000000;
    sb.label = "sample";
    sb.tool = "test";
    sb.members = {{sb.head.partner_uuid, REMAP_ROLE_MAIN, 1, o.main_size, "0x5000", "S1", ""},
                  {sb.head.member_uuid, REMAP_ROLE_SPARE, 1, o.spare_size, "", "", "p-1"}};
    if (o.hidden_each_end == 0) {
        sb.head.flags = REMAP_FLAG_BARE;
        return sb;
    }
    const auto count = static_cast<std::uint32_t>(o.hidden_each_end);
    sb.hidden = {{0, count, 0}, {blocks - count, count, 0}};
    sb.deciding_sector = 2;
    sb.label_sector = {0, (blocks - 1) * block_sectors};
    if (block_sectors == 1)
        sb.label_sector = {0, 2, blocks - 1};
    sb.label_epoch = 1;
    return sb;
}

}  // namespace

SampleSet::SampleSet(const SampleOptions& o)
    : main("main.img", o.main_size), spare("spare.img", o.spare_size) {
    std::mt19937 random(o.seed);
    std::uint32_t sequence = 1;
    std::uint64_t slot = 0;

    superblock = make_superblock(o, random);
    fill(main.content(), random);
    fill(spare.content(), random);
    const auto put = [&](std::uint64_t block, remap_entry_state state, remap_entry_cause cause) {
        while (superblock.slot_reserved(slot))
            slot++;
        if (slot / REMAP_ENTRIES_PER_BLOCK >= superblock.table_length)
            superblock.table_length = slot / REMAP_ENTRIES_PER_BLOCK + 1;
        entries.resize(superblock.table_length * REMAP_ENTRIES_PER_BLOCK);
        entries[slot++] = Entry::make(state, block, cause, 0, sequence++, 1700000000);
    };
    entries.resize(superblock.table_length * REMAP_ENTRIES_PER_BLOCK);
    for (const Hidden& h : superblock.hidden) {
        for (std::uint64_t i = 0; i < h.count; i++)
            put(h.start + i, REMAP_ENTRY_MAPPED, REMAP_CAUSE_HIDDEN);
    }
    const std::uint64_t blocks = superblock.main_blocks() - 2 * o.hidden_each_end;
    for (std::uint64_t i = 0; i < o.remaps; i++) {
        const std::uint64_t block = o.hidden_each_end + i * (blocks / o.remaps);
        const bool lost = random() % 10 == 0;
        put(block, lost ? REMAP_ENTRY_LOST : REMAP_ENTRY_MAPPED, REMAP_CAUSE_WRITE);
    }
    write_all();
    if (!superblock.is_bare())
        write_main();
}

void SampleSet::write_all() {
    generation = next_generation(superblock.epoch, generation);
    superblock.head.generation = generation;
    write_table(spare, superblock, generation, entries);
    write_superblock(spare, superblock);
}

void SampleSet::write_all_as_is() {
    write_table(spare, superblock, generation, entries);
    write_superblock(spare, superblock);
}

void SampleSet::new_epoch() {
    superblock.epoch++;
    superblock.label_epoch = superblock.is_bare() ? 0 : superblock.epoch;
    write_all();
    if (!superblock.is_bare())
        write_main();
}

void SampleSet::write_main() {
    const auto put = [this](std::uint64_t sector, const LabelBytes& bytes) {
        std::vector<std::uint8_t> block(superblock.block_size());
        std::copy(bytes.begin(), bytes.end(), block.begin());
        main.write(sector, block);
    };

    for (const Hidden& h : superblock.hidden) {
        for (std::uint64_t b = h.start; b < h.start + h.count; b++)
            put(b * superblock.block_sectors(),
                encode_filler(make_filler(superblock), b * superblock.block_sectors()));
    }
    for (unsigned int i = 0; i < superblock.label_sector.size(); i++)
        put(superblock.label_sector[i],
            encode_label(make_label(superblock), i, superblock.label_sector[i]));
}

void flip(MemoryIo& io, std::uint64_t sector, std::uint64_t bit) {
    io.content()[sector * sector_size + bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
}

void scribble(MemoryIo& io, std::uint64_t sector, std::uint64_t sectors, std::uint8_t value) {
    std::fill_n(io.content().begin() + static_cast<std::ptrdiff_t>(sector * sector_size),
                sectors * sector_size, value);
}

void reseal_table_block(TableBlockBytes& bytes, std::uint32_t seed) {
    std::uint32_t crc = crc_structure(seed, bytes, offsetof(remap_table_block, crc));

    for (std::size_t i = 0; i < 4; i++, crc >>= 8)
        bytes.at(offsetof(remap_table_block, crc) + i) = static_cast<std::uint8_t>(crc);
}

std::vector<std::string> ids(const CheckResult& result, bool notes) {
    std::vector<std::string> list;

    for (const Finding& finding : result.findings) {
        if (notes || finding.problem->severity != Severity::note)
            list.emplace_back(finding.problem->id);
    }
    std::sort(list.begin(), list.end());
    return list;
}

CheckResult repair(BlockIo& spare, BlockIo* main, bool everything) {
    CheckResult result = check_set(spare, main);

    apply_plan(result, spare, main, [everything](const Finding& finding) {
        return (everything && finding.problem->repair != Repair::on_request) ||
               finding.problem->repair == Repair::preen;
    });
    return result;
}

}  // namespace remap::test
