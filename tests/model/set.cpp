// SPDX-License-Identifier: GPL-2.0-or-later
#include "set.hpp"

#include <dm-remap-format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

namespace model {
namespace {

constexpr std::uint64_t hidden_each_end = 16;
constexpr std::uint64_t window_middle = 2048;  // where two chunks of the in-memory map meet
constexpr std::uint64_t window_half = 64;
constexpr std::uint64_t window_hidden = 8;

std::uint32_t crc(std::uint32_t seed, const void* data, std::size_t size, std::size_t at) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    const std::array<std::uint8_t, 4> zero{};
    uLong sum = crc32(seed, bytes, static_cast<uInt>(at));

    sum = crc32(sum, zero.data(), 4);
    return static_cast<std::uint32_t>(crc32(sum, bytes + at + 4, static_cast<uInt>(size - at - 4)));
}

std::uint32_t seed_of(const remap_head& head) {
    const uLong sum = crc32(0, head.set_uuid, REMAP_UUID_SIZE);
    return static_cast<std::uint32_t>(
        crc32(sum, reinterpret_cast<const Bytef*>(&head.nonce), sizeof(head.nonce)));
}

void write_sectors(Image& image, std::uint64_t sector, const void* data, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes; at += sector_size)
        image.write(sector++, static_cast<const std::uint8_t*>(data) + at);
}

void write_block(const SetLayout& layout, Image& image, std::uint64_t sector, std::uint64_t block,
                 std::uint32_t version) {
    std::array<std::uint8_t, sector_size> bytes;

    for (std::uint32_t i = 0; i < layout.block_sectors(); i++) {
        fill_sector(bytes.data(), block, version, i);
        image.write(sector + i, bytes.data());
    }
}

remap_head make_head(Random& random) {
    remap_head head{};

    std::memcpy(head.magic, REMAP_MAGIC, REMAP_MAGIC_SIZE);
    head.version = REMAP_VERSION;
    head.role = REMAP_ROLE_SPARE;
    head.state = REMAP_STATE_COMPLETE;
    head.generation = (std::uint64_t{1} << 32) + 2;
    head.nonce = random.next();
    for (auto* uuid : {head.set_uuid, head.member_uuid, head.partner_uuid}) {
        for (std::size_t i = 0; i < REMAP_UUID_SIZE; i++)
            uuid[i] = static_cast<std::uint8_t>(random.next());
    }
    return head;
}

struct Entries {
    std::vector<remap_entry> slots;
    std::uint64_t next = 0;
    std::uint32_t sequence;

    /// Returns the slot.
    std::uint64_t add(const SetLayout& layout, remap_entry_state state, std::uint64_t block) {
        while (layout.slot_reserved(next))
            next++;
        slots[next].lo = block | std::uint64_t{state} << REMAP_ENTRY_STATE_SHIFT |
                         std::uint64_t{REMAP_CAUSE_WRITE} << REMAP_ENTRY_CAUSE_SHIFT;
        slots[next].hi = sequence;
        sequence = (sequence + 1) & REMAP_ENTRY_SEQ_MASK;
        return next++;
    }
};

/// What a mapped block's place on the main holds must never be seen again.
void map_block(const SetLayout& layout, Entries& entries, std::uint64_t block, bool lost,
               Image& main, Image& spare) {
    const std::uint64_t slot =
        entries.add(layout, lost ? REMAP_ENTRY_LOST : REMAP_ENTRY_MAPPED, block);

    write_block(layout, main, block * layout.block_sectors(), block, foreign_version);
    if (!lost)
        write_block(layout, spare, layout.slot_sector(slot), block, first_version);
}

Entries make_entries(const SetLayout& layout, Random& random, Image& main, Image& spare) {
    const SetOptions& o = layout.options;
    Entries entries{std::vector<remap_entry>(layout.table_blocks * REMAP_ENTRIES_PER_BLOCK), 0,
                    o.first_sequence};
    std::vector<bool> taken(o.main_blocks);

    for (std::uint64_t b = 0; b < o.main_blocks; b++) {
        if (layout.hidden(b))
            map_block(layout, entries, b, false, main, spare);
    }
    for (std::size_t i = 0; i < layout.lost.size(); i++) {
        if (layout.lost[i])
            map_block(layout, entries, layout.window.blocks[i], true, main, spare);
    }
    for (std::uint64_t i = 0; i < o.mapped; i++) {
        const std::uint64_t block = random.pick(layout.window.blocks);
        if (taken[block] || layout.hidden(block) || layout.lost[layout.window.index_of[block]])
            continue;
        taken[block] = true;
        map_block(layout, entries, block, false, main, spare);
    }
    for (std::uint64_t i = 0; i < o.bad_slots; i++)
        entries.add(layout, REMAP_ENTRY_BAD, 0);
    return entries;
}

remap_superblock make_superblock(const SetLayout& layout, const remap_head& head,
                                 std::uint64_t table_length) {
    const SetOptions& o = layout.options;
    remap_superblock sb{};

    sb.head = head;
    sb.head.block_shift = o.block_shift;
    sb.epoch = 1;
    sb.nr_members = 2;
    sb.nr_segments = 1;
    sb.live_copies = static_cast<std::uint8_t>((1U << o.nr_copies) - 1);
    sb.main_size = layout.main_sectors;
    sb.spare_size = o.spare_sectors;
    sb.table_length = table_length;
    std::copy(layout.sb_sector.begin(), layout.sb_sector.end(), sb.sb_sector);
    if (o.adopted) {
        sb.label_epoch = 1;
        sb.nr_hidden = 2;
        sb.hidden[0].start = 0;
        sb.hidden[0].count = hidden_each_end;
        sb.hidden[1].start = o.main_blocks - hidden_each_end;
        sb.hidden[1].count = hidden_each_end;
        sb.nr_labels = static_cast<std::uint8_t>(layout.label_sector.size());
        std::copy(layout.label_sector.begin(), layout.label_sector.end(), sb.label_sector);
    } else {
        sb.head.flags = REMAP_FLAG_BARE;
    }
    sb.segments[0].nr_copies = o.nr_copies;
    sb.segments[0].member = 1;
    std::copy(layout.table_start.begin(), layout.table_start.end(), sb.segments[0].table_start);
    sb.segments[0].nr_slots = o.nr_slots;
    sb.segments[0].data_start = layout.data_start;
    std::memcpy(sb.members[0].uuid, head.partner_uuid, REMAP_UUID_SIZE);
    sb.members[0].role = REMAP_ROLE_MAIN;
    sb.members[0].state = REMAP_MEMBER_IN_USE;
    std::memcpy(sb.members[1].uuid, head.member_uuid, REMAP_UUID_SIZE);
    sb.members[1].role = REMAP_ROLE_SPARE;
    sb.members[1].state = REMAP_MEMBER_IN_USE;
    return sb;
}

void write_superblocks(const SetLayout& layout, remap_superblock sb, Image& spare) {
    const std::uint32_t seed = seed_of(sb.head);

    for (std::uint8_t i = 0; i < REMAP_SB_COPIES; i++) {
        sb.head.copy = i;
        sb.head.position = layout.sb_sector[i];
        sb.head.crc = crc(seed, &sb, sizeof(sb), offsetof(remap_head, crc));
        write_sectors(spare, layout.sb_sector[i], &sb, sizeof(sb));
    }
}

void write_table(const SetLayout& layout, const remap_head& head, const Entries& entries,
                 std::uint64_t length, Image& spare) {
    for (std::uint8_t copy = 0; copy < layout.options.nr_copies; copy++) {
        for (std::uint64_t index = 0; index < length; index++) {
            remap_table_block tb{};
            std::memcpy(tb.magic, REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE);
            tb.copy = copy;
            tb.index = index;
            tb.generation = (std::uint64_t{1} << 32) + 1;
            tb.position = layout.table_start[copy] + index * REMAP_TABLE_BLOCK_SECTORS;
            for (std::size_t i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++) {
                tb.entries[i] = entries.slots[index * REMAP_ENTRIES_PER_BLOCK + i];
                if (tb.entries[i].lo != 0)
                    tb.in_use++;
            }
            tb.crc = crc(seed_of(head), &tb, sizeof(tb), offsetof(remap_table_block, crc));
            write_sectors(spare, tb.position, &tb, sizeof(tb));
        }
    }
}

void write_labels(const SetLayout& layout, const remap_superblock& sb, Image& main) {
    for (std::size_t i = 0; i < layout.label_sector.size(); i++) {
        remap_label label{};
        label.head = sb.head;
        label.head.role = REMAP_ROLE_MAIN;
        label.head.copy = static_cast<std::uint8_t>(i);
        label.head.position = layout.label_sector[i];
        std::memcpy(label.head.member_uuid, sb.head.partner_uuid, REMAP_UUID_SIZE);
        std::memcpy(label.head.partner_uuid, sb.head.member_uuid, REMAP_UUID_SIZE);
        label.epoch = sb.epoch;
        label.main_size = sb.main_size;
        label.head.crc = crc(seed_of(sb.head), &label, sizeof(label), offsetof(remap_head, crc));
        main.write(layout.label_sector[i], &label);
    }
}

/// The newest superblock whose checksum is right.
std::optional<remap_superblock> best_superblock(const SetLayout& layout, const Image& spare) {
    std::optional<remap_superblock> best;

    for (const std::uint64_t sector : layout.sb_sector) {
        remap_superblock sb;
        std::memcpy(&sb, spare.at(sector), sizeof(sb));
        if (std::memcmp(sb.head.magic, REMAP_MAGIC, REMAP_MAGIC_SIZE) != 0 ||
            sb.head.crc != crc(seed_of(sb.head), &sb, sizeof(sb), offsetof(remap_head, crc)))
            continue;
        if (!best || sb.head.generation > best->head.generation)
            best = sb;
    }
    return best;
}

std::optional<remap_table_block> table_block(const SetLayout& layout, const remap_superblock& sb,
                                             const Image& spare, unsigned int copy,
                                             std::uint64_t index) {
    remap_table_block tb;

    if ((sb.live_copies >> copy & 1) == 0)
        return std::nullopt;
    std::memcpy(&tb, spare.at(layout.table_start[copy] + index * REMAP_TABLE_BLOCK_SECTORS),
                sizeof(tb));
    if (tb.crc != crc(seed_of(sb.head), &tb, sizeof(tb), offsetof(remap_table_block, crc)))
        return std::nullopt;
    return tb;
}

/// Of all live copies but `except`.
std::optional<remap_table_block> best_table_block(const SetLayout& layout,
                                                  const remap_superblock& sb, const Image& spare,
                                                  std::uint64_t index, unsigned int except) {
    std::optional<remap_table_block> best;

    for (unsigned int copy = 0; copy < layout.options.nr_copies; copy++) {
        if (copy == except)
            continue;
        const std::optional<remap_table_block> tb = table_block(layout, sb, spare, copy, index);
        if (tb && (!best || tb->generation > best->generation))
            best = tb;
    }
    return best;
}

constexpr unsigned int no_copy = ~0U;

}  // namespace

std::uint64_t SetLayout::table_sectors() const {
    return table_blocks * REMAP_TABLE_BLOCK_SECTORS;
}

bool SetLayout::slot_reserved(std::uint64_t slot) const {
    const std::uint64_t start = slot_sector(slot);

    return std::any_of(sb_sector.begin(), sb_sector.end(), [&](std::uint64_t sector) {
        return start < sector + REMAP_SB_SECTORS && sector < start + block_sectors();
    });
}

bool SetLayout::hidden(std::uint64_t block) const {
    return options.adopted &&
           (block < hidden_each_end || block >= options.main_blocks - hidden_each_end);
}

std::optional<unsigned int> SetLayout::table_copy(std::uint64_t sector) const {
    for (unsigned int i = 0; i < table_start.size(); i++) {
        if (sector >= table_start[i] &&
            sector < table_start[i] + table_blocks * REMAP_TABLE_BLOCK_SECTORS)
            return i;
    }
    return std::nullopt;
}

std::optional<unsigned int> SetLayout::superblock_copy(std::uint64_t sector) const {
    for (unsigned int i = 0; i < sb_sector.size(); i++) {
        if (sector == sb_sector[i])
            return i;
    }
    return std::nullopt;
}

SetLayout plan_set(const SetOptions& options, Random& random) {
    SetLayout layout;
    const std::uint64_t size = options.spare_sectors;

    layout.options = options;
    layout.main_sectors = options.main_blocks * layout.block_sectors();
    layout.table_blocks =
        (options.nr_slots + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK;
    const std::uint64_t table_sectors = layout.table_blocks * REMAP_TABLE_BLOCK_SECTORS;
    for (unsigned int i = 0; i < REMAP_SB_COPIES; i++)
        layout.sb_sector.push_back(remap_sb_place(size, i));
    const unsigned int at_begin = (options.nr_copies + 1U) / 2;
    for (unsigned int i = 0; i < options.nr_copies; i++)
        layout.table_start.push_back(i < at_begin ? 16 + i * table_sectors
                                                  : size - REMAP_SB_SECTORS -
                                                        (i - at_begin + 1) * table_sectors);
    layout.data_start = 16 + at_begin * table_sectors;
    if (options.adopted)
        layout.label_sector = {0, std::uint64_t{2} * layout.block_sectors(),
                               layout.main_sectors - layout.block_sectors()};

    layout.window.block_sectors = layout.block_sectors();
    layout.window.index_of.assign(options.main_blocks, Window::no_index);
    for (std::uint64_t b = 0; b < options.main_blocks; b++) {
        const bool near = b >= window_middle - window_half && b < window_middle + window_half;
        if (!near && !(options.adopted && b < window_hidden))
            continue;
        layout.window.index_of[b] = static_cast<std::uint32_t>(layout.window.blocks.size());
        layout.window.blocks.push_back(b);
    }
    layout.lost.resize(layout.window.blocks.size());
    for (std::uint64_t i = 0; i < options.lost; i++) {
        const std::uint64_t at = random.below(layout.lost.size());
        if (!layout.hidden(layout.window.blocks[at]))
            layout.lost[at] = true;
    }
    return layout;
}

std::uint64_t nearly_full(const SetOptions& options, std::uint64_t free) {
    Random random(1);
    const SetLayout layout = plan_set(options, random);
    std::uint64_t taken = free + options.mapped + options.lost;

    for (std::uint64_t slot = 0; slot < REMAP_ENTRIES_PER_BLOCK; slot++)
        taken += layout.slot_reserved(slot) ? 1 : 0;
    for (std::uint64_t b = 0; b < options.main_blocks; b++)
        taken += layout.hidden(b) ? 1 : 0;
    return taken < REMAP_ENTRIES_PER_BLOCK ? REMAP_ENTRIES_PER_BLOCK - taken : 0;
}

void format_set(const SetLayout& layout, Random& random, Image& main, Image& spare) {
    const std::uint64_t slots_end =
        std::min(layout.slot_sector(layout.options.nr_slots), layout.options.spare_sectors);

    for (const std::uint64_t b : layout.window.blocks)
        write_block(layout, main, b * layout.block_sectors(), b, first_version);
    // Slots hold what some block of the window once was: the worst that could be read.
    for (std::uint64_t s = layout.data_start; s + layout.block_sectors() <= slots_end;
         s += layout.block_sectors())
        write_block(layout, spare, s, random.pick(layout.window.blocks), foreign_version);

    const remap_head head = make_head(random);
    const Entries entries = make_entries(layout, random, main, spare);
    const std::uint64_t length =
        std::min(entries.next / REMAP_ENTRIES_PER_BLOCK + 1, layout.table_blocks);
    const remap_superblock sb = make_superblock(layout, head, length);
    write_table(layout, head, entries, length, spare);
    write_superblocks(layout, sb, spare);
    write_labels(layout, sb, main);
    main.forget_undo();
    spare.forget_undo();
}

std::optional<unsigned int> old_table_copy(const SetLayout& layout, const Image& spare) {
    const std::optional<remap_superblock> sb = best_superblock(layout, spare);

    for (unsigned int copy = 0; sb && copy < layout.options.nr_copies; copy++) {
        bool old = (sb->live_copies >> copy & 1) != 0;
        for (std::uint64_t index = 0; old && index < sb->table_length; index++) {
            const auto own = table_block(layout, *sb, spare, copy, index);
            const auto rest = best_table_block(layout, *sb, spare, index, copy);
            old = rest && (!own || own->generation <= rest->generation);
        }
        if (old)
            return copy;
    }
    return std::nullopt;
}

std::optional<std::map<std::uint64_t, std::vector<std::uint64_t>>> live_entries(
    const SetLayout& layout, const Image& spare) {
    const std::optional<remap_superblock> sb = best_superblock(layout, spare);
    std::map<std::uint64_t, std::vector<std::uint64_t>> result;

    if (!sb)
        return std::nullopt;
    for (std::uint64_t index = 0; index < sb->table_length; index++) {
        const std::optional<remap_table_block> tb =
            best_table_block(layout, *sb, spare, index, no_copy);
        if (!tb)
            return std::nullopt;
        for (std::size_t i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++) {
            const auto state = tb->entries[i].lo >> REMAP_ENTRY_STATE_SHIFT & 0xff;
            if (state == REMAP_ENTRY_MAPPED || state == REMAP_ENTRY_LOST)
                result[tb->entries[i].lo & REMAP_ENTRY_BLOCK_MASK].push_back(
                    index * REMAP_ENTRIES_PER_BLOCK + i);
        }
    }
    return result;
}

}  // namespace model
