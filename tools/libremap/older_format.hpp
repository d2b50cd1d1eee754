// SPDX-License-Identifier: GPL-2.0-or-later
//
// Reading the spares of an older project of this name. docs/migration.md describes its formats.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/format.hpp"
#include "libremap/report.hpp"

namespace remap {

/// What the older project's programs wrote to a spare.
enum class OlderKind {
    dmr4,      ///< its kernel module: header and table, five copies
    script,    ///< its setup script: a header with the same magic and no table
    dmremap3,  ///< an earlier module: one copy, a checksum that never verifies
};

/// "DMR4", "DMR4 of the setup script", "DMREMAP3".
const char* older_kind_name(OlderKind kind);

/// Sectors at the start of a spare in which DMR4's copies lie; slots there were overwritten by
/// them.
constexpr std::uint64_t dmr4_reserved = 1280;
constexpr std::size_t dmr4_size = 84288;
constexpr std::array<std::uint64_t, 5> dmr4_places = {0, 256, 512, 768, 1024};
constexpr std::size_t script_size = 512;
constexpr std::array<std::uint64_t, 5> script_places = {0, 1024, 2048, 4096, 8192};
/// DMREMAP3: header and table at the start of the spare.
constexpr std::uint64_t dmremap3_reserved = 16;
constexpr std::size_t dmremap3_size = dmremap3_reserved * sector_size;

/// One remap, as it was recorded.
struct OlderEntry {
    std::uint64_t original = 0;  ///< sector of the main
    std::uint64_t spare = 0;     ///< sector of the spare
    std::uint64_t time = 0;      ///< unix seconds
    std::uint16_t flags = 0;     ///< says nothing about where the data is

    friend bool operator==(const OlderEntry&, const OlderEntry&) = default;
};

/// One copy of the metadata.
struct OlderCopy {
    OlderKind kind = OlderKind::dmr4;
    std::uint64_t sector = 0;
    Verdict verdict = Verdict::absent;
    FieldProblem problem;
    std::uint64_t sequence = 0;   ///< starts again with every load of the module
    std::uint64_t time = 0;       ///< unix seconds, of whatever the clock said
    std::uint64_t main_size = 0;  ///< sectors; 0: not recorded
    std::uint64_t spare_size = 0;
    std::uint64_t capacity = 0;  ///< entries that fit
    std::vector<OlderEntry> entries;
};

/// Decodes what was read at one place. `absent` if the magic is not there.
OlderCopy decode_dmr4(ConstBytes bytes, std::uint64_t sector);
OlderCopy decode_script(ConstBytes bytes, std::uint64_t sector);
OlderCopy decode_dmremap3(ConstBytes bytes);

/// Everything that was found on a spare.
struct OlderSpare {
    OlderKind kind = OlderKind::dmr4;
    std::vector<OlderCopy> copies;  ///< by kind and sector
    int winner = -1;                ///< of the copies that carry a table; -1: none is valid
    /// Valid copies of the winner's kind hold other entries.
    bool disagree = false;

    const OlderCopy* best() const {
        return winner < 0 ? nullptr : &copies[static_cast<std::size_t>(winner)];
    }
};

/// Reads all places. Nothing if none of them has the magic of an older format.
std::optional<OlderSpare> read_older(BlockIo& spare);

/// The kind alone, for recognition: reads a sector at each place.
std::optional<OlderKind> recognise_older(BlockIo& spare);

/// Shows copies, entries and what they cannot tell. Returns damage if a copy is not as it should
/// be or none has a table that can be verified.
Exit show_older(BlockIo& spare, const OlderSpare& older, Emitter& out);

/// What the format does not record, whatever is found, in sentences.
std::vector<std::string> older_limits(const OlderSpare& older);

}  // namespace remap
