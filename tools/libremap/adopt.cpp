// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/adopt.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>

#include "libremap/error.hpp"
#include "libremap/layout.hpp"
#include "libremap/metadata.hpp"
#include "libremap/pair.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// Bytes at either end of a main that are hidden whatever it holds: with 128 KiB libblkid finds
/// none of the payloads that it knows, with 64 KiB it still finds btrfs.
constexpr std::uint64_t hidden_end = 128U << 10;
/// Where LUKS2 looks for its second header, beyond the first 128 KiB.
constexpr std::array<std::uint64_t, 6> luks2_places = {0x20000,  0x40000,  0x80000,
                                                       0x100000, 0x200000, 0x400000};
/// Bytes that are hidden at each of these, and around a signature.
constexpr std::uint64_t hidden_place = 4096;
constexpr std::uint64_t smallest_main = (1U << 20) / sector_size;
/// Room that a set must have for remaps besides the hidden blocks.
constexpr std::uint64_t fewest_free_slots = 64;
constexpr unsigned int most_rounds = 16;
constexpr std::uint64_t ext_deciding_sector = 2;
constexpr std::uint32_t first_epoch = 1;

std::uint64_t blocks_of(const Superblock& superblock, std::uint64_t bytes) {
    return (bytes + superblock.block_size() - 1) / superblock.block_size();
}

// --- planning ---------------------------------------------------------------------------------

/// Hides the blocks that hold [offset, offset + length), as far as the main reaches.
void hide_bytes(const Superblock& superblock, std::set<std::uint64_t>& blocks, ByteRange range) {
    const std::uint64_t first = range.offset / superblock.block_size();
    const std::uint64_t end =
        std::min(blocks_of(superblock, range.offset + range.length), superblock.main_blocks());
    for (std::uint64_t block = first; block < end; ++block) {
        blocks.insert(block);
    }
}

/// The 4 KiB around a signature.
ByteRange around(const ByteRange& magic) {
    const std::uint64_t start = magic.offset / hidden_place * hidden_place;
    const std::uint64_t end = magic.offset + std::max<std::uint64_t>(magic.length, 1);
    return {start, (end - start + hidden_place - 1) / hidden_place * hidden_place};
}

std::set<std::uint64_t> standard_places(const Superblock& superblock) {
    std::set<std::uint64_t> blocks;
    const std::uint64_t size = superblock.main_size * sector_size;
    hide_bytes(superblock, blocks, {0, hidden_end});
    hide_bytes(superblock, blocks, {size - hidden_end, hidden_end});
    for (const std::uint64_t place : luks2_places) {
        hide_bytes(superblock, blocks, {place, hidden_place});
    }
    return blocks;
}

std::vector<Hidden> extents_of(const std::set<std::uint64_t>& blocks) {
    std::vector<Hidden> extents;
    for (const BlockRun& run : runs_of(blocks, UINT32_MAX)) {
        extents.push_back({run.start, static_cast<std::uint32_t>(run.count), 0});
    }
    if (extents.size() > REMAP_MAX_HIDDEN) {
        throw Error(Exit::unrecognised,
                    cat("the payload shows itself at ", extents.size(), " places, at most ",
                        REMAP_MAX_HIDDEN, " can be hidden"));
    }
    return extents;
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

/// Hides the standard places, then whatever libblkid would still see, until it sees nothing.
void plan_hidden(BlockIo& main, Superblock& superblock, AdoptPlan& plan) {
    std::set<std::uint64_t> blocks = standard_places(superblock);
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

bool all_zero(ConstBytes bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

/// The first byte above zero among the places that would be hidden.
std::optional<std::uint64_t> first_data(BlockIo& main, const Superblock& superblock) {
    MainBlocks blocks(main, superblock.block_sectors());
    Superblock planned = superblock;
    planned.hidden = extents_of(standard_places(superblock));
    const HiddenContent content = read_hidden(blocks, planned);
    for (std::size_t i = 0; i < content.blocks.size(); ++i) {
        const ConstBytes bytes = content.at(i);
        if (!all_zero(bytes)) {
            const auto byte = std::find_if(bytes.begin(), bytes.end(),
                                           [](std::uint8_t value) { return value != 0; });
            return content.blocks[i] * content.block_bytes +
                   static_cast<std::uint64_t>(byte - bytes.begin());
        }
    }
    return std::nullopt;
}

bool is_ext(const Signature& signature) {
    return signature.type == "ext2" || signature.type == "ext3" || signature.type == "ext4";
}

[[noreturn]] void refuse_payload(const BlockIo& main, const std::string& why) {
    throw Error(Exit::unrecognised, cat(main.name(), ": ", why));
}

void require_supported(const BlockIo& main, const std::vector<Signature>& seen) {
    for (const Signature& signature : seen) {
        if (signature.partition_table) {
            refuse_payload(main, cat("holds a ", signature.describe(),
                                     "; adopt its partitions, not the whole device"));
        }
    }
    if (seen.size() > 1) {
        refuse_payload(main, cat("is not clearly one thing: ", describe(seen),
                                 "; remove what is stale with wipefs(8)"));
    }
    if (!is_ext(seen.front())) {
        refuse_payload(main, cat("holds ", seen.front().describe(),
                                 ", which cannot be adopted yet (only an empty device and ext2, "
                                 "ext3, ext4 can)"));
    }
}

void require_size(const BlockIo& main, std::uint64_t size) {
    if (size < smallest_main) {
        throw Error(Exit::usage, cat(main.name(), ": too small for a main: it has ", size,
                                     " sectors, at least ", smallest_main, " are needed"));
    }
}

// --- carrying out -----------------------------------------------------------------------------

/// The slots that hold the hidden blocks, found by writing and reading back.
class SlotWriter {
  public:
    SlotWriter(BlockIo& spare, const AdoptPlan& plan)
        : spare_(spare),
          superblock_(plan.superblock),
          time_(plan.entry_time),
          entries_(plan.skip_slots) {}

    /// Writes all blocks, then reads them back; those that fail get other slots.
    void write(const HiddenContent& content, Observer& observer) {
        std::vector<std::size_t> todo(content.blocks.size());
        for (std::size_t i = 0; i < todo.size(); ++i) {
            todo[i] = i;
        }
        while (!todo.empty()) {
            todo = write_once(content, todo, observer);
        }
    }

    const std::vector<Entry>& entries() const { return entries_; }
    std::uint64_t bad_slots() const { return bad_; }

  private:
    std::uint64_t next_slot() {
        while (entries_.size() < superblock_.segment().nr_slots &&
               superblock_.slot_reserved(entries_.size())) {
            entries_.emplace_back();
        }
        if (entries_.size() >= superblock_.segment().nr_slots) {
            throw Error(Exit::operational, cat(spare_.name(), ": not enough working slots: ", bad_,
                                               " of ", entries_.size(), " that were tried failed"));
        }
        entries_.emplace_back();
        return entries_.size() - 1;
    }

    Entry entry(remap_entry_state state, std::uint64_t block, int error) {
        return Entry::make(state, block, REMAP_CAUSE_HIDDEN, static_cast<std::uint8_t>(error),
                           ++sequence_, time_);
    }

    void mark_bad(std::uint64_t slot, std::uint64_t block, int error) {
        entries_[slot] = entry(REMAP_ENTRY_BAD, block, error);
        ++bad_;
    }

    /// Neighbouring blocks in neighbouring slots, which go in one request.
    struct SlotRun {
        std::uint64_t slot = 0;
        std::size_t index = 0;
        std::size_t count = 0;
    };

    std::vector<SlotRun> assign(const std::vector<std::size_t>& todo, std::size_t limit) {
        std::vector<SlotRun> runs;
        for (const std::size_t i : todo) {
            const std::uint64_t slot = next_slot();
            if (!runs.empty() && runs.back().slot + runs.back().count == slot &&
                runs.back().index + runs.back().count == i && runs.back().count < limit) {
                ++runs.back().count;
            } else {
                runs.push_back({slot, i, 1});
            }
        }
        return runs;
    }

    ConstBytes bytes_of(const HiddenContent& content, const SlotRun& run) const {
        return ConstBytes(content.bytes)
            .subspan(run.index * content.block_bytes, run.count * content.block_bytes);
    }

    /// Writes or verifies a run; false if any of it failed.
    bool put(const HiddenContent& content, const SlotRun& run) {
        last_error_ = spare_.try_write(superblock_.slot_sector(run.slot), bytes_of(content, run));
        return last_error_ == 0;
    }
    bool verify(const HiddenContent& content, const SlotRun& run) {
        const ConstBytes expected = bytes_of(content, run);
        std::vector<std::uint8_t> back(expected.size());
        last_error_ = spare_.try_read(superblock_.slot_sector(run.slot), back);
        return last_error_ == 0 && std::equal(back.begin(), back.end(), expected.begin());
    }

    /// Applies `step` to all runs, block by block where a whole run fails; what failed becomes a
    /// bad slot and is left out of the result.
    template <typename Step>
    std::vector<SlotRun> each(const HiddenContent& content, const std::vector<SlotRun>& runs,
                              std::vector<std::size_t>& again, Step step) {
        std::vector<SlotRun> good;
        for (const SlotRun& run : runs) {
            if (step(run)) {
                good.push_back(run);
                continue;
            }
            for (std::size_t i = 0; i < run.count; ++i) {
                const SlotRun one{run.slot + i, run.index + i, 1};
                if (step(one)) {
                    good.push_back(one);
                } else {
                    mark_bad(one.slot, content.blocks[one.index], last_error_);
                    again.push_back(one.index);
                }
            }
        }
        return good;
    }

    /// Returns the indices whose slots failed.
    std::vector<std::size_t> write_once(const HiddenContent& content,
                                        const std::vector<std::size_t>& todo, Observer& observer) {
        constexpr std::size_t chunk_bytes = 128U << 10;
        std::vector<std::size_t> again;
        auto runs = assign(todo, chunk_bytes / content.block_bytes);
        const std::size_t total = 2 * runs.size();
        std::size_t done = 0;
        const auto shown = [&](bool ok) {
            observer.progress("copying to the spare", ++done, total);
            return ok;
        };
        // Slots of lost blocks are written as well: what was there before must not show.
        runs = each(content, runs, again,
                    [&](const SlotRun& run) { return shown(put(content, run)); });
        spare_.flush();
        runs = each(content, runs, again,
                    [&](const SlotRun& run) { return shown(verify(content, run)); });
        for (const SlotRun& run : runs) {
            for (std::size_t i = 0; i < run.count; ++i) {
                const std::uint64_t block = content.blocks[run.index + i];
                const bool lost = content.lost.count(block) != 0;
                entries_[run.slot + i] =
                    entry(lost ? REMAP_ENTRY_LOST : REMAP_ENTRY_MAPPED, block, lost ? EIO : 0);
            }
        }
        return again;
    }

    BlockIo& spare_;
    const Superblock& superblock_;
    std::uint32_t time_;
    std::vector<Entry> entries_;
    std::uint32_t sequence_ = 0;
    std::uint64_t bad_ = 0;
    int last_error_ = 0;
};

void wipe_ranges(BlockIo& spare, const std::vector<ByteRange>& ranges) {
    const std::uint64_t unit = spare.logical_block_size();
    for (const ByteRange& range : ranges) {
        const std::uint64_t start = range.offset / unit * unit;
        const std::uint64_t end = std::min((range.offset + range.length + unit - 1) / unit * unit,
                                           spare.size() * sector_size);
        if (range.length == 0 || start >= end) {
            continue;
        }
        spare.write(start / sector_size, std::vector<std::uint8_t>(end - start));
    }
    spare.flush();
}

/// Tests that what must be overwritten can be.
void test_places(MainBlocks& main, const AdoptPlan& plan, const HiddenContent& content,
                 Observer& observer) {
    std::set<std::uint64_t> vital = plan.vital;
    vital.insert(deciding_block(plan.superblock));
    const auto require = [&](const std::set<std::uint64_t>& bad, const char* what) {
        for (const std::uint64_t block : vital) {
            if (bad.count(block) != 0) {
                throw Error(
                    Exit::operational,
                    cat(main.io().name(), ": sector ", main.sector(block), ": cannot be ", what,
                        ", but the payload's own signature lies there and could "
                        "not be hidden; nothing was changed"));
            }
        }
    };
    require(content.lost, "read");
    const std::set<std::uint64_t> failed = rewrite_hidden(main, content, observer);
    require(failed, "rewritten");
    if (!failed.empty()) {
        observer.warning(cat(main.io().name(), ": ", failed.size(),
                             " of the blocks to hide cannot be written, the first at sector ",
                             main.sector(*failed.begin())));
    }
}

/// The table's length in entries: whole table blocks, at least as planned.
std::vector<Entry> padded_table(Superblock& superblock, std::vector<Entry> entries) {
    const std::uint64_t used =
        (entries.size() + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK;
    superblock.table_length = std::max(superblock.table_length, used);
    entries.resize(
        std::min(superblock.table_length * REMAP_ENTRIES_PER_BLOCK, superblock.segment().nr_slots));
    return entries;
}

AdoptResult format_bare(BlockIo& spare, const AdoptPlan& plan) {
    AdoptResult result;
    result.superblock = plan.superblock;
    wipe_ranges(spare, plan.wipe);
    wipe_superblocks(spare);
    const auto table = padded_table(result.superblock, {});
    write_table(spare, result.superblock, result.superblock.head.generation, table);
    result.superblock = next_superblock(spare, result.superblock);
    write_superblock(spare, result.superblock);
    return result;
}

// --- recovery ---------------------------------------------------------------------------------

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

/// Do most of the hidden places still hold what was copied from them?
bool content_matches(MainBlocks& main, BlockIo& spare, const Superblock& superblock) {
    std::uint64_t same = 0;
    std::uint64_t all = 0;
    std::vector<std::uint8_t> there(main.bytes());
    std::vector<std::uint8_t> copy(main.bytes());
    for (const auto& [block, mapping] : mappings_by_block(spare, superblock)) {
        if (mapping.undecidable || mapping.entry.state() != REMAP_ENTRY_MAPPED ||
            main.try_read(block, there) != 0 ||
            spare.try_read(superblock.slot_sector(mapping.slot), copy) != 0) {
            continue;
        }
        ++all;
        same += there == copy ? 1 : 0;
    }
    return all > 0 && 2 * same >= all;
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
    if (match == Identity::Match::unknown && !content_matches(main, spare, superblock)) {
        throw Error(Exit::unrecognised,
                    cat(name, ": carries no label of set ", superblock.head.set_uuid,
                        ", and holds other data than was copied from the main"));
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
                      " no longer exists");
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
    return superblock;
}

Payload recognise_payload(BlockIo& main, std::uint32_t block_size, bool force) {
    Superblock geometry;
    geometry.head.block_shift = block_size == sector_size ? 9 : 12;
    geometry.main_size = main.size() / geometry.block_sectors() * geometry.block_sectors();
    require_size(main, geometry.main_size);

    const std::vector<Signature> seen = signatures_on(main);
    Payload payload;
    if (!seen.empty()) {
        require_supported(main, seen);
        payload.kind = PayloadKind::ext;
        payload.description = seen.front().describe();
        payload.deciding_sector = ext_deciding_sector;
        payload.signatures.push_back(seen.front().magic);
        return payload;
    }
    const auto data = first_data(main, geometry);
    payload.description = "nothing";
    if (data) {
        if (!force) {
            refuse_payload(main, cat("holds data that is not recognised (the first of it at byte ",
                                     *data, "); --force adopts it as it is"));
        }
        payload.kind = PayloadKind::unknown;
        payload.description = "data that is not recognised";
    }
    return payload;
}

AdoptPlan plan_adoption(BlockIo& main, BlockIo& spare, const AdoptRequest& request) {
    AdoptPlan plan;
    plan.entry_time = static_cast<std::uint32_t>(request.now);
    plan_wipe(spare, plan);
    plan.superblock = new_superblock(main, spare, request);
    require_size(main, plan.superblock.main_size);
    if (!request.bare) {
        plan.superblock.deciding_sector = request.payload.deciding_sector;
        for (const ByteRange& magic : request.payload.signatures) {
            hide_bytes(plan.superblock, plan.vital, magic);
        }
        plan_hidden(main, plan.superblock, plan);
    }
    plan_spare(spare, plan.superblock);
    plan_skipped_slots(main, spare, plan);
    return plan;
}

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

}  // namespace

std::set<std::uint64_t> finish_adoption(BlockIo& main, BlockIo& spare, Superblock& superblock,
                                        Observer& observer) {
    MainBlocks blocks(main, superblock.block_sectors());
    const std::uint64_t deciding = deciding_block(superblock);
    const std::uint64_t last = superblock.main_blocks() - 1;
    decide(blocks, superblock);

    std::set<std::uint64_t> rest = hidden_blocks_of(superblock);
    for (const std::uint64_t block : {std::uint64_t{0}, last}) {
        if (block != deciding) {
            conceal_block(blocks, superblock, block);
        }
        rest.erase(block);
    }
    rest.erase(deciding);
    main.flush();
    conceal(blocks, superblock, rest, observer);
    main.flush();

    const std::set<std::uint64_t> exposed = unconcealed(blocks, superblock);
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

AdoptResult adopt(BlockIo& main, BlockIo& spare, const AdoptPlan& plan, const RescueWriter& rescue,
                  Observer& observer) {
    if (plan.superblock.is_bare()) {
        return format_bare(spare, plan);
    }
    MainBlocks blocks(main, plan.superblock.block_sectors());
    const HiddenContent content = read_hidden(blocks, plan.superblock);
    test_places(blocks, plan, content, observer);
    rescue(plan.superblock, content);

    wipe_ranges(spare, plan.wipe);
    wipe_superblocks(spare);
    SlotWriter slots(spare, plan);
    slots.write(content, observer);

    AdoptResult result;
    result.superblock = plan.superblock;
    result.lost = content.lost;
    result.bad_slots = slots.bad_slots();
    const auto table = padded_table(result.superblock, slots.entries());
    write_table(spare, result.superblock, result.superblock.head.generation, table);
    result.superblock = next_superblock(spare, result.superblock);
    write_superblock(spare, result.superblock);

    // From here on the set exists: the first write of finish_adoption decides.
    try {
        result.exposed = finish_adoption(main, spare, result.superblock, observer);
    } catch (const NotDecided&) {
        roll_back(blocks, spare, result.superblock);
        throw;
    }
    return result;
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
