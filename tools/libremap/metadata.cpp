// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/metadata.hpp"

#include <endian.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <tuple>

#include "libremap/duplicates.hpp"
#include "libremap/error.hpp"
#include "libremap/large_memory.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint64_t chunk_blocks = 64;
constexpr std::uint64_t smallest_device = 16;  // sectors
constexpr std::size_t table_body_offset = offsetof(remap_table_block, entries);

using GroupKey = std::tuple<Uuid, std::uint64_t, Uuid>;

GroupKey group_of(const Superblock& sb) {
    return {sb.head.set_uuid, sb.head.nonce, sb.head.member_uuid};
}

SuperblockCopy read_superblock_copy(BlockIo& spare, std::uint64_t sector, unsigned int copy) {
    SuperblockCopy found;

    found.sector = sector;
    found.copy = copy;
    if (sector > spare.size() || spare.size() - sector < REMAP_SB_SECTORS) {
        found.problem = {"place", cat("below sector ", spare.size()), cat("sector ", sector)};
        return found;
    }
    found.error = spare.try_read(sector, found.bytes);
    if (found.error) {
        found.verdict = Verdict::unreadable;
        found.problem = {"read", "4096 bytes", std::strerror(found.error)};
        return found;
    }
    auto decoded = decode_superblock(found.bytes, sector);
    found.verdict = decoded.verdict;
    found.problem = decoded.problem;
    if (decoded.valid() || decoded.verdict == Verdict::misplaced)
        found.value = std::move(decoded.value);
    return found;
}

/// Reads the computed places, and then those that valid copies name, until there are no new ones.
std::vector<SuperblockCopy> collect_copies(BlockIo& spare) {
    constexpr std::size_t most_places = 64;
    std::vector<SuperblockCopy> copies;
    const auto visit = [&](std::uint64_t sector, unsigned int copy) {
        const bool known = std::any_of(copies.begin(), copies.end(),
                                       [sector](const auto& c) { return c.sector == sector; });
        if (!known && copies.size() < most_places)
            copies.push_back(read_superblock_copy(spare, sector, copy));
    };

    if (spare.size() >= smallest_device) {
        for (unsigned int i = 0; i < REMAP_SB_COPIES; i++)
            visit(remap_sb_place(spare.size(), i), i);
    }
    for (std::size_t i = 0; i < copies.size(); i++) {
        if (!copies[i].value)
            continue;
        const auto places = copies[i].value->sb_sector;
        for (unsigned int c = 0; c < REMAP_SB_COPIES; c++)
            visit(places[c], c);
    }
    return copies;
}

/// The bytes without what differs between the copies of one superblock.
SuperblockBytes common_bytes(const SuperblockCopy& copy) {
    SuperblockBytes bytes = copy.bytes;
    relocate_superblock(bytes, 0, 0);
    return bytes;
}

/// Several copies say that they are of a newer format, whose checksum this program need not know.
bool looks_newer(const std::vector<SuperblockCopy>& copies) {
    std::map<std::uint32_t, int> versions;

    for (const SuperblockCopy& copy : copies) {
        remap_head head;
        std::memcpy(&head, copy.bytes.data(), sizeof(head));
        if (copy.verdict == Verdict::bad_crc)
            versions[head.version]++;
    }
    return std::any_of(versions.begin(), versions.end(), [](const auto& v) {
        return v.first != REMAP_VERSION && v.first > REMAP_VERSION && v.second >= 2;
    });
}

/// Copies of a group that lie where their superblock says.
struct Group {
    std::vector<std::size_t> members;
    std::uint64_t highest = 0;
    std::size_t newest = 0;
};

std::map<GroupKey, Group> group_copies(const std::vector<SuperblockCopy>& copies) {
    std::map<GroupKey, Group> groups;

    for (std::size_t i = 0; i < copies.size(); i++) {
        if (copies[i].verdict != Verdict::current)
            continue;
        Group& group = groups[group_of(*copies[i].value)];
        const std::uint64_t generation = copies[i].value->head.generation;
        if (group.members.empty() || generation > group.highest) {
            group.highest = generation;
            group.newest = i;
        }
        group.members.push_back(i);
    }
    return groups;
}

/// Gives every member of the group its verdict; true if two of the newest differ.
bool judge_group(std::vector<SuperblockCopy>& copies, const Group& group) {
    const SuperblockBytes wanted = common_bytes(copies[group.newest]);
    bool conflict = false;

    for (const std::size_t i : group.members) {
        if (copies[i].value->head.generation < group.highest) {
            copies[i].verdict = Verdict::stale;
            copies[i].problem = {"generation", cat(group.highest),
                                 cat(copies[i].value->head.generation)};
        } else if (common_bytes(copies[i]) != wanted) {
            copies[i].verdict = Verdict::conflict;
            copies[i].problem = {"content",
                                 cat("that of the copy at sector ", copies[group.newest].sector),
                                 "another one, as new"};
            conflict = true;
        }
    }
    if (conflict)
        copies[group.newest].verdict = Verdict::conflict;
    return conflict;
}

/// The winner's recorded places by number, then whatever else was found.
void order_copies(SuperblockScan& scan, const Superblock& winner) {
    std::vector<SuperblockCopy> ordered;
    const std::uint64_t winner_sector =
        scan.copies[static_cast<std::size_t>(scan.winner_index)].sector;

    for (unsigned int c = 0; c < REMAP_SB_COPIES; c++) {
        for (SuperblockCopy& copy : scan.copies) {
            if (copy.sector == winner.sb_sector[c] && !copy.recorded) {
                copy.recorded = true;
                copy.copy = c;
                ordered.push_back(copy);
            }
        }
    }
    for (SuperblockCopy& copy : scan.copies) {
        if (!copy.recorded && copy.verdict != Verdict::absent &&
            copy.verdict != Verdict::unreadable)
            ordered.push_back(copy);
    }
    scan.copies = std::move(ordered);
    for (std::size_t i = 0; i < scan.copies.size(); i++) {
        if (scan.copies[i].sector == winner_sector)
            scan.winner_index = static_cast<int>(i);
    }
}

/// The highest generation that a copy with a bad checksum names, if it can be of this life of the
/// set. It must not be used again: a copy that is torn twice, between two superblocks of one
/// generation, could become whole.
std::uint64_t highest_torn_generation(const std::vector<SuperblockCopy>& copies,
                                      std::uint32_t epoch) {
    std::uint64_t highest = 0;

    for (const SuperblockCopy& copy : copies) {
        if (copy.verdict != Verdict::bad_crc)
            continue;
        remap_head head;
        std::memcpy(&head, copy.bytes.data(), sizeof(head));
        const std::uint64_t generation = le64toh(head.generation);
        if (generation >> 32 <= epoch + 1ULL && (generation & 0xffffffffU) <= 0x7fffffffU)
            highest = std::max(highest, generation);
    }
    return highest;
}

/// Is what is not current no more than what an interrupted update leaves?
bool update_interrupted(const SuperblockScan& scan, const Superblock& winner) {
    std::uint64_t older = 0;

    for (const SuperblockCopy& copy : scan.copies) {
        if (!copy.recorded)
            continue;
        if (copy.verdict == Verdict::current) {
            if (older != 0)
                return false;
            continue;
        }
        if (copy.verdict != Verdict::stale || copy.value->epoch + 1 < winner.epoch)
            return false;
        if (older != 0 && copy.value->head.generation != older)
            return false;
        older = copy.value->head.generation;
    }
    return older != 0;
}

void choose_winner(SuperblockScan& scan) {
    const auto groups = group_copies(scan.copies);
    const Group* chosen = nullptr;

    for (const auto& [key, group] : groups) {
        const bool conflict = judge_group(scan.copies, group);
        scan.highest_generation = std::max(scan.highest_generation, group.highest);
        if (groups.size() == 1) {
            scan.conflict = conflict;
            chosen = conflict ? nullptr : &group;
        } else if (group.members.size() >= REMAP_SB_QUORUM && !conflict) {
            chosen = &group;
        }
    }
    scan.ambiguous = groups.size() > 1;
    if (!chosen)
        return;
    const Superblock newest = *scan.copies[chosen->newest].value;
    scan.highest_generation =
        std::max(scan.highest_generation, highest_torn_generation(scan.copies, newest.epoch));
    scan.winner_index = static_cast<int>(chosen->newest);
    if (scan.ambiguous) {
        for (SuperblockCopy& copy : scan.copies) {
            if (!copy.value || group_of(*copy.value) == group_of(newest))
                continue;
            copy.verdict = Verdict::foreign;
            copy.problem = {"set and nonce", cat(newest.head.set_uuid, " ", newest.head.nonce),
                            cat(copy.value->head.set_uuid, " ", copy.value->head.nonce)};
        }
        scan.majority = newest;
    } else if (!scan.newer_version) {
        scan.winner = newest;
    }
    order_copies(scan, newest);
    if (scan.winner)
        scan.interrupted = update_interrupted(scan, newest);
}

}  // namespace

unsigned int SuperblockScan::count(Verdict verdict) const {
    return static_cast<unsigned int>(
        std::count_if(copies.begin(), copies.end(), [verdict](const SuperblockCopy& copy) {
            return copy.recorded && copy.verdict == verdict;
        }));
}

SuperblockScan scan_superblocks(BlockIo& spare) {
    SuperblockScan scan;

    scan.device_size = spare.size();
    scan.copies = collect_copies(spare);
    for (const SuperblockCopy& copy : scan.copies) {
        scan.newer_version |= copy.verdict == Verdict::newer_version;
        scan.unreadable |= copy.verdict == Verdict::unreadable;
    }
    choose_winner(scan);
    if (!scan.winner && !scan.majority && !scan.conflict && looks_newer(scan.copies))
        scan.newer_version = true;
    return scan;
}

std::string explain(const SuperblockScan& scan) {
    unsigned int damaged = 0;
    unsigned int labels = 0;

    for (const SuperblockCopy& copy : scan.copies) {
        damaged += copy.verdict == Verdict::bad_crc || copy.verdict == Verdict::implausible ||
                   copy.verdict == Verdict::misplaced;
        labels += copy.verdict == Verdict::wrong_role;
    }
    if (scan.winner)
        return "a superblock";
    if (scan.newer_version)
        return "a superblock of a newer format, which this program does not know";
    if (scan.ambiguous)
        return "valid superblocks of two different sets, or of one set before and after it was "
               "formatted anew";
    if (scan.conflict)
        return "superblock copies that differ but are equally new";
    if (labels > 0)
        return "the label of a main, not the superblock of a spare";
    if (damaged > 0)
        return cat("no valid superblock: ", damaged, " damaged copies");
    if (scan.unreadable)
        return "no superblock: places where copies belong cannot be read";
    return "no superblock";
}

Superblock load_superblock(BlockIo& spare) {
    SuperblockScan scan = scan_superblocks(spare);

    if (scan.winner)
        return *scan.winner;
    const bool unknown = !scan.newer_version && !scan.unreadable;
    throw Error(unknown ? Exit::unrecognised : Exit::operational,
                cat(spare.name(), ": expected the superblock of a spare, found ", explain(scan)));
}

std::optional<FieldProblem> check_geometry(const Superblock& sb, std::uint64_t size) {
    if (size >= sb.spare_size / REMAP_SB_SECTORS * REMAP_SB_SECTORS)
        return std::nullopt;
    return FieldProblem{"size of the device", cat("at least ", sb.spare_size, " sectors"),
                        cat(size, " sectors")};
}

namespace {

/// The blocks of one copy in one chunk.
struct CopyChunk {
    unsigned int copy;
    bool dead;
    AlignedBuffer buffer;
    std::array<int, chunk_blocks> errors{};

    ConstBytes block(std::uint64_t i) const {
        return buffer.bytes().subspan(i * REMAP_TABLE_BLOCK_SIZE, REMAP_TABLE_BLOCK_SIZE);
    }
};

/// Reads a chunk at once, and block by block if that fails.
void read_chunk(BlockIo& spare, const Superblock& sb, std::uint64_t first, std::uint64_t count,
                CopyChunk& chunk) {
    const Bytes bytes = chunk.buffer.bytes().first(count * REMAP_TABLE_BLOCK_SIZE);

    chunk.errors.fill(0);
    if (spare.try_read(sb.table_sector(first, chunk.copy), bytes) == 0)
        return;
    for (std::uint64_t i = 0; i < count; i++)
        chunk.errors[i] =
            spare.try_read(sb.table_sector(first + i, chunk.copy),
                           bytes.subspan(i * REMAP_TABLE_BLOCK_SIZE, REMAP_TABLE_BLOCK_SIZE));
}

TableCopy judge_copy(const Superblock& sb, std::uint32_t seed, std::uint64_t index,
                     const CopyChunk& chunk, std::uint64_t in_chunk, bool was_read) {
    TableCopy copy;

    copy.copy = chunk.copy;
    copy.sector = sb.table_sector(index, chunk.copy);
    copy.error = chunk.errors[in_chunk];
    if (!was_read) {
        copy.verdict = Verdict::dead;
        return copy;
    }
    if (copy.error) {
        copy.verdict = Verdict::unreadable;
        copy.problem = {"read", "4096 bytes", std::strerror(copy.error)};
    } else {
        copy.bytes = chunk.block(in_chunk);
        const auto decoded = decode_table_header(copy.bytes, seed, index, copy.copy, copy.sector);
        copy.verdict = decoded.verdict;
        copy.header = decoded.value;
        copy.problem = decoded.problem;
    }
    if (chunk.dead) {
        if (copy.verdict != Verdict::current)
            copy.problem.field =
                cat("dead, and ", verdict_name(copy.verdict), ": ", copy.problem.field);
        copy.verdict = Verdict::dead;
    }
    return copy;
}

bool same_content(const TableCopy& a, const TableCopy& b) {
    return a.header.in_use == b.header.in_use &&
           std::memcmp(a.bytes.data() + table_body_offset, b.bytes.data() + table_body_offset,
                       REMAP_TABLE_BLOCK_SIZE - table_body_offset) == 0;
}

/// Chooses among the valid live copies and gives the others their verdicts.
void choose_copy(std::vector<TableCopy>& copies, TableBlockView& view) {
    view.winner = -1;
    view.conflict = false;
    for (std::size_t i = 0; i < copies.size(); i++) {
        const auto best = static_cast<std::size_t>(view.winner);
        if (copies[i].verdict == Verdict::current &&
            (view.winner < 0 || copies[i].header.generation > copies[best].header.generation))
            view.winner = static_cast<int>(i);
    }
    if (view.winner < 0)
        return;
    const TableCopy& best = copies[static_cast<std::size_t>(view.winner)];
    for (TableCopy& copy : copies) {
        if (copy.verdict != Verdict::current || &copy == &best)
            continue;
        if (copy.header.generation < best.header.generation) {
            copy.verdict = Verdict::stale;
            copy.problem = {"generation", cat(best.header.generation), cat(copy.header.generation)};
        } else if (!same_content(copy, best)) {
            copy.verdict = Verdict::conflict;
            copy.problem = {"content", cat("that of copy ", best.copy), "another one, as new"};
            view.conflict = true;
        }
    }
    if (view.conflict) {
        copies[static_cast<std::size_t>(view.winner)].verdict = Verdict::conflict;
        view.winner = -1;
    }
}

}  // namespace

void visit_table(BlockIo& spare, const Superblock& sb, std::uint64_t first, std::uint64_t end,
                 bool read_dead, const std::function<void(const TableBlockView&)>& visit) {
    const std::uint32_t seed = sb.seed();
    std::vector<CopyChunk> chunks;
    std::vector<TableCopy> copies;

    if (first >= end)
        return;
    for (unsigned int c = 0; c < sb.segment().nr_copies; c++)
        chunks.push_back(
            {c, (sb.live_copies & (1U << c)) == 0,
             AlignedBuffer(std::min(chunk_blocks, end - first) * REMAP_TABLE_BLOCK_SIZE)});
    for (std::uint64_t at = first; at < end; at += chunk_blocks) {
        const std::uint64_t count = std::min(chunk_blocks, end - at);
        for (CopyChunk& chunk : chunks) {
            if (!chunk.dead || read_dead)
                read_chunk(spare, sb, at, count, chunk);
        }
        for (std::uint64_t i = 0; i < count; i++) {
            TableBlockView view;
            copies.clear();
            for (const CopyChunk& chunk : chunks)
                copies.push_back(judge_copy(sb, seed, at + i, chunk, i, !chunk.dead || read_dead));
            choose_copy(copies, view);
            view.index = at + i;
            view.copies = copies;
            visit(view);
        }
    }
}

bool Table::is_lost(std::uint64_t index) const {
    return std::binary_search(lost.begin(), lost.end(), index);
}

namespace {

void note_problems(Table& table, const TableBlockView& view) {
    for (const TableCopy& copy : view.copies) {
        if (copy.verdict == Verdict::current || copy.verdict == Verdict::dead)
            continue;
        table.problems.push_back({view.index, copy.copy, copy.sector, copy.verdict, copy.problem,
                                  copy.error, copy.header.generation});
    }
}

/// Blocks come in order.
void take_block(Table& table, const TableBlockView& view) {
    std::array<Entry, REMAP_ENTRIES_PER_BLOCK> to;
    const TableCopy& from = view.copies[static_cast<std::size_t>(view.winner)];

    table_entries(from.bytes, to);
    table.entries.insert(table.entries.end(), to.begin(), to.end());
    table.generations[view.index] = from.header.generation;
    table.highest_generation = std::max(table.highest_generation, from.header.generation);
    const auto used =
        std::count_if(to.begin(), to.end(), [](const Entry& e) { return !e.is_free(); });
    if (used != from.header.in_use)
        table.miscounted.push_back(view.index);
}

}  // namespace

Table load_table(BlockIo& spare, const Superblock& sb,
                 const std::function<void(std::uint64_t, std::uint64_t)>& progress,
                 const std::function<void(std::uint64_t, std::span<const Entry>)>& block) {
    Table table;

    table.entries.reserve(sb.table_length * REMAP_ENTRIES_PER_BLOCK);
    expect_large(table.entries.data(), table.entries.capacity() * sizeof(Entry));
    table.generations.resize(sb.table_length);
    visit_table(spare, sb, 0, sb.table_length, false, [&](const TableBlockView& view) {
        if (progress && (view.index + 1) % chunk_blocks == 0)
            progress(view.index + 1, sb.table_length);
        note_problems(table, view);
        if (view.winner >= 0) {
            take_block(table, view);
            if (block)
                block(view.index, std::span(table.entries).last(REMAP_ENTRIES_PER_BLOCK));
            return;
        }
        table.entries.resize((view.index + 1) * REMAP_ENTRIES_PER_BLOCK);
        table.lost.push_back(view.index);
        if (view.conflict)
            table.conflicts.push_back(view.index);
    });
    return table;
}

Table load_intact_table(BlockIo& spare, const Superblock& sb) {
    Table table = load_table(spare, sb);

    if (!table.lost.empty())
        throw mismatch(Exit::unrecognised, spare.name(), sb.table_sector(table.lost.front(), 0),
                       cat("table block ", table.lost.front()), "a valid copy", "none");
    if (!table.miscounted.empty())
        throw mismatch(Exit::unrecognised, spare.name(),
                       sb.table_sector(table.miscounted.front(), 0),
                       cat("table block ", table.miscounted.front()), "a right count of entries",
                       "a wrong one");
    for (std::uint64_t slot = 0; slot < table.entries.size(); slot++) {
        if (const auto bad = check_entry(sb, slot, table.entries[slot]))
            throw mismatch(Exit::unrecognised, spare.name(),
                           sb.table_sector(slot / REMAP_ENTRIES_PER_BLOCK, 0),
                           cat("slot ", slot, ": ", bad->field), bad->expected, bad->found);
    }
    return table;
}

std::vector<Duplicate> find_duplicates(const Table& table) {
    DuplicateFinder finder(table.entries.size());

    finder.add(table.entries);
    return finder.find(table);
}

std::vector<Mapping> live_mappings(const Table& table) {
    std::vector<Mapping> mappings;
    const std::vector<Duplicate> duplicates = find_duplicates(table);
    const auto duplicate_of = [&duplicates](std::uint64_t block) -> const Duplicate* {
        const auto it = std::lower_bound(
            duplicates.begin(), duplicates.end(), block,
            [](const Duplicate& d, std::uint64_t value) { return d.block < value; });
        return it != duplicates.end() && it->block == block ? &*it : nullptr;
    };

    for (std::uint64_t slot = 0; slot < table.entries.size(); slot++) {
        const Entry& entry = table.entries[slot];
        if (!entry.is_live())
            continue;
        const Duplicate* duplicate = duplicate_of(entry.block());
        if (duplicate && slot != duplicate->winner.value_or(duplicate->slots.front()))
            continue;
        mappings.push_back({entry.block(), slot, entry, duplicate && !duplicate->winner});
    }
    std::sort(mappings.begin(), mappings.end(),
              [](const Mapping& a, const Mapping& b) { return a.block < b.block; });
    return mappings;
}

bool slot_allocatable(const Superblock& sb, const Table& table, std::uint64_t slot) {
    return slot < sb.segment().nr_slots && slot < table.entries.size() &&
           table.entries[slot] == Entry{} && !table.is_lost(slot / REMAP_ENTRIES_PER_BLOCK) &&
           !sb.slot_reserved(slot);
}

std::uint64_t next_generation(std::uint32_t epoch, std::uint64_t highest_seen) {
    return std::max(static_cast<std::uint64_t>(epoch) << 32, highest_seen + 1);
}

void write_superblock_copy(BlockIo& spare, const Superblock& sb, unsigned int copy) {
    spare.write(sb.sb_sector.at(copy), encode_superblock(sb, copy));
    spare.flush();
}

unsigned int write_superblock(BlockIo& spare, const Superblock& sb) {
    unsigned int written = 0;
    std::optional<Error> last;

    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++) {
        try {
            write_superblock_copy(spare, sb, copy);
            written++;
        } catch (const Error& error) {
            last = error;
        }
    }
    if (written < REMAP_SB_QUORUM)
        throw Error(Exit::operational,
                    cat(spare.name(), ": superblock written to ", written,
                        " places, expected at least ", REMAP_SB_QUORUM, ": ", last->what()));
    return written;
}

TableBlockBytes table_block_bytes(const Superblock& sb, unsigned int copy, std::uint64_t index,
                                  std::uint64_t generation, std::span<const Entry> entries) {
    TableHeader header;

    header.copy = static_cast<std::uint8_t>(copy);
    header.index = index;
    header.generation = generation;
    header.position = sb.table_sector(index, copy);
    return encode_table_block(sb.seed(), header, entries);
}

namespace {

bool is_live(const Superblock& sb, unsigned int copy) {
    return (sb.live_copies & (1U << copy)) != 0;
}

}  // namespace

void write_table_copy(BlockIo& spare, const Superblock& sb, unsigned int copy, std::uint64_t index,
                      std::uint64_t generation, std::span<const Entry> entries) {
    spare.write(sb.table_sector(index, copy),
                table_block_bytes(sb, copy, index, generation, entries));
    spare.flush();
}

void write_table_block(BlockIo& spare, const Superblock& sb, std::uint64_t index,
                       std::uint64_t generation, std::span<const Entry> entries) {
    for (unsigned int copy = 0; copy < sb.segment().nr_copies; copy++) {
        if (is_live(sb, copy))
            write_table_copy(spare, sb, copy, index, generation, entries);
    }
}

void write_table(BlockIo& spare, const Superblock& sb, std::uint64_t generation,
                 std::span<const Entry> table) {
    AlignedBuffer buffer(chunk_blocks * REMAP_TABLE_BLOCK_SIZE);
    const std::uint64_t blocks =
        (table.size() + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK;

    for (unsigned int copy = 0; copy < sb.segment().nr_copies; copy++) {
        if (!is_live(sb, copy))
            continue;
        for (std::uint64_t at = 0; at < blocks; at += chunk_blocks) {
            const std::uint64_t count = std::min(chunk_blocks, blocks - at);
            for (std::uint64_t i = 0; i < count; i++) {
                const auto rest = table.subspan((at + i) * REMAP_ENTRIES_PER_BLOCK);
                const auto now =
                    rest.first(std::min<std::size_t>(rest.size(), REMAP_ENTRIES_PER_BLOCK));
                const auto bytes = table_block_bytes(sb, copy, at + i, generation, now);
                std::copy(bytes.begin(), bytes.end(),
                          buffer.bytes().subspan(i * REMAP_TABLE_BLOCK_SIZE).begin());
            }
            spare.write(sb.table_sector(at, copy),
                        buffer.bytes().first(count * REMAP_TABLE_BLOCK_SIZE));
        }
        spare.flush();
    }
}

void wipe_superblocks(BlockIo& spare) {
    const SuperblockBytes zero{};

    for (const SuperblockCopy& copy : collect_copies(spare)) {
        if (copy.sector > spare.size() || spare.size() - copy.sector < REMAP_SB_SECTORS)
            continue;
        const int error = spare.try_write(copy.sector, zero);
        if (error && copy.value)
            throw IoError(spare.name(), "write", copy.sector, REMAP_SB_SECTORS, error);
    }
    spare.flush();
}

}  // namespace remap
