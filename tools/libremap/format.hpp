// SPDX-License-Identifier: GPL-2.0-or-later
//
// The structures of kmod/dm-remap-format.h in the host's byte order, with one codec each. Nothing
// outside the codecs touches on-disk bytes. docs/format.md describes them.
#pragma once

#include <dm-remap-format.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/uuid.hpp"

namespace remap {

/// What was found at a place where a copy of a structure belongs.
enum class Verdict {
    current,        ///< valid, and the newest
    stale,          ///< valid, but a newer one exists
    dead,           ///< a table copy marked as not live
    conflict,       ///< valid, as new as the winner, but with other content
    bad_crc,        ///< ours by its magic, but the checksum is wrong
    torn,           ///< the same, and made up of two writes, each complete in its sectors
    implausible,    ///< the checksum is right, but a number is outside its bounds
    misplaced,      ///< valid, but written for another place
    foreign,        ///< valid, but of another set, or of this set's earlier life
    wrong_role,     ///< valid, but of the other role
    newer_version,  ///< of a format newer than this program
    absent,         ///< something else, or nothing
    unreadable,     ///< an I/O error
};

/// Stable name for text and JSON, as "bad-crc".
const char* verdict_name(Verdict verdict);

struct Head {
    std::uint32_t version = REMAP_VERSION;
    std::uint8_t role = 0;
    std::uint8_t copy = 0;
    std::uint8_t state = 0;
    std::uint8_t block_shift = REMAP_SECTOR_SHIFT;
    std::uint32_t flags = 0;
    std::uint64_t compat = 0;
    std::uint64_t ro_compat = 0;
    std::uint64_t incompat = 0;
    std::uint64_t generation = 0;
    Uuid set_uuid;
    std::uint64_t nonce = 0;
    std::uint64_t position = 0;  ///< sector
    Uuid member_uuid;
    Uuid partner_uuid;

    friend bool operator==(const Head&, const Head&) = default;
};

struct Label {
    Head head;
    std::uint32_t epoch = 0;
    std::uint64_t main_size = 0;  ///< sectors

    friend bool operator==(const Label&, const Label&) = default;
};

struct Filler {
    Head head;

    friend bool operator==(const Filler&, const Filler&) = default;
};

struct Hidden {
    std::uint64_t start = 0;  ///< block
    std::uint32_t count = 0;  ///< blocks
    std::uint8_t flags = 0;   ///< REMAP_HIDDEN_*

    friend bool operator==(const Hidden&, const Hidden&) = default;
};

struct Segment {
    std::uint8_t member = 0;
    std::uint8_t nr_copies = 0;
    std::array<std::uint64_t, REMAP_MAX_TABLE_COPIES> table_start{};  ///< sectors
    std::uint64_t first_slot = 0;
    std::uint64_t nr_slots = 0;
    std::uint64_t data_start = 0;  ///< sector

    /// Table blocks that nr_slots need.
    std::uint64_t table_blocks() const {
        return (nr_slots + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK;
    }

    friend bool operator==(const Segment&, const Segment&) = default;
};

struct Member {
    Uuid uuid;
    std::uint8_t role = 0;
    std::uint8_t state = REMAP_MEMBER_IN_USE;
    std::uint64_t size = 0;  ///< sectors
    std::string wwn;
    std::string serial;
    std::string partuuid;

    friend bool operator==(const Member&, const Member&) = default;
};

struct Superblock {
    Head head;
    std::uint32_t epoch = 0;
    std::uint32_t label_epoch = 0;
    std::uint8_t live_copies = 0;
    std::uint64_t main_size = 0;     ///< sectors
    std::uint64_t spare_size = 0;    ///< sectors
    std::uint64_t table_length = 0;  ///< initialised table blocks
    std::array<std::uint64_t, REMAP_SB_COPIES> sb_sector{};
    std::uint64_t created = 0;          ///< unix seconds
    std::uint64_t updated = 0;          ///< unix seconds
    std::uint64_t deciding_sector = 0;  ///< on the main
    std::vector<std::uint64_t> label_sector;
    std::string label;
    std::string tool;
    std::vector<Hidden> hidden;
    std::vector<Segment> segments;
    std::vector<Member> members;

    /// Sectors per block: 1 or 8.
    std::uint32_t block_sectors() const { return 1U << (head.block_shift - REMAP_SECTOR_SHIFT); }
    std::uint32_t block_size() const { return 1U << head.block_shift; }  ///< bytes
    std::uint64_t main_blocks() const { return main_size / block_sectors(); }
    std::uint64_t hidden_blocks() const;
    bool is_bare() const { return (head.flags & REMAP_FLAG_BARE) != 0; }
    std::uint32_t seed() const;

    /// The first member of that role, or nullptr.
    const Member* member(remap_role role) const;

    /// The one segment of version 1. A superblock that passed check_superblock has it.
    const Segment& segment() const { return segments.front(); }

    /// Sector on the spare of slot `slot`.
    std::uint64_t slot_sector(std::uint64_t slot) const;
    /// Does the slot overlap a place of a superblock? Such a slot is never used.
    bool slot_reserved(std::uint64_t slot) const;
    /// Sector on the spare of table block `index` of copy `copy`.
    std::uint64_t table_sector(std::uint64_t index, unsigned int copy) const;
    /// Is the main block in one of the hidden extents?
    bool block_hidden(std::uint64_t block) const;

    friend bool operator==(const Superblock&, const Superblock&) = default;
};

/// One slot's record, as it lies on disk but in the host's byte order.
struct Entry {
    std::uint64_t lo = 0;
    std::uint64_t hi = 0;

    static Entry make(remap_entry_state state, std::uint64_t block, remap_entry_cause cause,
                      std::uint8_t error, std::uint32_t sequence, std::uint32_t time);

    std::uint64_t block() const { return lo & REMAP_ENTRY_BLOCK_MASK; }
    std::uint8_t state() const { return static_cast<std::uint8_t>(lo >> REMAP_ENTRY_STATE_SHIFT); }
    std::uint8_t cause() const { return static_cast<std::uint8_t>(lo >> REMAP_ENTRY_CAUSE_SHIFT); }
    std::uint32_t sequence() const { return static_cast<std::uint32_t>(hi) & REMAP_ENTRY_SEQ_MASK; }
    std::uint8_t error() const { return static_cast<std::uint8_t>(hi >> REMAP_ENTRY_ERRNO_SHIFT); }
    std::uint32_t time() const { return static_cast<std::uint32_t>(hi >> REMAP_ENTRY_TIME_SHIFT); }
    bool is_free() const { return state() == REMAP_ENTRY_FREE; }
    /// Does the entry stand for its main block (mapped or lost)?
    bool is_live() const { return state() == REMAP_ENTRY_MAPPED || state() == REMAP_ENTRY_LOST; }

    friend bool operator==(const Entry&, const Entry&) = default;
};
static_assert(sizeof(Entry) == sizeof(remap_entry));

struct TableHeader {
    std::uint8_t copy = 0;
    std::uint8_t segment = 0;
    std::uint16_t in_use = 0;
    std::uint64_t index = 0;
    std::uint64_t generation = 0;
    std::uint64_t position = 0;  ///< sector

    friend bool operator==(const TableHeader&, const TableHeader&) = default;
};

/// Why a structure was not accepted.
struct FieldProblem {
    std::string field;
    std::string expected;
    std::string found;
};

/// What a codec made of some bytes. `verdict` is `current` when the structure is valid in itself;
/// whether it is also the newest its caller decides. `value` is meaningful when the checksum was
/// right (`current`, `implausible`, `misplaced`, `wrong_role`).
template <typename T>
struct Decoded {
    Verdict verdict = Verdict::absent;
    T value{};
    FieldProblem problem;

    bool valid() const { return verdict == Verdict::current; }
};

using SuperblockBytes = std::array<std::uint8_t, REMAP_SB_SIZE>;
using LabelBytes = std::array<std::uint8_t, REMAP_LABEL_SIZE>;
using TableBlockBytes = std::array<std::uint8_t, REMAP_TABLE_BLOCK_SIZE>;

/// The bytes of copy `copy`; head.copy, head.position and the counts are filled in from `copy`,
/// `sb_sector` and the lists. Throws Error if a list or a text is longer than the format allows.
SuperblockBytes encode_superblock(const Superblock& superblock, unsigned int copy);

/// The same superblock as copy `copy` at `sector`: unlike decoding and encoding, this keeps bytes
/// that a compatible newer writer may have put into reserved places.
void relocate_superblock(SuperblockBytes& bytes, unsigned int copy, std::uint64_t sector);

/// Decodes and verifies 4096 bytes that were read at `sector`: magic, checksum, version, role,
/// position, bounds of every number.
Decoded<Superblock> decode_superblock(ConstBytes bytes, std::uint64_t sector);

/// The first number of the superblock that is outside its bounds, if any: against the format, not
/// against a device.
std::optional<FieldProblem> check_superblock(const Superblock& superblock);

/// The 512 bytes of label copy `copy` at `sector` of the main.
LabelBytes encode_label(const Label& label, unsigned int copy, std::uint64_t sector);

/// Decodes and verifies 512 bytes that were read at `sector` of a main.
Decoded<Label> decode_label(ConstBytes bytes, std::uint64_t sector);

/// The 512 bytes of the filler at `sector` of the main.
LabelBytes encode_filler(const Filler& filler, std::uint64_t sector);
Decoded<Filler> decode_filler(ConstBytes bytes, std::uint64_t sector);

/// The label that belongs on the main of this set: generation, epoch and state are those of the
/// superblock. Throws Error if the superblock names no main.
Label make_label(const Superblock& superblock);

/// The filler that belongs on the main of this set. Throws as make_label.
Filler make_filler(const Superblock& superblock);

/// Bytes of one table block. `entries` holds up to 252 entries, the rest are free; in_use is
/// counted here. `header.copy`, `index`, `segment`, `generation` and `position` are taken as given.
TableBlockBytes encode_table_block(std::uint32_t seed, const TableHeader& header,
                                   std::span<const Entry> entries);

/// Verifies 4096 bytes that should hold table block `index` of copy `copy` of segment 0 at
/// `sector`. Entries are not looked at.
Decoded<TableHeader> decode_table_header(ConstBytes bytes, std::uint32_t seed, std::uint64_t index,
                                         unsigned int copy, std::uint64_t sector);

/// Entry `i` (0 to 251) of a table block's 4096 bytes.
Entry table_entry(ConstBytes bytes, unsigned int i);

/// All 252 entries of a table block's 4096 bytes.
void table_entries(ConstBytes bytes, std::span<Entry, REMAP_ENTRIES_PER_BLOCK> to);

/// What is wrong with the entry of slot `slot`, if anything: state, block number, free but not
/// zero, reserved slot in use.
std::optional<FieldProblem> check_entry(const Superblock& superblock, std::uint64_t slot,
                                        const Entry& entry);

const char* set_state_name(std::uint8_t state);
const char* entry_state_name(std::uint8_t state);
const char* entry_cause_name(std::uint8_t cause);
const char* role_name(std::uint8_t role);

}  // namespace remap
