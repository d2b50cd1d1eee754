// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/rehearsal.hpp"

#include <algorithm>
#include <ctime>
#include <optional>

#include "libremap/metadata.hpp"

namespace remap {
namespace {

void raise_limits(Rehearsal& rehearsal, const SuperblockScan& scan) {
    rehearsal.generation_limit = std::max(rehearsal.generation_limit, scan.highest_generation);
    for (const SuperblockCopy& copy : scan.copies) {
        if (copy.value)
            rehearsal.epoch_limit = std::max(rehearsal.epoch_limit, copy.value->epoch);
    }
}

/// What the set looks like after the repair.
void look_after(Rehearsal& rehearsal, BlockIo& spare) {
    const SuperblockScan scan = scan_superblocks(spare);

    raise_limits(rehearsal, scan);
    if (!scan.winner || check_geometry(*scan.winner, spare.size()))
        return;
    rehearsal.generation_limit =
        std::max(rehearsal.generation_limit, load_table(spare, *scan.winner).highest_generation);
}

}  // namespace

Rehearsal rehearse(const CheckResult& result, BlockIo& spare, BlockIo* main, const Wanted& wanted) {
    Rehearsal rehearsal;
    CheckResult copy = result;
    OverlayIo on_spare(spare, &rehearsal.journal, 0);
    std::optional<OverlayIo> on_main;

    if (main)
        on_main.emplace(*main, &rehearsal.journal, 1);
    apply_plan(copy, on_spare, main ? &*on_main : nullptr, wanted);
    raise_limits(rehearsal, result.scan);
    rehearsal.generation_limit =
        std::max(rehearsal.generation_limit, result.table.highest_generation);
    look_after(rehearsal, on_spare);
    return rehearsal;
}

UndoHeader undo_header(const Superblock& superblock, const Rehearsal& rehearsal) {
    UndoHeader header;
    UndoMember spare;

    header.id = random_u64();
    header.time = static_cast<std::uint64_t>(std::time(nullptr));
    header.tool = REMAP_TOOL_VERSION;
    header.set_uuid = superblock.head.set_uuid;
    header.nonce = superblock.head.nonce;
    header.epoch_limit = rehearsal.epoch_limit;
    header.generation_limit = rehearsal.generation_limit;
    spare.role = REMAP_ROLE_SPARE;
    spare.uuid = superblock.head.member_uuid;
    spare.place_sectors = REMAP_SB_SECTORS;
    spare.places.assign(superblock.sb_sector.begin(), superblock.sb_sector.end());
    header.members.push_back(spare);
    if (rehearsal.journal.writes(1)) {
        UndoMember main;
        main.role = REMAP_ROLE_MAIN;
        main.uuid = superblock.head.partner_uuid;
        main.places = superblock.label_sector;
        header.members.push_back(main);
    }
    return header;
}

unsigned int apply_rehearsed(CheckResult& result, const Rehearsal& rehearsal, BlockIo& spare,
                             BlockIo* main, const Wanted& wanted, UndoSink& sink,
                             std::uint64_t id) {
    const auto add = [&](unsigned int member, std::uint64_t sector,
                         const std::vector<std::uint32_t>& crcs) {
        add_undo_images(sink, id, member, sector, crcs);
    };
    GuardIo on_spare(spare, rehearsal.journal, 0, add);
    std::optional<GuardIo> on_main;

    if (main)
        on_main.emplace(*main, rehearsal.journal, 1, add);
    apply_plan(result, on_spare, main ? &*on_main : nullptr, wanted);
    return on_spare.refused() + (main ? on_main->refused() : 0);
}

}  // namespace remap
