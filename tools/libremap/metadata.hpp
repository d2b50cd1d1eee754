// SPDX-License-Identifier: GPL-2.0-or-later
//
// Everything that lies on a spare besides the slots: finding and choosing copies, and writing
// them in the order that a power cut cannot hurt.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"

namespace remap {

/// What lies at one place where a superblock copy belongs.
struct SuperblockCopy {
    std::uint64_t sector = 0;
    unsigned int copy = 0;  ///< the number that the copy at this place must have
    /// Is the place one that the winner records? Places computed from the size alone are not, on
    /// a device that grew or shrank.
    bool recorded = false;
    Verdict verdict = Verdict::absent;
    FieldProblem problem;
    int error = 0;  ///< errno, when unreadable
    /// The contents, if the checksum was right.
    std::optional<Superblock> value;
    SuperblockBytes bytes{};  ///< as read; undefined when unreadable
};

/// All superblock copies of a device and what follows from them.
struct SuperblockScan {
    std::uint64_t device_size = 0;  ///< sectors
    /// The winner's recorded places by number, then other places where something was found. With
    /// no winner: the places computed from the size.
    std::vector<SuperblockCopy> copies;
    /// The valid copy with the highest generation, when exactly one set was found and its newest
    /// copies agree.
    std::optional<Superblock> winner;
    /// Valid copies of two sets, or of two lives of one set: nothing is opened.
    bool ambiguous = false;
    /// When ambiguous: the newest superblock of the one set that has a quorum of copies. Those of
    /// other sets have the verdict `foreign`.
    std::optional<Superblock> majority;
    /// Two valid copies of the highest generation differ.
    bool conflict = false;
    /// At least one copy is of a newer format.
    bool newer_version = false;
    /// At least one I/O error.
    bool unreadable = false;
    /// The copies differ only as an interrupted update leaves them: the first ones are the newest,
    /// all others one update older.
    bool interrupted = false;
    std::uint64_t highest_generation = 0;
    int winner_index = -1;  ///< in `copies`, of one copy that holds `winner` or `majority`

    /// Copies at recorded places with this verdict.
    unsigned int count(Verdict verdict) const;
};

/// Reads the superblock copies at the places computed from the device's size and at every place
/// that a valid copy records. Never throws for what it finds; I/O errors are verdicts.
SuperblockScan scan_superblocks(BlockIo& spare);

/// Why a scan has no winner, for a message; "a superblock" if it has.
std::string explain(const SuperblockScan& scan);

/// The winning superblock, or Error: unrecognised (nothing of ours, two sets, all damaged) or
/// operational (newer format, unknown incompat feature, nothing readable).
Superblock load_superblock(BlockIo& spare);

/// What of the superblock does not fit a device of `size` sectors, if anything.
std::optional<FieldProblem> check_geometry(const Superblock& superblock, std::uint64_t size);

/// One copy of one table block.
struct TableCopy {
    unsigned int copy = 0;
    std::uint64_t sector = 0;
    Verdict verdict = Verdict::absent;
    TableHeader header;  ///< meaningful as in Decoded
    FieldProblem problem;
    int error = 0;     ///< errno, when unreadable
    ConstBytes bytes;  ///< 4096 bytes, good until the visitor returns; undefined when unreadable
};

/// One table block: its copies by number (dead ones too, with verdict `dead`), and the winner's
/// index in `copies`, or -1 if no live copy is valid or the newest ones differ.
struct TableBlockView {
    std::uint64_t index = 0;
    std::span<const TableCopy> copies;
    int winner = -1;
    bool conflict = false;
};

/// Reads table blocks `first` up to, not including, `end` with all their copies and calls `visit`
/// for each in order. Memory use does not depend on the size of the table. I/O errors are
/// verdicts. Dead copies are read only if `read_dead`; else their bytes are empty.
void visit_table(BlockIo& spare, const Superblock& superblock, std::uint64_t first,
                 std::uint64_t end, bool read_dead,
                 const std::function<void(const TableBlockView&)>& visit);

/// A copy of a table block that is not current, without its bytes.
struct TableProblem {
    std::uint64_t index = 0;
    unsigned int copy = 0;
    std::uint64_t sector = 0;
    Verdict verdict = Verdict::absent;
    FieldProblem problem;
    int error = 0;
    std::uint64_t generation = 0;  ///< of a stale or conflicting copy
};

/// The winning entries of the initialised table blocks.
struct Table {
    /// By slot. The entries of a lost block are free, and its index is in `lost`.
    std::vector<Entry> entries;
    std::vector<std::uint64_t> generations;  ///< by table block; 0: lost
    std::vector<TableProblem> problems;      ///< live copies that are not current
    std::vector<std::uint64_t> lost;         ///< blocks without a winner, ascending
    std::vector<std::uint64_t> conflicts;    ///< those of `lost` whose newest copies differ
    std::vector<std::uint64_t> recombined;   ///< blocks without a winner that a check put together
    std::vector<std::uint64_t> miscounted;   ///< blocks whose header counts its entries wrongly
    std::uint64_t highest_generation = 0;

    bool is_lost(std::uint64_t index) const;
};

/// Loads the table; damage is recorded, not thrown. 16 bytes of memory per initialised slot.
/// `progress` is called now and then with table blocks done and in all, `block` with each block
/// that is not lost, its index and its entries, while they are in the processor's cache.
Table load_table(BlockIo& spare, const Superblock& superblock,
                 const std::function<void(std::uint64_t, std::uint64_t)>& progress = {},
                 const std::function<void(std::uint64_t, std::span<const Entry>)>& block = {});

/// load_table, but Error (unrecognised) if a block is lost or an entry is invalid.
Table load_intact_table(BlockIo& spare, const Superblock& superblock);

/// Two or more live entries for one main block.
struct Duplicate {
    std::uint64_t block = 0;
    std::vector<std::uint64_t> slots;     ///< ascending
    std::optional<std::uint64_t> winner;  ///< the newest by sequence, if that is decidable
};

/// All duplicates among live entries, by block. Costs no sort of the whole table.
std::vector<Duplicate> find_duplicates(const Table& table);

struct Mapping {
    std::uint64_t block = 0;
    std::uint64_t slot = 0;
    Entry entry;
    bool undecidable = false;  ///< several entries and no newest: reads as an error
};

/// The winning live entry of every main block that has one, ascending by block.
std::vector<Mapping> live_mappings(const Table& table);

/// Is the number of a slot's table block below the initialised length, is the slot in range, free
/// and not reserved?
bool slot_allocatable(const Superblock& superblock, const Table& table, std::uint64_t slot);

/// The generation for the next new content: one above all that were seen, in `epoch`.
std::uint64_t next_generation(std::uint32_t epoch, std::uint64_t highest_seen);

/// Writes all superblock copies in order of their numbers, each followed by a flush. Throws
/// IoError if fewer than REMAP_SB_QUORUM could be written. Returns how many were.
unsigned int write_superblock(BlockIo& spare, const Superblock& superblock);

/// Writes one copy of the superblock and flushes. Throws IoError.
void write_superblock_copy(BlockIo& spare, const Superblock& superblock, unsigned int copy);

/// Writes table block `index` with `entries` (252, or fewer at the table's end) to each live copy,
/// a flush after each. Throws IoError at the first that fails.
void write_table_block(BlockIo& spare, const Superblock& superblock, std::uint64_t index,
                       std::uint64_t generation, std::span<const Entry> entries);

/// The 4096 bytes of table block `index` of copy `copy`.
TableBlockBytes table_block_bytes(const Superblock& superblock, unsigned int copy,
                                  std::uint64_t index, std::uint64_t generation,
                                  std::span<const Entry> entries);

/// Writes one copy of one table block and flushes. Throws IoError.
void write_table_copy(BlockIo& spare, const Superblock& superblock, unsigned int copy,
                      std::uint64_t index, std::uint64_t generation,
                      std::span<const Entry> entries);

/// Writes the first `table.size() / 252` (rounded up) table blocks of every live copy, copy after
/// copy, with a flush after each copy: for format, when no superblock points there yet.
void write_table(BlockIo& spare, const Superblock& superblock, std::uint64_t generation,
                 std::span<const Entry> table);

/// Overwrites with zeroes every superblock place computed from the device's size and every place
/// that a valid superblock on it records, and flushes. Throws IoError.
void wipe_superblocks(BlockIo& spare);

}  // namespace remap
