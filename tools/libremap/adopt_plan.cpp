// SPDX-License-Identifier: GPL-2.0-or-later
//
// What adoption decides before its first write.
#include <algorithm>
#include <utility>

#include "libremap/adopt.hpp"
#include "libremap/error.hpp"
#include "libremap/layout.hpp"
#include "libremap/metadata.hpp"
#include "libremap/places.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// Room that a set must have for remaps besides the hidden blocks.
constexpr std::uint64_t fewest_free_slots = 64;
/// Bytes that are hidden around a signature.
constexpr std::uint64_t hidden_place = 4096;
constexpr unsigned int most_rounds = 16;
constexpr std::uint32_t first_epoch = 1;

/// The 4 KiB around a signature.
ByteRange around(const ByteRange& magic) {
    const std::uint64_t start = magic.offset / hidden_place * hidden_place;
    const std::uint64_t end = magic.offset + std::max<std::uint64_t>(magic.length, 1);
    return {start, (end - start + hidden_place - 1) / hidden_place * hidden_place};
}

/// First block of every extent, last block of the main, the block that decides; the last two are
/// never left out.
std::vector<std::uint64_t> label_places(const Superblock& superblock) {
    std::set<std::uint64_t> blocks = {deciding_block(superblock), superblock.main_blocks() - 1};
    for (const Hidden& extent : superblock.hidden) {
        if (blocks.size() < REMAP_MAX_LABELS) {
            blocks.insert(extent.start);
        }
    }
    std::vector<std::uint64_t> sectors;
    sectors.reserve(blocks.size());
    for (const std::uint64_t block : blocks) {
        sectors.push_back(block * superblock.block_sectors());
    }
    return sectors;
}

void choose_places(Superblock& superblock, const std::set<std::uint64_t>& blocks) {
    superblock.hidden = extents_of(blocks);
    superblock.label_sector = label_places(superblock);
}

std::vector<Patch> concealing_patches(const Superblock& superblock) {
    std::vector<Patch> patches;
    for (const std::uint64_t block : hidden_blocks_of(superblock)) {
        patches.push_back({block * superblock.block_sectors(), place_bytes(superblock, block)});
    }
    return patches;
}

/// Hides these places, then whatever libblkid would still see, until it sees nothing.
void plan_hidden(BlockIo& main, std::set<std::uint64_t> blocks, Superblock& superblock,
                 AdoptPlan& plan) {
    blocks.insert(plan.vital.begin(), plan.vital.end());
    for (unsigned int round = 0; round < most_rounds; ++round) {
        choose_places(superblock, blocks);
        const auto seen = signatures_if(main, concealing_patches(superblock));
        if (seen.empty()) {
            return;
        }
        const std::size_t before = blocks.size();
        for (const Signature& signature : seen) {
            hide_bytes(superblock, blocks, around(signature.magic));
            hide_bytes(superblock, plan.vital, signature.magic);
        }
        if (blocks.size() == before) {
            throw Error(
                Exit::unrecognised,
                cat(main.name(), ": cannot be hidden, would still be seen as ", describe(seen)));
        }
    }
    throw Error(Exit::unrecognised, cat(main.name(), ": libblkid sees ever more on it"));
}

LayoutRequest layout_request(const Superblock& superblock) {
    return {superblock.spare_size, superblock.main_size, superblock.block_sectors(),
            superblock.hidden_blocks() + (superblock.is_bare() ? 0 : fewest_free_slots), 0};
}

bool fits(LayoutRequest request, std::uint64_t spare_size) {
    request.spare_size = spare_size;
    try {
        plan_layout(request);
        return true;
    } catch (const Error&) {
        return false;
    }
}

/// Sectors that a spare must have, rounded up to 64 KiB.
std::uint64_t needed_spare(const LayoutRequest& request) {
    constexpr std::uint64_t step = 128;
    std::uint64_t size = std::max<std::uint64_t>(
        REMAP_MIN_SPARE_SECTORS, request.hidden_blocks * request.block_sectors / step * step);
    while (!fits(request, size)) {
        size += step;
    }
    return size;
}

void plan_spare(BlockIo& spare, Superblock& superblock) {
    const LayoutRequest request = layout_request(superblock);
    // A main smaller than what is asked for beside its hidden blocks never needs more slots
    // than it has blocks.
    LayoutRequest bounded = request;
    bounded.hidden_blocks = std::min(request.hidden_blocks, superblock.main_blocks());
    if (!fits(bounded, superblock.spare_size)) {
        const std::uint64_t needed = needed_spare(bounded);
        throw Error(Exit::usage,
                    cat(spare.name(), ": too small for a spare: it has ", superblock.spare_size,
                        " sectors, at least ", needed, " (", needed / 2, " KiB) are needed"));
    }
    const Layout layout = plan_layout(bounded);
    superblock.sb_sector = layout.sb_sector;
    superblock.table_length = layout.table_length;
    superblock.segments = {layout.segment};
    superblock.segments[0].member = 1;
    superblock.live_copies = static_cast<std::uint8_t>((1U << layout.segment.nr_copies) - 1);
}

std::vector<Patch> wiped_patches(const AdoptPlan& plan) {
    std::vector<Patch> patches;
    for (const ByteRange& range : plan.wipe) {
        patches.push_back({range.offset / sector_size, std::vector<std::uint8_t>(range.length)});
    }
    return patches;
}

/// The spare as it will be: wiped, with the hidden blocks in slots.
std::vector<Patch> spare_patches(const AdoptPlan& plan, const HiddenContent& content) {
    const Superblock& superblock = plan.superblock;
    std::vector<Patch> patches = wiped_patches(plan);
    for (const std::uint64_t sector : superblock.sb_sector) {
        patches.push_back({sector, std::vector<std::uint8_t>(REMAP_SB_SIZE)});
    }
    std::uint64_t slot = plan.skip_slots;
    for (std::size_t i = 0; i < content.blocks.size(); ++i, ++slot) {
        while (superblock.slot_reserved(slot)) {
            ++slot;
        }
        const ConstBytes bytes = content.at(i);
        patches.push_back({superblock.slot_sector(slot), {bytes.begin(), bytes.end()}});
    }
    return patches;
}

/// A payload's signature must not come to lie where it counts on the raw spare either.
void plan_skipped_slots(BlockIo& main, BlockIo& spare, AdoptPlan& plan) {
    const std::uint64_t step = REMAP_SB_SECTORS / plan.superblock.block_sectors();
    MainBlocks blocks(main, plan.superblock.block_sectors());
    const HiddenContent content = read_hidden(blocks, plan.superblock);
    std::vector<Signature> seen;
    for (; plan.skip_slots < fewest_free_slots; plan.skip_slots += step) {
        seen = signatures_if(spare, spare_patches(plan, content));
        if (seen.empty()) {
            return;
        }
    }
    throw Error(Exit::unrecognised, cat(spare.name(), ": would still be seen as ", describe(seen)));
}

std::string cut(const std::string& text, std::size_t size) {
    return text.substr(0, size);
}

Member make_member(const Identity& identity, remap_role role, std::uint64_t size) {
    Member member;
    member.uuid = Uuid::random();
    member.role = static_cast<std::uint8_t>(role);
    member.size = size;
    member.wwn = cut(identity.wwn, REMAP_WWN_SIZE);
    member.serial = cut(identity.serial, REMAP_SERIAL_SIZE);
    member.partuuid = cut(identity.partuuid, REMAP_PARTUUID_SIZE);
    return member;
}

Superblock new_superblock(const BlockIo& main, const BlockIo& spare, const AdoptRequest& request) {
    Superblock superblock;
    superblock.head.role = REMAP_ROLE_SPARE;
    superblock.head.state = request.bare ? REMAP_STATE_COMPLETE : REMAP_STATE_ADOPTING;
    superblock.head.block_shift = request.block_size == sector_size ? 9 : 12;
    superblock.head.flags = request.bare ? REMAP_FLAG_BARE : 0;
    superblock.head.set_uuid = request.set ? *request.set : Uuid::random();
    superblock.head.nonce = random_u64();
    superblock.head.generation = next_generation(first_epoch, 0);
    superblock.epoch = first_epoch;
    superblock.label_epoch = request.bare ? 0 : first_epoch;
    superblock.main_size = main.size() / superblock.block_sectors() * superblock.block_sectors();
    superblock.spare_size = spare.size();
    superblock.created = request.now;
    superblock.updated = request.now;
    superblock.label = request.label;
    superblock.tool = cut(cat("remapsetup ", REMAP_TOOL_VERSION), REMAP_TOOL_SIZE);
    superblock.members = {make_member(request.main_identity, REMAP_ROLE_MAIN, main.size()),
                          make_member(request.spare_identity, REMAP_ROLE_SPARE, spare.size())};
    superblock.head.partner_uuid = superblock.members[0].uuid;
    superblock.head.member_uuid = superblock.members[1].uuid;
    return superblock;
}

/// Chooses what is wiped on the spare besides superblock places: both ends, where an earlier life
/// as a main may have left a label, and whatever libblkid sees.
void plan_wipe(BlockIo& spare, AdoptPlan& plan) {
    const std::uint64_t whole = spare.size() & ~std::uint64_t{REMAP_SB_SECTORS - 1};
    const std::uint64_t end = spare.size() * sector_size;
    plan.wipe = {{0, REMAP_SB_SECTORS * sector_size},
                 {whole * sector_size, end - whole * sector_size}};
    for (unsigned int round = 0; round < most_rounds; ++round) {
        const auto seen = signatures_if(spare, wiped_patches(plan));
        if (seen.empty()) {
            return;
        }
        for (const Signature& signature : seen) {
            ByteRange range = around(signature.magic);
            range.length = std::min(range.length, end - range.offset);
            plan.wipe.push_back(range);
        }
    }
    throw Error(Exit::unrecognised, cat(spare.name(), ": libblkid sees ever more on it"));
}

void require_room_for_zfs(const BlockIo& main, const Superblock& superblock) {
    const std::uint64_t size = superblock.main_size * sector_size;
    if (size < smallest_zfs) {
        throw Error(Exit::usage, cat(main.name(), ": too small for ZFS: it has ", size,
                                     " bytes, at least ", smallest_zfs, " are needed"));
    }
}

}  // namespace

AdoptPlan plan_adoption(BlockIo& main, BlockIo& spare, const AdoptRequest& request) {
    AdoptPlan plan;
    plan.entry_time = static_cast<std::uint32_t>(request.now);
    plan_wipe(spare, plan);
    plan.superblock = new_superblock(main, spare, request);
    require_main_size(main, plan.superblock.main_size);
    if (!request.bare) {
        plan.superblock.deciding_sector = request.payload.deciding_sector;
        for (const ByteRange& magic : request.payload.signatures) {
            hide_bytes(plan.superblock, plan.vital, magic);
        }
        for (const ByteRange& replica : request.payload.replicas) {
            hide_bytes(plan.superblock, plan.replicas, replica);
        }
        plan.replicas.erase(deciding_block(plan.superblock));
        std::set<std::uint64_t> places = standard_places(plan.superblock);
        if (request.zfs) {
            require_room_for_zfs(main, plan.superblock);
            places.merge(zfs_places(plan.superblock));
        }
        plan_hidden(main, std::move(places), plan.superblock, plan);
    }
    plan_spare(spare, plan.superblock);
    plan_skipped_slots(main, spare, plan);
    return plan;
}

}  // namespace remap
