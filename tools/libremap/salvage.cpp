// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/salvage.hpp"

#include <endian.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "libremap/crc.hpp"

namespace remap {
namespace {

constexpr std::size_t block_bytes = REMAP_TABLE_BLOCK_SIZE;
constexpr std::size_t block_sectors = block_bytes / sector_size;
static_assert(REMAP_SB_SIZE == block_bytes);

constexpr std::size_t most_combinations = std::size_t{1} << 24;

/// 4 KiB of one copy as far as they can be read.
struct Donor {
    unsigned int copy = 0;
    std::array<std::uint8_t, block_bytes> bytes{};
    std::array<bool, block_sectors> readable{};

    bool has(std::size_t offset, std::size_t size) const {
        for (std::size_t s = offset / sector_size; s * sector_size < offset + size; s++) {
            if (!readable.at(s))
                return false;
        }
        return true;
    }
    ConstBytes part(std::size_t offset, std::size_t size) const {
        return ConstBytes(bytes).subspan(offset, size);
    }
};

/// Reads what can be read, in the smallest units that the device has.
Donor read_donor(BlockIo& io, std::uint64_t sector, unsigned int copy) {
    Donor donor;

    donor.copy = copy;
    if (io.try_read(sector, donor.bytes) == 0) {
        donor.readable.fill(true);
        return donor;
    }
    const std::size_t unit = std::min<std::size_t>(io.logical_block_size(), block_bytes);
    for (std::size_t at = 0; at < block_bytes; at += unit) {
        const Bytes part = Bytes(donor.bytes).subspan(at, unit);
        const bool good = io.try_read(sector + at / sector_size, part) == 0;
        for (std::size_t s = at / sector_size; s < (at + unit) / sector_size; s++)
            donor.readable.at(s) = good;
    }
    return donor;
}

/// A possible beginning of the structure, its crc field zero, and the checksum that it asks for.
struct HeadChoice {
    std::vector<std::uint8_t> bytes;
    std::uint32_t seed = 0;
    std::uint32_t crc = 0;

    friend auto operator<=>(const HeadChoice&, const HeadChoice&) = default;
};

/// One piece of the structure behind the head, and the different contents that the donors have.
struct Piece {
    std::size_t offset = 0;
    std::size_t size = 0;
    std::vector<ConstBytes> choices;
    std::vector<std::uint32_t> contributions;
};

/// The rest of the head's sector, then sector by sector.
std::vector<Piece> pieces_of(const std::vector<Donor>& donors, std::size_t head_size) {
    std::vector<Piece> pieces;

    for (std::size_t s = 0; s < block_sectors; s++) {
        const std::size_t offset = s == 0 ? head_size : s * sector_size;
        Piece piece{offset, (s + 1) * sector_size - offset, {}, {}};
        for (const Donor& donor : donors) {
            const ConstBytes part = donor.part(offset, piece.size);
            const bool known = std::any_of(
                piece.choices.begin(), piece.choices.end(),
                [&part](ConstBytes c) { return std::equal(c.begin(), c.end(), part.begin()); });
            if (known || !donor.has(offset, piece.size))
                continue;
            piece.choices.push_back(part);
            piece.contributions.push_back(
                crc_contribution(part, block_bytes - offset - piece.size));
        }
        pieces.push_back(std::move(piece));
    }
    return pieces;
}

std::size_t combinations(const std::vector<Piece>& pieces) {
    std::size_t count = 1;

    for (const Piece& piece : pieces)
        count *= piece.choices.size();
    return count;
}

using Block = std::array<std::uint8_t, block_bytes>;

/// Calls `take` with every combination whose checksum is right, the crc field filled in.
void combine(const std::set<HeadChoice>& heads, std::size_t crc_offset,
             const std::vector<Piece>& pieces, const std::function<void(const Block&)>& take) {
    if (combinations(pieces) * heads.size() > most_combinations)
        return;
    for (const HeadChoice& head : heads) {
        const std::uint32_t wanted = ~head.crc ^ crc_shift(~head.seed, block_bytes) ^
                                     crc_contribution(head.bytes, block_bytes - head.bytes.size());
        std::vector<std::size_t> chosen;
        const std::function<void(std::uint32_t)> next = [&](std::uint32_t rest) {
            if (chosen.size() < pieces.size()) {
                const Piece& piece = pieces[chosen.size()];
                for (std::size_t c = 0; c < piece.choices.size(); c++) {
                    chosen.push_back(c);
                    next(rest ^ piece.contributions[c]);
                    chosen.pop_back();
                }
                return;
            }
            if (rest != 0)
                return;
            Block block{};
            const std::uint32_t crc = htole32(head.crc);
            std::copy(head.bytes.begin(), head.bytes.end(), block.begin());
            std::memcpy(block.data() + crc_offset, &crc, sizeof(crc));
            for (std::size_t p = 0; p < pieces.size(); p++)
                std::copy(pieces[p].choices[chosen[p]].begin(), pieces[p].choices[chosen[p]].end(),
                          block.begin() + static_cast<std::ptrdiff_t>(pieces[p].offset));
            take(block);
        };
        next(wanted);
    }
}

template <typename Raw>
Raw raw_from(ConstBytes bytes) {
    Raw raw;
    std::memcpy(&raw, bytes.data(), sizeof(raw));
    return raw;
}

template <typename Raw>
std::vector<std::uint8_t> bytes_of(const Raw& raw, std::size_t size) {
    std::vector<std::uint8_t> bytes(size);
    std::memcpy(bytes.data(), &raw, size);
    return bytes;
}

// --- table blocks -----------------------------------------------------------------------------

/// The header of a block: its checksum from one copy, generation and count from one, perhaps
/// another, everything else as it must be.
std::set<HeadChoice> table_heads(const Superblock& sb, std::uint64_t index,
                                 const std::vector<Donor>& donors) {
    std::set<HeadChoice> heads;
    const auto usable = [&sb](const Donor& donor) {
        return (sb.live_copies & (1U << donor.copy)) != 0 && donor.has(0, REMAP_TABLE_HEADER_SIZE);
    };

    for (const Donor& crc_from : donors) {
        for (const Donor& rest_from : donors) {
            if (!usable(crc_from) || !usable(rest_from))
                continue;
            const auto crc = raw_from<remap_table_block>(crc_from.bytes);
            const auto rest = raw_from<remap_table_block>(rest_from.bytes);
            remap_table_block raw{};
            std::memcpy(raw.magic, REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE);
            raw.index = htole64(index);
            raw.in_use = rest.in_use;
            raw.generation = rest.generation;
            // A checksum is that of the copy it was made for, which after a misdirected write is
            // not the one that it lies in.
            for (const unsigned int copy : {crc_from.copy, unsigned{crc.copy}}) {
                if (copy >= sb.segment().nr_copies)
                    continue;
                raw.copy = static_cast<std::uint8_t>(copy);
                raw.position = htole64(sb.table_sector(index, copy));
                heads.insert({bytes_of(raw, REMAP_TABLE_HEADER_SIZE), sb.seed(), le32toh(crc.crc)});
            }
        }
    }
    return heads;
}

/// The entries of a block whose checksum is right, if they are possible too.
std::optional<RecombinedBlock> accept(const Superblock& sb, std::uint64_t index,
                                      const Block& block) {
    const auto raw = raw_from<remap_table_block>(block);
    RecombinedBlock result;
    unsigned int in_use = 0;

    result.index = index;
    result.generation = le64toh(raw.generation);
    result.entries.resize(REMAP_ENTRIES_PER_BLOCK);
    table_entries(block, std::span<Entry, REMAP_ENTRIES_PER_BLOCK>(result.entries));
    for (std::size_t i = 0; i < result.entries.size(); i++) {
        in_use += !result.entries[i].is_free();
        if (check_entry(sb, index * REMAP_ENTRIES_PER_BLOCK + i, result.entries[i]))
            return std::nullopt;
    }
    if (in_use != le16toh(raw.in_use))
        return std::nullopt;
    return result;
}

std::vector<Donor> table_donors(BlockIo& spare, const Superblock& sb, std::uint64_t index) {
    std::vector<Donor> donors;

    for (unsigned int copy = 0; copy < sb.segment().nr_copies; copy++)
        donors.push_back(read_donor(spare, sb.table_sector(index, copy), copy));
    return donors;
}

// --- superblocks ------------------------------------------------------------------------------

std::set<HeadChoice> superblock_heads(const SuperblockScan& scan,
                                      const std::vector<Donor>& donors) {
    std::set<HeadChoice> heads;

    for (const Donor& crc_from : donors) {
        for (const Donor& rest_from : donors) {
            if (!crc_from.has(0, sizeof(remap_head)) || !rest_from.has(0, sizeof(remap_head)))
                continue;
            auto raw = raw_from<remap_head>(rest_from.bytes);
            const std::uint32_t crc = le32toh(raw_from<remap_head>(crc_from.bytes).crc);
            std::memcpy(raw.magic, REMAP_MAGIC, REMAP_MAGIC_SIZE);
            raw.crc = 0;
            raw.version = htole32(REMAP_VERSION);
            raw.role = REMAP_ROLE_SPARE;
            raw.copy = static_cast<std::uint8_t>(crc_from.copy);
            raw.position = htole64(scan.copies[crc_from.copy].sector);
            Uuid set;
            std::memcpy(set.bytes.data(), raw.set_uuid, sizeof(raw.set_uuid));
            heads.insert({bytes_of(raw, sizeof(raw)), crc_seed(set, le64toh(raw.nonce)), crc});
        }
    }
    return heads;
}

}  // namespace

std::optional<RecombinedBlock> recombine_table_block(BlockIo& spare, const Superblock& sb,
                                                     std::uint64_t index) {
    const std::vector<Donor> donors = table_donors(spare, sb, index);
    std::optional<RecombinedBlock> best;
    bool ambiguous = false;

    combine(table_heads(sb, index, donors), offsetof(remap_table_block, crc),
            pieces_of(donors, REMAP_TABLE_HEADER_SIZE), [&](const Block& block) {
                auto found = accept(sb, index, block);
                if (!found || (best && found->generation < best->generation))
                    return;
                if (best && found->generation == best->generation) {
                    ambiguous |= found->entries != best->entries;
                    return;
                }
                ambiguous = false;
                best = std::move(found);
            });
    return ambiguous ? std::nullopt : best;
}

std::optional<RecombinedSuperblock> recombine_superblock(BlockIo& spare,
                                                         const SuperblockScan& scan) {
    std::vector<Donor> donors;
    std::optional<RecombinedSuperblock> best;
    SuperblockBytes best_common{};
    bool ambiguous = false;

    for (const SuperblockCopy& copy : scan.copies) {
        if (copy.copy < REMAP_SB_COPIES && copy.copy == donors.size() &&
            copy.sector <= spare.size() && spare.size() - copy.sector >= REMAP_SB_SECTORS)
            donors.push_back(read_donor(spare, copy.sector, copy.copy));
    }
    combine(superblock_heads(scan, donors), offsetof(remap_head, crc),
            pieces_of(donors, sizeof(remap_head)), [&](const Block& block) {
                const auto head = raw_from<remap_head>(block);
                auto found = decode_superblock(block, le64toh(head.position));
                if (!found.valid())
                    return;
                const std::uint64_t generation = found.value.head.generation;
                SuperblockBytes common = block;
                relocate_superblock(common, 0, 0);
                if (best && generation < best->superblock.head.generation)
                    return;
                if (best && generation == best->superblock.head.generation) {
                    ambiguous |= common != best_common;
                    return;
                }
                ambiguous = false;
                best = {std::move(found.value), block};
                best_common = common;
            });
    return ambiguous ? std::nullopt : best;
}

namespace {

/// Was `a` written after `b`, where only one of the two can have been?
bool entry_newer(const Entry& a, const Entry& b) {
    if (a.is_free() || b.is_free())
        return b.is_free();
    return remap_seq_newer(a.sequence(), b.sequence()) != 0;
}

/// One flipped bit is no write.
bool differ_by_a_write(const Entry& a, const Entry& b) {
    return std::popcount(a.lo ^ b.lo) + std::popcount(a.hi ^ b.hi) > 1;
}

}  // namespace

bool table_copy_torn(BlockIo& spare, const Superblock& sb, std::uint64_t index, unsigned int copy,
                     std::uint64_t generation, std::span<const Entry> entries) {
    const Donor donor = read_donor(spare, sb.table_sector(index, copy), copy);
    std::array<Entry, REMAP_ENTRIES_PER_BLOCK> found;
    std::array<bool, block_sectors> differs{};
    bool newer = true;
    bool older = true;

    if (!donor.has(0, block_bytes))
        return false;
    const auto raw = raw_from<remap_table_block>(donor.bytes);
    if (raw.copy != copy || raw.segment != 0 || le64toh(raw.index) != index ||
        le64toh(raw.position) != sb.table_sector(index, copy))
        return false;
    table_entries(donor.bytes, found);
    for (std::size_t i = 0; i < found.size(); i++) {
        if (found[i] == entries[i])
            continue;
        if (check_entry(sb, index * REMAP_ENTRIES_PER_BLOCK + i, found[i]) ||
            !differ_by_a_write(found[i], entries[i]))
            return false;
        newer &= entry_newer(found[i], entries[i]) || found[i].is_free();
        older &= entry_newer(entries[i], found[i]) || entries[i].is_free();
        differs.at((REMAP_TABLE_HEADER_SIZE + i * sizeof(remap_entry)) / sector_size) = true;
    }
    const auto count = std::count(differs.begin(), differs.end(), true);
    if (count == 0 || count == static_cast<std::ptrdiff_t>(block_sectors))
        return false;
    const std::uint64_t claimed = le64toh(raw.generation);
    if (claimed == generation)
        return !differs[0] && (newer || older);
    return claimed > generation ? newer : older;
}

bool superblock_copy_torn(const SuperblockScan& scan, const SuperblockCopy& copy) {
    if (scan.winner_index < 0 || copy.error != 0)
        return false;
    const SuperblockCopy& winner = scan.copies[static_cast<std::size_t>(scan.winner_index)];
    SuperblockBytes good = winner.bytes;
    const auto found = raw_from<remap_head>(copy.bytes);

    relocate_superblock(good, copy.copy, copy.sector);
    const auto wanted = raw_from<remap_head>(good);
    const auto same_from = [&copy](const SuperblockBytes& other, std::size_t offset,
                                   std::size_t size) {
        return std::memcmp(copy.bytes.data() + offset, other.data() + offset, size) == 0;
    };
    const bool ours = std::memcmp(found.set_uuid, wanted.set_uuid, REMAP_UUID_SIZE) == 0 &&
                      found.nonce == wanted.nonce && found.version == wanted.version &&
                      found.role == wanted.role && found.copy == wanted.copy &&
                      found.position == wanted.position &&
                      std::memcmp(found.member_uuid, wanted.member_uuid, REMAP_UUID_SIZE) == 0;
    if (!ours)
        return false;
    // The first sector of a write that no copy holds whole, and the rest of the winner's.
    if (!same_from(good, 0, sector_size) && found.generation != wanted.generation &&
        found.crc != wanted.crc && same_from(good, sector_size, REMAP_SB_SIZE - sector_size))
        return true;
    // Or each sector one of two valid copies'.
    return std::any_of(scan.copies.begin(), scan.copies.end(), [&](const SuperblockCopy& other) {
        if (other.verdict != Verdict::stale)
            return false;
        SuperblockBytes old = other.bytes;
        bool from_old = false;
        bool from_good = false;
        relocate_superblock(old, copy.copy, copy.sector);
        for (std::size_t at = 0; at < REMAP_SB_SIZE; at += sector_size) {
            const bool is_good = same_from(good, at, sector_size);
            const bool is_old = same_from(old, at, sector_size);
            if (!is_good && !is_old)
                return false;
            from_good |= is_good && !is_old;
            from_old |= is_old && !is_good;
        }
        return from_good && from_old;
    });
}

// --- entry by entry ---------------------------------------------------------------------------

namespace {

using EntryBlock = std::array<Entry, REMAP_ENTRIES_PER_BLOCK>;

std::size_t entry_offset(std::size_t i) {
    return REMAP_TABLE_HEADER_SIZE + i * sizeof(remap_entry);
}

/// Is all of the entry's sector zero?
bool in_zeroes(const Donor& donor, std::size_t i) {
    const std::size_t sector = entry_offset(i) / sector_size;
    const std::size_t from = sector == 0 ? REMAP_TABLE_HEADER_SIZE : sector * sector_size;
    const ConstBytes part = donor.part(from, (sector + 1) * sector_size - from);
    return std::all_of(part.begin(), part.end(), [](std::uint8_t byte) { return byte == 0; });
}

/// The count of entries in use, if a live copy and another one agree on it and on the generation.
std::optional<unsigned int> agreed_count(const Superblock& sb, std::uint64_t index,
                                         const std::vector<Donor>& donors) {
    const auto header = [index](const Donor& donor) -> std::optional<remap_table_block> {
        if (!donor.has(0, REMAP_TABLE_HEADER_SIZE))
            return std::nullopt;
        const auto raw = raw_from<remap_table_block>(donor.bytes);
        if (std::memcmp(raw.magic, REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE) != 0 ||
            le64toh(raw.index) != index || le16toh(raw.in_use) > REMAP_ENTRIES_PER_BLOCK)
            return std::nullopt;
        return raw;
    };

    for (const Donor& a : donors) {
        const auto first = header(a);
        if (!first || (sb.live_copies & (1U << a.copy)) == 0)
            continue;
        for (const Donor& b : donors) {
            const auto second = header(b);
            if (&a != &b && second && second->generation == first->generation &&
                second->in_use == first->in_use)
                return le16toh(first->in_use);
        }
    }
    return std::nullopt;
}

/// The newest of the table's sequences.
std::uint32_t newest_sequence(const std::vector<Entry>& entries) {
    std::optional<std::uint32_t> newest;

    for (const Entry& entry : entries) {
        if (!entry.is_free() && (!newest || remap_seq_newer(entry.sequence(), *newest) != 0))
            newest = entry.sequence();
    }
    return newest.value_or(0);
}

/// Takes in what the copies have in a slot that is not proved.
void note_name(const Superblock& sb, SalvagedBlock& result, std::uint64_t slot,
               const Entry& entry) {
    if (entry.is_live() && entry.block() < sb.main_blocks())
        result.named.emplace_back(slot, entry);
}

}  // namespace

SalvagedBlock salvage_table_block(BlockIo& spare, const Superblock& sb, std::uint64_t index) {
    const std::vector<Donor> donors = table_donors(spare, sb, index);
    SalvagedBlock result;
    std::vector<EntryBlock> found(donors.size());
    unsigned int in_use = 0;

    result.index = index;
    result.entries.resize(REMAP_ENTRIES_PER_BLOCK);
    for (std::size_t d = 0; d < donors.size(); d++)
        table_entries(donors[d].bytes, found[d]);
    for (std::size_t i = 0; i < result.entries.size(); i++) {
        const std::uint64_t slot = index * REMAP_ENTRIES_PER_BLOCK + i;
        const auto readable = [&](std::size_t d) {
            return donors[d].has(entry_offset(i), sizeof(remap_entry));
        };
        bool proved = false;
        bool zeroes = false;
        for (std::size_t a = 0; a < donors.size() && !proved; a++) {
            if ((sb.live_copies & (1U << donors[a].copy)) == 0 || !readable(a) ||
                check_entry(sb, slot, found[a][i]))
                continue;
            for (std::size_t b = 0; b < donors.size() && !proved; b++) {
                if (a == b || !readable(b) || !(found[a][i] == found[b][i]))
                    continue;
                zeroes = found[a][i].is_free() && slot < sb.segment().nr_slots &&
                         in_zeroes(donors[a], i) && in_zeroes(donors[b], i);
                proved = !zeroes;
                if (proved)
                    result.entries[i] = found[a][i];
            }
        }
        in_use += proved && !result.entries[i].is_free();
        if (proved)
            continue;
        result.unproved.push_back(slot);
        for (std::size_t d = 0; d < donors.size(); d++) {
            if (readable(d))
                note_name(sb, result, slot, found[d][i]);
        }
    }
    // All that were in use are there, so the others were free.
    if (agreed_count(sb, index, donors) == in_use) {
        result.unproved.clear();
        result.named.clear();
    }
    return result;
}

SalvagedBlock salvage_valid_block(const Superblock& sb, std::uint64_t index,
                                  std::span<const Entry> entries,
                                  const std::set<std::uint64_t>& undecided) {
    SalvagedBlock result;

    result.index = index;
    result.entries.assign(entries.begin(), entries.end());
    for (std::size_t i = 0; i < result.entries.size(); i++) {
        const std::uint64_t slot = index * REMAP_ENTRIES_PER_BLOCK + i;
        if (undecided.count(slot) == 0 && !check_entry(sb, slot, result.entries[i]))
            continue;
        result.unproved.push_back(slot);
        note_name(sb, result, slot, result.entries[i]);
        result.entries[i] = {};
    }
    return result;
}

namespace {

/// The table as it becomes, while losses are entered.
class Settlement {
  public:
    Settlement(const Superblock& sb, const Table& table, const std::vector<SalvagedBlock>& blocks)
        : sb_(sb), entries_(table.entries) {
        for (const SalvagedBlock& block : blocks) {
            put_block(block);
            for (const auto& name : block.named)
                named_.emplace_back(name);
        }
        sequence_ = newest_sequence(entries_);
        for (const auto& [slot, entry] : named_) {
            if (remap_seq_newer(entry.sequence(), sequence_) != 0)
                sequence_ = entry.sequence();
        }
    }

    Loss settle();

  private:
    bool usable(std::uint64_t slot) const {
        return slot < sb_.segment().nr_slots && !sb_.slot_reserved(slot);
    }
    void put_block(const SalvagedBlock& block);
    std::optional<std::uint64_t> place_for_mark(std::uint64_t slot);

    const Superblock& sb_;
    std::vector<Entry> entries_;
    std::vector<std::pair<std::uint64_t, Entry>> named_;
    std::set<std::uint64_t> unproved_;  ///< slots without a mark
    std::set<std::uint64_t> changed_;   ///< table blocks
    std::set<std::uint64_t> salvaged_;  ///< those of them that do not open before they are written
    std::uint32_t sequence_ = 0;
    std::uint64_t next_free_ = 0;
    Loss loss_;
};

void Settlement::put_block(const SalvagedBlock& block) {
    const auto at = static_cast<std::ptrdiff_t>(block.index * REMAP_ENTRIES_PER_BLOCK);
    std::copy(block.entries.begin(), block.entries.end(), entries_.begin() + at);
    for (const std::uint64_t slot : block.unproved) {
        loss_.slots.push_back(slot);
        unproved_.insert(slot);
        entries_[slot] = slot < sb_.segment().nr_slots
                             ? Entry::make(REMAP_ENTRY_BAD, 0, REMAP_CAUSE_NONE, 0, 0, 0)
                             : Entry{};
    }
    changed_.insert(block.index);
    salvaged_.insert(block.index);
}

/// The slot itself, another one of its table block that is not proved, or a free one. While the
/// table block that named a main block is not written the table does not open; so the mark must be
/// in it, or in one that is written before, or else a power cut between the two would leave a table
/// that opens and reads old data.
std::optional<std::uint64_t> Settlement::place_for_mark(std::uint64_t slot) {
    const std::uint64_t index = slot / REMAP_ENTRIES_PER_BLOCK;
    const auto unproved = [&](const auto& in_block) -> std::optional<std::uint64_t> {
        for (const std::uint64_t other : unproved_) {
            // One that names a block itself is kept for that.
            const bool wanted = std::any_of(named_.begin(), named_.end(),
                                            [other](const auto& n) { return n.first == other; });
            if (usable(other) && !wanted && in_block(other / REMAP_ENTRIES_PER_BLOCK))
                return other;
        }
        return std::nullopt;
    };

    if (unproved_.count(slot) > 0 && usable(slot))
        return slot;
    if (const auto same = unproved([index](std::uint64_t block) { return block == index; }))
        return same;
    for (; next_free_ < entries_.size(); next_free_++) {
        if (entries_[next_free_] == Entry{} && usable(next_free_) &&
            salvaged_.count(next_free_ / REMAP_ENTRIES_PER_BLOCK) == 0)
            return next_free_;
    }
    return unproved([index](std::uint64_t block) { return block < index; });
}

Loss Settlement::settle() {
    std::map<std::uint64_t, std::uint32_t> newest;  // of named blocks: the proved entry's sequence
    std::set<std::uint64_t> marked;

    for (const auto& [slot, entry] : named_)
        newest.emplace(entry.block(), 0);
    std::set<std::uint64_t> have;
    for (const Entry& entry : entries_) {
        const auto it = entry.is_live() ? newest.find(entry.block()) : newest.end();
        if (it == newest.end())
            continue;
        if (have.insert(entry.block()).second || remap_seq_newer(entry.sequence(), it->second) != 0)
            it->second = entry.sequence();
    }
    for (const auto& [slot, entry] : named_) {
        const std::uint64_t block = entry.block();
        const bool superseded =
            have.count(block) > 0 && remap_seq_newer(newest[block], entry.sequence()) != 0;
        if (superseded || !marked.insert(block).second)
            continue;
        const auto place = place_for_mark(slot);
        if (!place) {
            loss_.unmarked.push_back(block);
            continue;
        }
        sequence_ = (sequence_ + 1) & REMAP_ENTRY_SEQ_MASK;
        entries_[*place] =
            Entry::make(REMAP_ENTRY_LOST, block, REMAP_CAUSE_NONE, 0, sequence_, entry.time());
        unproved_.erase(*place);
        changed_.insert(*place / REMAP_ENTRIES_PER_BLOCK);
        loss_.blocks.push_back(block);
    }
    std::sort(loss_.slots.begin(), loss_.slots.end());
    std::sort(loss_.blocks.begin(), loss_.blocks.end());
    for (const bool salvaged : {false, true}) {
        for (const std::uint64_t index : changed_) {
            if ((salvaged_.count(index) > 0) != salvaged)
                continue;
            const auto at =
                entries_.begin() + static_cast<std::ptrdiff_t>(index * REMAP_ENTRIES_PER_BLOCK);
            loss_.changed.emplace_back(index, std::vector<Entry>(at, at + REMAP_ENTRIES_PER_BLOCK));
        }
    }
    return std::move(loss_);
}

}  // namespace

Loss settle_loss(const Superblock& sb, const Table& table,
                 const std::vector<SalvagedBlock>& blocks) {
    return Settlement(sb, table, blocks).settle();
}

}  // namespace remap
