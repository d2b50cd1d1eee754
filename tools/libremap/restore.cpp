// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/restore.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libremap/error.hpp"
#include "libremap/export.hpp"
#include "libremap/identity.hpp"
#include "libremap/input.hpp"
#include "libremap/logged_job.hpp"
#include "libremap/metadata.hpp"
#include "libremap/pair.hpp"
#include "libremap/probe.hpp"
#include "libremap/set_reader.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/spare_target.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint64_t chunk_blocks = 64;

/// The winning entries of one table block.
std::span<const Entry> entries_of(const StagedSet& set, std::uint64_t index) {
    return std::span(set.entries).subspan(index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK);
}

bool is_live(const Superblock& sb, unsigned int copy) {
    return (sb.live_copies & (1U << copy)) != 0;
}

bool inside(const BlockIo& target, std::uint64_t sector) {
    return sector <= target.size() && target.size() - sector >= REMAP_TABLE_BLOCK_SECTORS;
}

/// Calls `each(index, sector, bytes, error)` for every table block that one copy has room for.
template <typename Each>
void read_copy(BlockIo& target, const Superblock& sb, unsigned int copy, const Each& each) {
    AlignedBuffer buffer(chunk_blocks * REMAP_TABLE_BLOCK_SIZE);
    const std::uint64_t blocks = sb.segment().table_blocks();

    for (std::uint64_t at = 0; at < blocks; at += chunk_blocks) {
        const std::uint64_t count = std::min(chunk_blocks, blocks - at);
        const Bytes bytes = buffer.bytes().first(count * REMAP_TABLE_BLOCK_SIZE);
        const bool whole = target.try_read(sb.table_sector(at, copy), bytes) == 0;
        for (std::uint64_t i = 0; i < count; i++) {
            const Bytes block = bytes.subspan(i * REMAP_TABLE_BLOCK_SIZE, REMAP_TABLE_BLOCK_SIZE);
            const std::uint64_t sector = sb.table_sector(at + i, copy);
            const int error = whole ? 0 : target.try_read(sector, block);
            each(at + i, sector, ConstBytes(block), error);
        }
    }
}

void see_generation(RestoreTarget& found, std::uint64_t generation, std::uint64_t sector) {
    found.same_spare = true;
    if (generation > found.newest_generation) {
        found.newest_generation = generation;
        found.newest_sector = sector;
    }
}

void look_at_superblocks(const SuperblockScan& scan, const StagedSet& set, RestoreTarget& found) {
    const Head& head = set.superblock.head;

    for (const SuperblockCopy& copy : scan.copies) {
        if (copy.value && copy.value->head.set_uuid == head.set_uuid &&
            copy.value->head.nonce == head.nonce &&
            copy.value->head.member_uuid == head.member_uuid)
            see_generation(found, copy.value->head.generation, copy.sector);
    }
}

/// Does the target hold exactly these bytes?
bool holds(BlockIo& target, std::uint64_t sector, ConstBytes bytes) {
    std::vector<std::uint8_t> there(bytes.size());

    return target.try_read(sector, there) == 0 &&
           std::equal(bytes.begin(), bytes.end(), there.begin());
}

/// Do two sets say the same? The places of the superblock's copies are among it.
bool same_content(const StagedSet& a, const StagedSet& b) {
    return a.superblock == b.superblock && a.generations == b.generations && a.entries == b.entries;
}

}  // namespace

RestoreTarget look_at_target(BlockIo& target, const StagedSet& set) {
    const Superblock& sb = set.superblock;
    RestoreTarget found;

    look_at_superblocks(scan_superblocks(target), set, found);
    found.identical = found.same_spare;
    for (unsigned int copy = 0; found.identical && copy < REMAP_SB_COPIES; copy++)
        found.identical = holds(target, sb.sb_sector[copy], encode_superblock(sb, copy));
    for (unsigned int copy = 0; copy < sb.segment().nr_copies; copy++) {
        read_copy(
            target, sb, copy,
            [&](std::uint64_t index, std::uint64_t sector, ConstBytes bytes, int error) {
                if (error) {
                    found.identical = false;
                    found.trouble.push_back(cat("sector ", sector, ": ", std::strerror(error)));
                    return;
                }
                const auto decoded = decode_table_header(bytes, sb.seed(), index, copy, sector);
                if (decoded.valid())
                    see_generation(found, decoded.value.generation, sector);
                if (!found.identical || !is_live(sb, copy) || index >= sb.table_length)
                    return;
                const auto wanted = table_block_bytes(sb, copy, index, set.generations[index],
                                                      entries_of(set, index));
                found.identical = std::equal(wanted.begin(), wanted.end(), bytes.begin());
            });
    }
    return found;
}

void require_restorable(BlockIo& target, const StagedSet& set, const RestoreTarget& found) {
    const Superblock& sb = set.superblock;
    const std::uint64_t newest = set.highest_generation();

    if (const auto problem = check_geometry(sb, target.size()))
        throw Error(Exit::unrecognised,
                    cat(target.name(), ": the set does not fit: ", problem->field, ": expected ",
                        problem->expected, ", found ", problem->found));
    for (const std::uint64_t sector : sb.sb_sector) {
        if (!inside(target, sector))
            throw Error(
                Exit::unrecognised,
                cat(target.name(), ": the set does not fit: a superblock belongs at sector ",
                    sector, ", the device has ", target.size()));
    }
    if (target.logical_block_size() > sb.block_size())
        throw Error(Exit::unrecognised,
                    cat(target.name(), ": expected logical blocks of at most ", sb.block_size(),
                        " bytes, found ", target.logical_block_size()));
    // Blocks that were remapped since would be read from the main again, where they are stale.
    if (found.newest_generation > newest)
        throw Error(
            Exit::unrecognised,
            cat(target.name(), ": sector ", found.newest_sector,
                ": the set there is newer than the dump: expected a generation of at most ",
                generation_text(newest), ", found ", generation_text(found.newest_generation),
                "; what was remapped in between would be forgotten. remap-fsck repairs "
                "what is there"));
}

void lose_slots(StagedSet& set) {
    const std::uint64_t generation =
        next_generation(set.superblock.epoch, set.highest_generation());

    for (std::uint64_t index = 0; index < set.generations.size(); index++) {
        const std::span<Entry> entries =
            std::span(set.entries)
                .subspan(index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK);
        for (Entry& e : entries) {
            if (e.state() != REMAP_ENTRY_MAPPED)
                continue;
            e = Entry::make(REMAP_ENTRY_LOST, e.block(), static_cast<remap_entry_cause>(e.cause()),
                            e.error(), e.sequence(), e.time());
            set.generations[index] = generation;
        }
    }
    set.superblock.head.generation = next_generation(set.superblock.epoch, generation);
}

namespace {

/// Blocks of the same life that do not belong to the set as it is restored: behind its length, and
/// in dead copies. They would verify, and a search for lost metadata would find them.
void wipe_leftovers(BlockIo& target, const StagedSet& set) {
    const Superblock& sb = set.superblock;
    const TableBlockBytes zero{};

    for (unsigned int copy = 0; copy < sb.segment().nr_copies; copy++) {
        read_copy(target, sb, copy,
                  [&](std::uint64_t index, std::uint64_t sector, ConstBytes bytes, int error) {
                      if (error || (is_live(sb, copy) && index < sb.table_length))
                          return;
                      if (decode_table_header(bytes, sb.seed(), index, copy, sector).valid())
                          target.write(sector, zero);
                  });
    }
}

void write_copy(BlockIo& target, const StagedSet& set, unsigned int copy, Observer& observer) {
    const Superblock& sb = set.superblock;
    AlignedBuffer buffer(chunk_blocks * REMAP_TABLE_BLOCK_SIZE);

    for (std::uint64_t at = 0; at < sb.table_length; at += chunk_blocks) {
        const std::uint64_t count = std::min(chunk_blocks, sb.table_length - at);
        for (std::uint64_t i = 0; i < count; i++) {
            const auto bytes = table_block_bytes(sb, copy, at + i, set.generations[at + i],
                                                 entries_of(set, at + i));
            std::copy(bytes.begin(), bytes.end(),
                      buffer.bytes().subspan(i * REMAP_TABLE_BLOCK_SIZE).begin());
        }
        target.write(sb.table_sector(at, copy),
                     buffer.bytes().first(count * REMAP_TABLE_BLOCK_SIZE));
        observer.progress("writing the table",
                          (copy * sb.table_length + at + count) * REMAP_TABLE_BLOCK_SECTORS,
                          sb.segment().nr_copies * sb.table_length * REMAP_TABLE_BLOCK_SECTORS);
    }
    target.flush();
}

}  // namespace

void write_set(BlockIo& target, const StagedSet& set, Observer& observer) {
    wipe_superblocks(target);
    wipe_leftovers(target, set);
    for (unsigned int copy = 0; copy < set.superblock.segment().nr_copies; copy++) {
        if (is_live(set.superblock, copy))
            write_copy(target, set, copy, observer);
    }
    write_superblock(target, set.superblock);
}

RestoreJob::RestoreJob(RestoreOptions options) : options_(std::move(options)) {
    InputFile file(options_.dump);
    SetBuilder builder;

    read_dump(file, file.name(), builder);
    set_ = builder.take();
    if (set_.info.taken_in_use && !options_.force)
        throw Error(Exit::usage, cat(file.name(),
                                     ": was made while the set was in use; what was remapped "
                                     "afterwards would be forgotten, and read stale from the "
                                     "main; --force takes it all the same"));
    inspect_target();
    inspect_main();
    decide_slots();
}

void RestoreJob::inspect_target() {
    target_ = open_spare_target(options_.target);
    found_ = look_at_target(*target_, set_);
    require_restorable(*target_, set_, found_);
    const TargetContent content = content_of_target(*target_);
    const bool this_set = content.set && *content.set == set_.superblock.head.set_uuid;
    const bool in_order = this_set && content.usable;
    replaced_ = content.description;
    // Its labels hide a payload; written over, that payload would be gone.
    if (content.is_main)
        throw Error(Exit::unrecognised,
                    cat(options_.target, ": expected a spare, found ", content.description,
                        "; --force does not override "
                        "this"));
    if (found_.identical)
        return;
    if (!options_.force && ((content.anything && !found_.same_spare) || in_order))
        refuse_without_force(options_.target, content.description);
}

void RestoreJob::inspect_main() {
    if (!options_.main)
        return;
    const auto main = open_block_io(*options_.main, Mode::read_only);
    require_pair(*main, options_.target, set_.superblock, identify_path(*options_.main));
}

void RestoreJob::decide_slots() {
    const bool mapped = std::any_of(set_.entries.begin(), set_.entries.end(),
                                    [](const Entry& e) { return e.state() == REMAP_ENTRY_MAPPED; });

    if (mapped && !found_.same_spare && options_.slots == SlotData::unknown)
        throw Error(Exit::usage,
                    cat(options_.target,
                        ": nothing of this set is on it, and the data in the slots is not in a "
                        "dump. If that data is there (the device was copied, or only its metadata "
                        "were lost), say --slots-in-place; otherwise --slots-lost, and what was "
                        "remapped reads as an error until it is written again"));
    if (options_.slots == SlotData::lost)
        lose_slots(set_);
}

std::string RestoreJob::consequences() const {
    const auto count = [this](std::uint8_t state) {
        return std::count_if(set_.entries.begin(), set_.entries.end(),
                             [state](const Entry& e) { return e.state() == state; });
    };
    std::string text =
        cat(options_.target, ": becomes the spare of set ", set_.superblock.head.set_uuid,
            ", generation ", generation_text(set_.highest_generation()), ", ",
            count(REMAP_ENTRY_MAPPED), " blocks mapped, ", count(REMAP_ENTRY_LOST), " lost.");

    if (!replaced_.empty())
        text += cat("\nWhat it holds now is replaced: ", replaced_, ".");
    if (options_.slots != SlotData::lost)
        text +=
            "\nOnly metadata is written. The data of remapped blocks must be in its slots "
            "already; it is not in the dump.";
    return text;
}

void RestoreJob::run(Observer& observer) {
    if (found_.identical && options_.slots != SlotData::lost)
        return;
    for (const std::string& text : found_.trouble)
        observer.warning(cat(options_.target, ": ", text));
    const SpareJob job = [this](BlockIo& target, Observer& to) { write_set(target, set_, to); };
    options_.undo.devices = {options_.target};
    if (options_.undo.file || !replaced_.empty() || found_.same_spare)
        run_logged(*target_, options_.undo, {}, job, observer);
    else
        job(*target_, observer);
    SetBuilder read_back;
    const Exit whole = visit_set(*target_, false, read_back);
    if (!same_content(read_back.take(), set_))
        throw Error(Exit::operational,
                    cat(options_.target, ": what was written is not what is read back"));
    if (whole != Exit::ok)
        observer.warning(
            cat(options_.target, ": not every copy could be written; remap-fsck -n tells which"));
}

}  // namespace remap
