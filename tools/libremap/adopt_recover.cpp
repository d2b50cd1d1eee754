// SPDX-License-Identifier: GPL-2.0-or-later
//
// The end of every adoption, and the way to one of two states after a power cut.
#include <algorithm>
#include <cstring>
#include <ctime>
#include <map>

#include "libremap/adopt.hpp"
#include "libremap/error.hpp"
#include "libremap/metadata.hpp"
#include "libremap/pair.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// The one write that decides. That it failed is not the end: what counts is what can be read.
void decide(MainBlocks& main, const Superblock& superblock) {
    const std::uint64_t block = deciding_block(superblock);
    const int error = conceal_block(main, superblock, block);
    main.io().flush();
    const Place place = look_at_place(main, superblock, block);
    if (place != Place::ours && place != Place::unreadable) {
        throw NotDecided(cat(main.io().name(), ": sector ", main.sector(block),
                             ": the write that decides had no effect: ",
                             error != 0 ? std::strerror(error) : "it reads as before"));
    }
}

/// Main block to slot, from the spare's table; damage in the table is for remap-fsck.
std::map<std::uint64_t, Mapping> mappings_by_block(BlockIo& spare, const Superblock& superblock) {
    std::map<std::uint64_t, Mapping> by_block;
    for (const Mapping& mapping : live_mappings(load_intact_table(spare, superblock))) {
        by_block[mapping.block] = mapping;
    }
    return by_block;
}

struct PlaceCounts {
    std::uint64_t ours = 0;
    std::uint64_t foreign = 0;
};

PlaceCounts count_places(MainBlocks& main, const Superblock& superblock) {
    PlaceCounts counts;
    for (const std::uint64_t block : hidden_blocks_of(superblock)) {
        const Place place = look_at_place(main, superblock, block);
        counts.ours += place == Place::ours ? 1 : 0;
        counts.foreign += place == Place::foreign ? 1 : 0;
    }
    return counts;
}

/// What the main holds, held against what was copied from it.
struct Comparison {
    std::uint64_t filled = 0;       ///< slots that hold anything but zeroes
    std::uint64_t filled_same = 0;  ///< of these, those whose block is the same
    bool all_same = true;           ///< every hidden block was compared, and is the same
    bool deciding_differs = true;   ///< the deciding block can be read and is not as copied
};

Comparison compare_content(MainBlocks& main, BlockIo& spare, const Superblock& superblock) {
    Comparison result;
    const std::uint64_t deciding = deciding_block(superblock);
    std::set<std::uint64_t> hidden = hidden_blocks_of(superblock);
    std::vector<std::uint8_t> there(main.bytes());
    std::vector<std::uint8_t> copy(main.bytes());
    for (const auto& [block, mapping] : mappings_by_block(spare, superblock)) {
        if (mapping.undecidable || mapping.entry.state() != REMAP_ENTRY_MAPPED ||
            spare.try_read(superblock.slot_sector(mapping.slot), copy) != 0) {
            continue;
        }
        const bool readable = main.try_read(block, there) == 0;
        const bool same = readable && there == copy;
        if (block == deciding) {
            result.deciding_differs = readable && !same;
        }
        hidden.erase(block);
        result.all_same = result.all_same && same;
        // Zeroes are on every blank disk: they tell nothing.
        if (readable && std::any_of(copy.begin(), copy.end(), [](auto b) { return b != 0; })) {
            ++result.filled;
            result.filled_same += same ? 1 : 0;
        }
    }
    result.all_same = result.all_same && hidden.empty();
    return result;
}

/// Does `main` hold what was copied from the main, as far as that tells one device from another?
bool content_matches(MainBlocks& main, BlockIo& spare, const Superblock& superblock) {
    const Comparison content = compare_content(main, spare, superblock);
    if (content.filled == 0) {
        // The main was empty. All that it can be known by is its size; and nothing is lost with
        // the spare, for what lies there are zeroes.
        return content.all_same && main.io().size() == superblock.main_size;
    }
    // Nine of ten: some may have been written to since.
    return !content.deciding_differs && 10 * content.filled_same >= 9 * content.filled;
}

/// Throws unless `main` is plausibly the main of the set: wiping the superblocks because some
/// other device shows no label would lose the real main's hidden blocks.
void require_this_main(MainBlocks& main, BlockIo& spare, const Superblock& superblock) {
    const std::string& name = main.io().name();
    if (main.io().size() < superblock.main_size) {
        throw Error(Exit::unrecognised,
                    cat(name, ": is not the main of set ", superblock.head.set_uuid, ": expected ",
                        superblock.main_size, " sectors, found ", main.io().size()));
    }
    const PlaceCounts places = count_places(main, superblock);
    if (places.ours > 0 || superblock.is_bare()) {
        return;
    }
    // A main that was adopted by force may hold what another set left there.
    if (places.foreign > 0 && !content_matches(main, spare, superblock)) {
        throw Error(Exit::unrecognised, cat(name, ": carries the label of another set than ",
                                            superblock.head.set_uuid, " on ", spare.name()));
    }
    const Identity recorded = recorded_identity(*superblock.member(REMAP_ROLE_MAIN));
    const Identity identity = main.io().is_block_device() ? identify_path(name) : Identity{};
    const auto match = recorded.compare(identity);
    if (match == Identity::Match::different) {
        throw Error(Exit::unrecognised,
                    cat(name, ": is not the main of set ", superblock.head.set_uuid, ": expected ",
                        recorded.describe(), ", found ", identity.describe()));
    }
    // A whole disk has WWN and serial number of the partition on it, and not every table has UUIDs.
    const bool doubtful =
        match == Identity::Match::unknown || main.io().size() != superblock.main_size;
    if (doubtful && !content_matches(main, spare, superblock)) {
        throw Error(Exit::unrecognised,
                    cat(name, ": carries no label of set ", superblock.head.set_uuid,
                        ", and holds other data than was copied from the main to ", spare.name(),
                        "; nothing was changed. If this is the main all the same, and in use "
                        "without dm-remap, overwrite all of the spare (dd, blkdiscard -z)"));
    }
}

/// Puts the original contents back where label or filler still stand; without a trace of lost
/// blocks, which become zeroes.
void restore_places(MainBlocks& main, BlockIo& spare, const Superblock& superblock) {
    std::set<std::uint64_t> ours;
    for (const std::uint64_t block : hidden_blocks_of(superblock)) {
        if (look_at_place(main, superblock, block) == Place::ours) {
            ours.insert(block);
        }
    }
    if (ours.empty()) {
        return;
    }
    const auto mappings = mappings_by_block(spare, superblock);
    for (const std::uint64_t block : ours) {
        std::vector<std::uint8_t> content(main.bytes());
        const auto it = mappings.find(block);
        if (it == mappings.end() || it->second.undecidable) {
            throw Error(Exit::unrecognised, cat(spare.name(), ": has no contents for main block ",
                                                block, ", which is hidden"));
        }
        if (it->second.entry.state() == REMAP_ENTRY_MAPPED) {
            spare.read(superblock.slot_sector(it->second.slot), content);
        }
        main.io().write(main.sector(block), content);
    }
    main.io().flush();
}

RecoveryResult roll_back(MainBlocks& main, BlockIo& spare, const Superblock& superblock) {
    restore_places(main, spare, superblock);
    wipe_superblocks(spare);
    RecoveryResult result;
    result.outcome = Recovery::rolled_back;
    const bool releasing = superblock.head.state == REMAP_STATE_RELEASING;
    result.text = cat(main.io().name(),
                      releasing ? ": its release was interrupted at the very end and "
                                  "is finished now; "
                                : ": its adoption was interrupted before it took "
                                  "effect and is undone; ",
                      "the device is to be used directly, set ", superblock.head.set_uuid,
                      " no longer exists; a line for it in remaptab(5) has to go");
    return result;
}

RecoveryResult roll_forward(BlockIo& main, BlockIo& spare, Superblock superblock) {
    const bool releasing = superblock.head.state == REMAP_STATE_RELEASING;
    Observer quiet;
    RecoveryResult result;
    if (superblock.is_bare()) {
        superblock.head.state = REMAP_STATE_COMPLETE;
        write_superblock(spare, next_superblock(spare, superblock));
    } else {
        result.exposed = finish_adoption(main, spare, superblock, quiet);
    }
    result.outcome = Recovery::finished;
    result.text = cat(main.name(),
                      releasing ? ": its release was interrupted and is undone; "
                                : ": its adoption was interrupted and is finished now; ",
                      "set ", superblock.head.set_uuid, " is complete");
    return result;
}

}  // namespace

Superblock next_superblock(BlockIo& spare, Superblock superblock) {
    const std::uint64_t seen =
        std::max(scan_superblocks(spare).highest_generation, superblock.head.generation);
    superblock.head.generation = next_generation(superblock.epoch, seen);
    superblock.updated = static_cast<std::uint64_t>(std::time(nullptr));
    return superblock;
}

std::set<std::uint64_t> finish_adoption(BlockIo& main, BlockIo& spare, Superblock& superblock,
                                        Observer& observer) {
    MainBlocks blocks(main, superblock.block_sectors());
    const std::uint64_t deciding = deciding_block(superblock);
    const std::uint64_t last = superblock.main_blocks() - 1;
    std::set<std::uint64_t> rest = hidden_blocks_of(superblock);
    // A release that was interrupted has left labels, perhaps one alone, and perhaps in the place
    // that decides. These must not be torn before there are others.
    std::set<std::uint64_t> kept = newest_labels(blocks, superblock);
    if (look_at_place(blocks, superblock, deciding) == Place::ours) {
        kept.insert(deciding);
    } else {
        decide(blocks, superblock);
        rest.erase(deciding);
    }
    for (const std::uint64_t block : kept) {
        rest.erase(block);
    }
    for (const std::uint64_t block : {std::uint64_t{0}, last}) {
        if (rest.erase(block) != 0) {
            conceal_block(blocks, superblock, block);
        }
    }
    main.flush();
    conceal(blocks, superblock, rest, observer);
    main.flush();
    for (auto block = kept.rbegin(); block != kept.rend(); ++block) {
        conceal_block(blocks, superblock, *block);
        main.flush();
    }

    std::set<std::uint64_t> exposed = unconcealed(blocks, superblock);
    const auto& labels = superblock.label_sector;
    const bool labelled = std::any_of(labels.begin(), labels.end(), [&](std::uint64_t sector) {
        return exposed.count(sector / superblock.block_sectors()) == 0;
    });
    if (!labelled) {
        throw Error(Exit::operational, cat(main.name(), ": none of the ", labels.size(),
                                           " places for the label could be written"));
    }
    mark_exposed(superblock, exposed);
    superblock.head.state = REMAP_STATE_COMPLETE;
    superblock.label_epoch = superblock.epoch;
    superblock = next_superblock(spare, superblock);
    write_superblock(spare, superblock);
    return exposed;
}

RecoveryResult adopt_recover(BlockIo& main, BlockIo& spare) {
    const Superblock superblock = load_superblock(spare);
    const std::uint8_t state = superblock.head.state;
    if (state == REMAP_STATE_COMPLETE) {
        return {Recovery::nothing_to_do, cat("set ", superblock.head.set_uuid, " is complete"), {}};
    }
    if (state != REMAP_STATE_ADOPTING && state != REMAP_STATE_RELEASING) {
        throw Error(Exit::unrecognised,
                    cat(spare.name(), ": expected state adopting or releasing, found ",
                        set_state_name(state)));
    }
    MainBlocks blocks(main, superblock.block_sectors());
    require_this_main(blocks, spare, superblock);
    if (superblock.is_bare()) {
        return roll_forward(main, spare, superblock);
    }
    const Place decided = look_at_place(blocks, superblock, deciding_block(superblock));
    if (decided == Place::ours || decided == Place::unreadable) {
        return roll_forward(main, spare, superblock);
    }
    return roll_back(blocks, spare, superblock);
}

}  // namespace remap
