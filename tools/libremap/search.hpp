// SPDX-License-Identifier: GPL-2.0-or-later
//
// Finding structures on a device of which nothing is known any more: neither where they lie nor,
// for table blocks, of which set they are. Only reads.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"

namespace remap {

enum class StructureKind { superblock, label, filler, table_block };

/// "superblock", "label", "filler" or "table block".
const char* structure_name(StructureKind kind);

/// A structure that was found, or a run of them: table blocks of one copy with ascending index, or
/// filler of one set, that lie one after the other and have the same verdict.
struct FoundRun {
    StructureKind kind = StructureKind::superblock;
    std::uint64_t sector = 0;    ///< where the first was found
    std::uint64_t count = 1;     ///< how many, `stride` sectors apart
    std::uint64_t stride = 0;    ///< sectors
    std::uint64_t position = 0;  ///< where the first says it lies
    unsigned int copy = 0;       ///< superblock, label, table block: as it says
    std::uint64_t index = 0;     ///< table block: the first's
    std::uint64_t in_use = 0;    ///< table blocks: entries that are not free, as they say
    std::uint64_t oldest = 0;    ///< lowest generation
    std::uint64_t newest = 0;    ///< highest generation
    std::optional<Uuid> set;     ///< if it says so or its checksum tells
    std::optional<std::uint64_t> nonce;
    /// Superblock and label: head; its other fields are the codec's to read.
    std::optional<Head> head;
    /// What its checksum was continued from. Of a table block that is computed from the checksum:
    /// two that agree are of the same set, whose UUID and nonce need not be known.
    std::uint32_t seed = 0;
    /// current: valid, and where it says; misplaced: valid, but elsewhere; bad_crc: damaged (or the
    /// only table block of its seed: nothing tells whether its checksum is right); implausible,
    /// newer_version: as from the codecs.
    Verdict verdict = Verdict::bad_crc;
    FieldProblem problem;  ///< of the first

    /// Sectors that it lies off the place it names, the same for all of a run.
    std::int64_t shift() const {
        return static_cast<std::int64_t>(sector) - static_cast<std::int64_t>(position);
    }
};

/// A run of sectors that could not be read.
struct UnreadableRun {
    std::uint64_t sector = 0;
    std::uint64_t count = 0;
    int error = 0;  ///< errno
};

struct SearchOptions {
    std::uint64_t first = 0;    ///< sector, a multiple of 8
    std::uint64_t end = ~0ULL;  ///< sector; at most the device's size
    /// UUID and nonce of sets that are known from elsewhere, above all from a label on the main:
    /// table blocks of theirs are then known as such.
    std::vector<std::pair<Uuid, std::uint64_t>> known_sets;
    /// Called now and then with sectors done and in all.
    std::function<void(std::uint64_t, std::uint64_t)> progress;
};

struct SearchResult {
    std::vector<FoundRun> found;            ///< by sector
    std::vector<UnreadableRun> unreadable;  ///< by sector
};

/// Looks at every sector of the device for the beginning of a structure. I/O errors are part of the
/// result. Memory: one record for each run.
SearchResult search_device(BlockIo& io, const SearchOptions& options = {});

/// The seed from which the checksum of these 4096 bytes, taken for a table block, follows. The
/// checksum proves nothing by itself then; that many blocks have one seed does.
std::uint32_t table_block_seed(ConstBytes bytes);

}  // namespace remap
