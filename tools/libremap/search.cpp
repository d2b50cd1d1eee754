// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/search.hpp"

#include <endian.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <utility>

#include "libremap/crc.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// A structure may begin at any sector, so the pieces that are read overlap by one structure.
constexpr std::uint64_t chunk_sectors = 2048;
constexpr std::uint64_t structure_sectors = REMAP_SB_SECTORS;
constexpr std::uint64_t step_sectors = chunk_sectors - structure_sectors;

/// crc_unshift by a table block's length as a table: it is linear, so each bit has its own part.
std::uint32_t unshift_block(std::uint32_t reg) {
    static const auto columns = [] {
        std::array<std::uint32_t, 32> table{};
        for (unsigned int bit = 0; bit < table.size(); bit++)
            table.at(bit) = crc_unshift(1U << bit, REMAP_TABLE_BLOCK_SIZE);
        return table;
    }();
    std::uint32_t result = 0;

    for (unsigned int bit = 0; bit < columns.size(); bit++) {
        if ((reg >> bit & 1) != 0)
            result ^= columns.at(bit);
    }
    return result;
}

class Search {
  public:
    Search(BlockIo& io, const SearchOptions& options) : io_(io), options_(options) {}

    SearchResult run();

  private:
    void read_chunk(std::uint64_t sector, Bytes bytes);
    void look_at(std::uint64_t sector, ConstBytes bytes);
    void headed(std::uint64_t sector, ConstBytes bytes);
    void filler(std::uint64_t sector, ConstBytes bytes);
    void table_block(std::uint64_t sector, ConstBytes bytes);
    void take_head(FoundRun& run, const Head& head, Verdict verdict);
    void add(FoundRun&& run);
    void verify_table_blocks();

    BlockIo& io_;
    const SearchOptions& options_;
    SearchResult result_;
    std::map<std::uint32_t, std::pair<Uuid, std::uint64_t>> sets_;  ///< by seed
};

void Search::read_chunk(std::uint64_t sector, Bytes bytes) {
    if (io_.try_read(sector, bytes) == 0)
        return;
    const std::size_t unit = std::max<std::size_t>(io_.logical_block_size(), sector_size);
    for (std::size_t at = 0; at < bytes.size(); at += unit) {
        const Bytes part = bytes.subspan(at, std::min(unit, bytes.size() - at));
        const std::uint64_t from = sector + at / sector_size;
        const int error = io_.try_read(from, part);
        if (error == 0)
            continue;
        std::fill(part.begin(), part.end(), std::uint8_t{0});
        const std::uint64_t end = from + part.size() / sector_size;
        if (!result_.unreadable.empty()) {
            UnreadableRun& last = result_.unreadable.back();
            const std::uint64_t known = last.sector + last.count;
            if (end <= known)  // where two pieces overlap
                continue;
            if (known >= from && last.error == error) {
                last.count = end - last.sector;
                continue;
            }
        }
        result_.unreadable.push_back({from, end - from, error});
    }
}

void Search::take_head(FoundRun& run, const Head& head, Verdict verdict) {
    run.verdict = verdict;
    run.position = head.position;
    run.copy = head.copy;
    run.oldest = run.newest = head.generation;
    run.head = head;
    run.set = head.set_uuid;
    run.nonce = head.nonce;
    run.seed = crc_seed(head.set_uuid, head.nonce);
    if (verdict == Verdict::current || verdict == Verdict::misplaced)
        sets_.emplace(run.seed, std::pair(head.set_uuid, head.nonce));
}

void Search::headed(std::uint64_t sector, ConstBytes bytes) {
    FoundRun run;
    const auto role = bytes[offsetof(remap_head, role)];
    const bool label = role == REMAP_ROLE_MAIN || bytes.size() < REMAP_SB_SIZE;

    run.sector = sector;
    run.stride = structure_sectors;
    if (label) {
        auto decoded = decode_label(bytes, sector);
        run.kind = StructureKind::label;
        run.stride = 1;
        take_head(run, decoded.value.head, decoded.verdict);
        run.problem = std::move(decoded.problem);
    } else {
        auto decoded = decode_superblock(bytes.first(REMAP_SB_SIZE), sector);
        take_head(run, decoded.value.head, decoded.verdict);
        run.problem = std::move(decoded.problem);
    }
    add(std::move(run));
}

void Search::filler(std::uint64_t sector, ConstBytes bytes) {
    auto decoded = decode_filler(bytes, sector);
    FoundRun run;

    run.kind = StructureKind::filler;
    run.sector = sector;
    run.stride = decoded.value.head.block_shift == 12 ? structure_sectors : 1;
    take_head(run, decoded.value.head, decoded.verdict);
    run.head.reset();
    run.problem = std::move(decoded.problem);
    add(std::move(run));
}

void Search::table_block(std::uint64_t sector, ConstBytes bytes) {
    remap_table_block raw;
    FoundRun run;

    if (bytes.size() < REMAP_TABLE_BLOCK_SIZE)
        return;
    std::memcpy(&raw, bytes.data(), REMAP_TABLE_HEADER_SIZE);
    run.kind = StructureKind::table_block;
    run.sector = sector;
    run.stride = structure_sectors;
    run.position = le64toh(raw.position);
    run.copy = raw.copy;
    run.index = le64toh(raw.index);
    run.in_use = le16toh(raw.in_use);
    run.oldest = run.newest = le64toh(raw.generation);
    run.seed = table_block_seed(bytes.first(REMAP_TABLE_BLOCK_SIZE));
    run.verdict = run.position == sector ? Verdict::current : Verdict::misplaced;
    constexpr std::uint64_t most_blocks = REMAP_MAX_SLOTS / REMAP_ENTRIES_PER_BLOCK + 1;
    if (raw.segment != 0 || run.copy >= REMAP_MAX_TABLE_COPIES || run.index >= most_blocks ||
        run.in_use > REMAP_ENTRIES_PER_BLOCK) {
        run.verdict = Verdict::implausible;
        run.problem = {"header", "numbers inside their bounds", "others"};
    }
    add(std::move(run));
}

/// Joins what follows from the last run.
void Search::add(FoundRun&& run) {
    if (!result_.found.empty() && run.kind != StructureKind::superblock &&
        run.kind != StructureKind::label) {
        FoundRun& last = result_.found.back();
        const bool follows = last.kind == run.kind && last.verdict == run.verdict &&
                             last.seed == run.seed && last.shift() == run.shift() &&
                             last.stride == run.stride && last.copy == run.copy &&
                             last.sector + last.count * last.stride == run.sector;
        const bool in_order =
            run.kind == StructureKind::filler || last.index + last.count == run.index;
        if (follows && in_order) {
            last.count++;
            last.in_use += run.in_use;
            last.oldest = std::min(last.oldest, run.oldest);
            last.newest = std::max(last.newest, run.newest);
            return;
        }
    }
    result_.found.push_back(std::move(run));
}

void Search::look_at(std::uint64_t sector, ConstBytes bytes) {
    if (bytes[0] == REMAP_TABLE_MAGIC[0]) {
        if (std::memcmp(bytes.data(), REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE) == 0)
            table_block(sector, bytes);
    } else if (std::memcmp(bytes.data(), REMAP_MAGIC, REMAP_MAGIC_SIZE) == 0) {
        headed(sector, bytes);
    } else if (std::memcmp(bytes.data(), REMAP_FILLER_MAGIC, REMAP_MAGIC_SIZE) == 0) {
        filler(sector, bytes);
    }
}

/// A table block names no set. It is one of a known set's, or at least one of several of the same.
void Search::verify_table_blocks() {
    std::map<std::uint32_t, std::uint64_t> blocks;

    for (const FoundRun& run : result_.found) {
        if (run.kind == StructureKind::table_block && run.verdict != Verdict::implausible)
            blocks[run.seed] += run.count;
    }
    for (FoundRun& run : result_.found) {
        if (run.kind != StructureKind::table_block || run.verdict == Verdict::implausible)
            continue;
        const auto set = sets_.find(run.seed);
        if (set != sets_.end()) {
            run.set = set->second.first;
            run.nonce = set->second.second;
        } else if (blocks[run.seed] < 2) {
            run.verdict = Verdict::bad_crc;
            run.problem = {"crc", "that of a set that is known, or of another block",
                           "one of its own"};
        }
        if (run.verdict == Verdict::misplaced)
            run.problem = {"position", cat("sector ", run.sector), cat("sector ", run.position)};
    }
}

SearchResult Search::run() {
    const std::uint64_t end = std::min(options_.end, io_.size());
    AlignedBuffer buffer(chunk_sectors * sector_size);

    for (const auto& set : options_.known_sets)
        sets_.emplace(crc_seed(set.first, set.second), set);
    for (std::uint64_t at = options_.first; at < end; at += step_sectors) {
        const std::uint64_t count = std::min(chunk_sectors, end - at);
        const Bytes bytes = buffer.bytes().first(count * sector_size);
        read_chunk(at, bytes);
        for (std::uint64_t s = 0; s < std::min(count, step_sectors); s++)
            look_at(at + s, bytes.subspan(s * sector_size));
        if (options_.progress)
            options_.progress(std::min(at + step_sectors, end) - options_.first,
                              end - options_.first);
    }
    verify_table_blocks();
    return std::move(result_);
}

}  // namespace

const char* structure_name(StructureKind kind) {
    switch (kind) {
        case StructureKind::superblock:
            return "superblock";
        case StructureKind::label:
            return "label";
        case StructureKind::filler:
            return "filler";
        case StructureKind::table_block:
            return "table block";
    }
    return "unknown";
}

SearchResult search_device(BlockIo& io, const SearchOptions& options) {
    return Search(io, options).run();
}

std::uint32_t table_block_seed(ConstBytes bytes) {
    std::uint32_t crc = 0;
    constexpr std::size_t at = offsetof(remap_table_block, crc);

    std::memcpy(&crc, bytes.data() + at, sizeof(crc));
    // crc = ~(shift(~seed) ^ contribution), solved for the seed.
    const std::uint32_t contribution = ~crc_structure(~std::uint32_t{0}, bytes, at);
    return ~unshift_block(~le32toh(crc) ^ contribution);
}

}  // namespace remap
