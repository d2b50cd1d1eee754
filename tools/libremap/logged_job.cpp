// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/logged_job.hpp"

#include <algorithm>

#include "libremap/error.hpp"
#include "libremap/metadata.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// Notes what lies there now, so that it counts as logged.
void note_reserve(WriteJournal& journal, BlockIo& spare, const std::vector<SectorRun>& reserve) {
    std::vector<std::uint8_t> bytes(sector_size);

    for (const SectorRun& run : reserve) {
        for (std::uint64_t sector = run.start; sector < run.start + run.count; sector++) {
            if (journal.images(0, sector) || sector >= spare.size())
                continue;
            // What cannot be read is not given back; the undo file says so.
            if (spare.try_read(sector, bytes) != 0)
                std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
            journal.note(0, sector, bytes);
        }
    }
}

}  // namespace

RehearsedJob::RehearsedJob(BlockIo& spare, const std::vector<SectorRun>& reserve,
                           const SpareJob& job) {
    OverlayIo overlay(spare, &rehearsal.journal, 0);
    Observer quiet;

    job(overlay, quiet);
    // What there was of the set before is not newer.
    const Superblock after = load_superblock(overlay);
    rehearsal.epoch_limit = after.epoch;
    rehearsal.generation_limit =
        std::max(after.head.generation, load_table(overlay, after).highest_generation);
    note_reserve(rehearsal.journal, spare, reserve);
    header = undo_header(after, rehearsal);
}

void run_logged(BlockIo& spare, const UndoWish& wish, const std::vector<SectorRun>& reserve,
                const SpareJob& job, Observer& observer) {
    const RehearsedJob rehearsed(spare, reserve, job);
    const WriteJournal& journal = rehearsed.rehearsal.journal;
    const auto sink = journal.empty()
                          ? nullptr
                          : keep_undo(wish, rehearsed.header, journal, spare, nullptr,
                                      [&observer](const std::string& why) {
                                          observer.warning(cat("no undo file is written: ", why));
                                      });

    if (!sink) {
        job(spare, observer);
        return;
    }
    if (wish.told)
        wish.told(cat(spare.name(), ": to take it back: remap-fsck --undo ", sink->path(), " ",
                      spare.name()));
    GuardIo guarded(
        spare, journal, 0,
        [&](unsigned int member, std::uint64_t sector, const std::vector<std::uint32_t>& crcs) {
            add_undo_images(*sink, rehearsed.header.id, member, sector, crcs);
        });
    job(guarded, observer);
    if (guarded.refused() > 0)
        throw Error(Exit::operational,
                    cat(spare.name(), ": ", guarded.refused(),
                        " writes were not made: they were not in the undo file ", sink->path()));
}

}  // namespace remap
