// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/rebuild.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "libremap/error.hpp"
#include "libremap/layout.hpp"
#include "libremap/metadata.hpp"
#include "libremap/search.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint64_t end_sectors = (16U << 20) / sector_size;

/// Why nothing can be rebuilt.
struct Impossible {
    std::string why;
};

class Rebuilder {
  public:
    Rebuilder(BlockIo& spare, BlockIo& main) : spare_(spare), main_(main) {}

    RebuiltSuperblock run();

  private:
    void search_main();
    void read_labels();
    void find_tables();
    void choose_slots();
    void choose_live_copies();
    void find_hidden();
    void place_labels();
    void finish();
    bool is_ours(std::uint64_t block);

    Superblock& sb() { return result_.superblock; }

    BlockIo& spare_;
    BlockIo& main_;
    std::vector<FoundRun> on_main_;
    std::vector<std::pair<std::uint64_t, Label>> labels_;  ///< sector
    std::uint64_t newest_ = 0;                             ///< generation
    std::uint32_t label_epoch_ = 0;
    RebuiltSuperblock result_;
};

void Rebuilder::search_main() {
    const std::uint64_t size = main_.size();
    SearchOptions options;

    options.end = std::min(size, end_sectors);
    on_main_ = search_device(main_, options).found;
    if (size <= end_sectors)
        return;
    options.first = std::max(end_sectors, size - std::min(size, end_sectors)) / 8 * 8;
    options.end = size;
    const SearchResult back = search_device(main_, options);
    on_main_.insert(on_main_.end(), back.found.begin(), back.found.end());
}

void Rebuilder::read_labels() {
    for (const FoundRun& run : on_main_) {
        LabelBytes bytes{};
        if (run.kind != StructureKind::label || run.verdict != Verdict::current ||
            main_.try_read(run.sector, bytes) != 0)
            continue;
        const auto label = decode_label(bytes, run.sector);
        if (!label.valid())
            continue;
        const Head& head = label.value.head;
        if (!labels_.empty()) {
            const Label& first = labels_.front().second;
            if (head.set_uuid != first.head.set_uuid || head.nonce != first.head.nonce ||
                head.member_uuid != first.head.member_uuid ||
                head.partner_uuid != first.head.partner_uuid ||
                head.block_shift != first.head.block_shift ||
                label.value.main_size != first.main_size)
                throw Impossible{"the main has labels of two sets"};
        }
        if (head.state != REMAP_STATE_COMPLETE)
            throw Impossible{cat("the label says that the set is ", set_state_name(head.state))};
        labels_.emplace_back(run.sector, label.value);
        label_epoch_ = std::max(label_epoch_, label.value.epoch);
        newest_ = std::max(newest_, head.generation);
    }
    if (labels_.empty())
        throw Impossible{"the main has no label"};
    const Label& label = labels_.front().second;
    if (label.main_size > main_.size())
        throw Impossible{"the main is smaller than its label says"};
    sb().head = label.head;
    sb().head.role = REMAP_ROLE_SPARE;
    sb().head.member_uuid = label.head.partner_uuid;
    sb().head.partner_uuid = label.head.member_uuid;
    sb().main_size = label.main_size;
    sb().spare_size = spare_.size();
    sb().members = {
        {label.head.member_uuid, REMAP_ROLE_MAIN, REMAP_MEMBER_IN_USE, label.main_size, "", "", ""},
        {label.head.partner_uuid, REMAP_ROLE_SPARE, REMAP_MEMBER_IN_USE, spare_.size(), "", "",
         ""}};
    result_.proved.push_back(
        cat("set, members and size of the main by ", labels_.size(), " labels on the main"));
}

/// Where the copies of the table begin, and how long it is.
void Rebuilder::find_tables() {
    SearchOptions options;
    std::map<unsigned int, std::uint64_t> starts;
    Segment segment;
    std::uint64_t blocks = 0;

    options.known_sets = {{sb().head.set_uuid, sb().head.nonce}};
    for (const FoundRun& run : search_device(spare_, options).found) {
        if (run.kind != StructureKind::table_block || run.verdict != Verdict::current ||
            run.set != sb().head.set_uuid || run.nonce != sb().head.nonce)
            continue;
        const std::uint64_t offset = run.index * REMAP_TABLE_BLOCK_SECTORS;
        if (run.sector < offset)
            throw Impossible{cat("table block ", run.index, " at sector ", run.sector)};
        const auto [it, added] = starts.emplace(run.copy, run.sector - offset);
        if (!added && it->second != run.sector - offset)
            throw Impossible{cat("copy ", run.copy, " of the table is at sector ", it->second,
                                 " and at sector ", run.sector - offset)};
        sb().table_length = std::max(sb().table_length, run.index + run.count);
        newest_ = std::max(newest_, run.newest);
        blocks += run.count;
    }
    if (starts.size() != 2 || starts.begin()->first != 0 || starts.rbegin()->first != 1)
        throw Impossible{cat("blocks of ", starts.size(), " copies of the table, not of both")};
    segment.member = 1;
    segment.nr_copies = 2;
    segment.table_start[0] = starts[0];
    segment.table_start[1] = starts[1];
    sb().segments = {segment};
    sb().live_copies = 3;
    result_.proved.push_back(
        cat("places and length of the table by ", blocks, " table blocks with the set's checksum"));
}

/// How many slots there are follows from where format puts the second copy of the table; only the
/// last table block leaves a choice.
void Rebuilder::choose_slots() {
    const std::uint64_t size = spare_.size() / REMAP_SB_SECTORS * REMAP_SB_SECTORS;
    const auto& found = sb().segments.front().table_start;
    const auto matches = [&found](const Layout& layout) {
        return layout.segment.nr_copies == 2 && layout.segment.table_start[0] == found[0] &&
               layout.segment.table_start[1] == found[1];
    };

    if (found[1] + REMAP_SB_SECTORS >= size)
        throw Impossible{"the second copy of the table is not where format puts it"};
    const std::uint64_t blocks = (size - REMAP_SB_SECTORS - found[1]) / REMAP_TABLE_BLOCK_SECTORS;
    LayoutRequest request{spare_.size(), sb().main_size, sb().block_sectors(), 0, 0};
    Layout layout;
    try {
        layout = plan_layout(request);
        if (matches(layout)) {
            result_.assumed.push_back(
                cat(layout.segment.nr_slots, " slots, as format makes without being told"));
        } else {
            request.max_slots = (blocks - 1) * REMAP_ENTRIES_PER_BLOCK + 1;
            layout = plan_layout(request);
            result_.assumed.push_back(cat("no more than ", layout.segment.nr_slots, " slots"));
        }
    } catch (const Error& error) {
        throw Impossible{error.what()};
    }
    if (!matches(layout) || layout.segment.table_blocks() != blocks || sb().table_length > blocks)
        throw Impossible{"the table is not where format puts it on a device of this size"};
    sb().segments = {layout.segment};
    sb().segments[0].member = 1;
    sb().sb_sector = layout.sb_sector;
}

/// Nothing says which copies were live. One that is behind anywhere may be dead.
void Rebuilder::choose_live_copies() {
    std::array<bool, 2> behind{};
    std::uint64_t alone = 0;

    visit_table(spare_, sb(), 0, sb().table_length, true, [&](const TableBlockView& view) {
        if (view.conflict)
            throw Impossible{cat("copies of table block ", view.index, " contradict each other")};
        alone += std::count_if(view.copies.begin(), view.copies.end(), [](const TableCopy& copy) {
                     return copy.verdict == Verdict::current || copy.verdict == Verdict::stale;
                 }) == 1;
        for (const TableCopy& copy : view.copies)
            behind.at(copy.copy) = behind.at(copy.copy) || copy.verdict == Verdict::stale;
    });
    if (behind[0] && behind[1])
        throw Impossible{"each copy of the table is older than the other somewhere"};
    if (behind[0])
        sb().live_copies = 2;
    if (behind[1])
        sb().live_copies = 1;
    if (sb().live_copies != 3)
        result_.assumed.push_back("the copy of the table that is older was dead");
    else
        result_.proved.push_back("both copies of the table are live: they agree");
    if (alone > 0)
        result_.assumed.push_back(cat(alone, " table blocks that only one copy has are not old"));
}

/// Does the main have our label or filler in this block?
bool Rebuilder::is_ours(std::uint64_t block) {
    const std::uint64_t sector = block * sb().block_sectors();
    LabelBytes bytes{};

    if (main_.try_read(sector, bytes) != 0)
        return false;
    const auto filler = decode_filler(bytes, sector);
    const auto label = decode_label(bytes, sector);
    const Head& head = filler.valid() ? filler.value.head : label.value.head;
    return (filler.valid() || label.valid()) && head.set_uuid == sb().head.set_uuid &&
           head.nonce == sb().head.nonce && head.member_uuid == sb().head.partner_uuid;
}

void Rebuilder::find_hidden() {
    std::set<std::uint64_t> hidden;
    std::set<std::uint64_t> exposed;

    for (const FoundRun& run : on_main_) {
        if (run.set != sb().head.set_uuid || run.nonce != sb().head.nonce ||
            run.verdict != Verdict::current ||
            (run.kind != StructureKind::label && run.kind != StructureKind::filler))
            continue;
        for (std::uint64_t i = 0; i < run.count; i++)
            hidden.insert((run.sector + i * run.stride) / sb().block_sectors());
    }
    for (const Entry& entry : load_table(spare_, sb()).entries) {
        if (!entry.is_live() || entry.block() >= sb().main_blocks() ||
            hidden.count(entry.block()) > 0)
            continue;
        if (is_ours(entry.block())) {
            hidden.insert(entry.block());
        } else if (entry.cause() == REMAP_CAUSE_HIDDEN) {
            hidden.insert(entry.block());
            exposed.insert(entry.block());
        }
    }
    for (const std::uint64_t block : hidden) {
        if (sb().hidden.empty() || sb().hidden.back().start + sb().hidden.back().count != block)
            sb().hidden.push_back({block, 0, 0});
        sb().hidden.back().count++;
        if (exposed.count(block) > 0)
            sb().hidden.back().flags = REMAP_HIDDEN_EXPOSED;
    }
    result_.proved.push_back(
        cat(hidden.size() - exposed.size(), " hidden blocks by what is in them"));
    if (!exposed.empty())
        result_.assumed.push_back(
            cat(exposed.size(), " hidden blocks, because their entries say so"));
}

void Rebuilder::place_labels() {
    std::map<unsigned int, std::uint64_t> places;

    for (const auto& [sector, label] : labels_)
        places.emplace(label.head.copy, sector);
    for (const auto& [copy, sector] : places) {
        if (copy != sb().label_sector.size())
            throw Impossible{cat("label ", sb().label_sector.size(), " is missing")};
        sb().label_sector.push_back(sector);
    }
    // First block, the one that decided, last block.
    sb().deciding_sector = sb().label_sector[sb().label_sector.size() > 2 ? 1 : 0];
    result_.assumed.push_back(cat("the sector that decided is ", sb().deciding_sector));
}

void Rebuilder::finish() {
    sb().epoch = std::max(label_epoch_, static_cast<std::uint32_t>(newest_ >> 32)) + 1;
    sb().label_epoch = label_epoch_;
    sb().head.generation = next_generation(sb().epoch, newest_);
    sb().head.flags = REMAP_FLAG_READ_ONLY;
    sb().tool = REMAP_TOOL_VERSION;
    if (const auto bad = check_superblock(sb()))
        throw Impossible{cat(bad->field, ": expected ", bad->expected, ", found ", bad->found)};
}

RebuiltSuperblock Rebuilder::run() {
    search_main();
    read_labels();
    find_tables();
    choose_slots();
    choose_live_copies();
    find_hidden();
    place_labels();
    finish();
    return std::move(result_);
}

}  // namespace

std::optional<RebuiltSuperblock> rebuild_superblock(BlockIo& spare, BlockIo& main,
                                                    std::string& why) {
    try {
        return Rebuilder(spare, main).run();
    } catch (const Impossible& impossible) {
        why = impossible.why;
    }
    return std::nullopt;
}

}  // namespace remap
