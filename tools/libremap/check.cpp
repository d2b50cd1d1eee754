// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/check.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "libremap/identity.hpp"
#include "libremap/rebuild.hpp"
#include "libremap/survey.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

using Kind = PlannedWrite::Kind;

/// Ids of what can be wrong with one copy of a structure.
struct CopyIds {
    Verdict verdict;
    const char* id;
};

constexpr std::array superblock_ids = {
    CopyIds{Verdict::bad_crc, "RMF-0101"},    CopyIds{Verdict::unreadable, "RMF-0102"},
    CopyIds{Verdict::stale, "RMF-0103"},      CopyIds{Verdict::misplaced, "RMF-0104"},
    CopyIds{Verdict::absent, "RMF-0105"},     CopyIds{Verdict::implausible, "RMF-0106"},
    CopyIds{Verdict::wrong_role, "RMF-0107"}, CopyIds{Verdict::foreign, "RMF-0108"},
    CopyIds{Verdict::torn, "RMF-0118"},
};

constexpr std::array table_ids = {
    CopyIds{Verdict::bad_crc, "RMF-0201"}, CopyIds{Verdict::unreadable, "RMF-0202"},
    CopyIds{Verdict::stale, "RMF-0203"},   CopyIds{Verdict::misplaced, "RMF-0204"},
    CopyIds{Verdict::absent, "RMF-0205"},  CopyIds{Verdict::torn, "RMF-0215"},
};

/// What check_entry calls the fault, and its id.
constexpr std::array<std::pair<const char*, const char*>, 5> entry_ids = {{
    {"free entry", "RMF-0301"},
    {"entry beyond the last slot", "RMF-0302"},
    {"state", "RMF-0303"},
    {"main block", "RMF-0304"},
    {"slot under a superblock", "RMF-0305"},
}};

template <std::size_t size>
const char* id_for(const std::array<CopyIds, size>& ids, Verdict verdict) {
    for (const CopyIds& row : ids) {
        if (row.verdict == verdict)
            return row.id;
    }
    return nullptr;
}

/// What a finding adds that stands for `count` of a kind in a row, the first of which it names.
std::string run_text(std::uint64_t count) {
    return count > 1 ? cat(", from here on for ", count, " blocks") : "";
}

/// "4, 7 to 9, 12"; at most 64 runs, since somebody has to read it.
std::string number_runs(const std::vector<std::uint64_t>& numbers) {
    constexpr unsigned int most = 64;
    unsigned int runs = 0;
    std::string text;

    for (std::size_t i = 0; i < numbers.size();) {
        std::size_t end = i + 1;
        while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1)
            end++;
        if (runs++ == most)
            return text + cat(", and ", numbers.size() - i, " more");
        text += cat(text.empty() ? "" : ", ", numbers[i]);
        if (end - i > 1)
            text += cat(" to ", numbers[end - 1]);
        i = end;
    }
    return text;
}

/// A loss that nobody has confirmed must not be passed over, however harmless it looks by now.
bool awaits_confirmation(const Finding& finding) {
    return finding.problem->repair == Repair::on_request;
}

/// Traces of a writer beside us. With a valid label elsewhere the kernel opens such a set, and the
/// content of the place is in a slot.
bool harms_no_data(const Finding& finding) {
    return std::strcmp(finding.problem->id, "RMF-0508") == 0 ||
           std::strcmp(finding.problem->id, "RMF-0510") == 0;
}

class Checker {
  public:
    Checker(BlockIo& spare, BlockIo* main, const Progress& progress)
        : spare_(spare), main_(main), progress_(progress) {}

    CheckResult run();
    /// What was found up to the point where the check was ended.
    CheckResult cancelled();

  private:
    Finding& add(const char* id, const BlockIo& device, std::string structure);
    void explain(Finding& finding, const FieldProblem& problem) const;
    /// Plans a step for the finding added last.
    void plan(Kind kind, unsigned int copy, std::uint64_t index, std::uint64_t count = 1);

    bool check_superblocks();
    void check_superblock_copy(const SuperblockCopy& copy);
    void choose_superblock();
    void rebuild_from_main();
    void note_superblock_copies();
    void no_winner();
    void check_set_state();
    void check_table();
    void recombine_lost_blocks(Survey& survey);
    void judge_torn_copies();
    void note_table_copies();
    void check_table_copies();
    void check_lost_blocks();
    bool table_on_device() const;
    void check_dead_copies();
    void check_after_end();
    void check_entries(const Survey& survey);
    void check_entry_of(std::uint64_t slot);
    void check_provable();
    void check_read_only();
    void check_duplicates();
    void check_hidden_entries(const HiddenBlocks& hidden);
    void count_slots();

    void check_main();
    void check_labels();
    void check_label(unsigned int number, std::vector<Finding>& repairs);
    void refuse(const std::string& why);
    void refuse_newer(const char* structure, std::uint64_t sector, const FieldProblem& problem);
    void check_identity(BlockIo& io, remap_role role);
    bool in_exposed_extent(std::uint64_t block) const;
    void note_label(unsigned int number, Verdict verdict, int error,
                    std::optional<std::uint64_t> generation);
    void note_filler(std::uint64_t block, Verdict verdict, int error);
    void judge_label_epochs();
    void note_older_labels();
    void check_fillers();
    void check_extent(const Hidden& extent);

    bool leftover_of_commit(const TableProblem& problem) const;
    const Superblock& sb() const { return *result_.superblock; }

    BlockIo& spare_;
    BlockIo* main_;
    const Progress& progress_;
    CheckResult result_;
    bool main_is_ours_ = true;
    bool rebuilt_ = false;                  ///< the superblock was made anew
    std::string not_rebuilt_;               ///< why there is no superblock from the main either
    std::vector<std::uint64_t> bad_slots_;  ///< with impossible entries
    std::vector<Duplicate> duplicates_;
    std::vector<std::pair<unsigned int, std::uint32_t>> label_epochs_;  ///< of valid labels
};

Finding& Checker::add(const char* id, const BlockIo& device, std::string structure) {
    Finding& finding = result_.findings.emplace_back();

    finding.problem = &problem(id);
    finding.device = device.name();
    finding.structure = std::move(structure);
    return finding;
}

void Checker::explain(Finding& finding, const FieldProblem& problem) const {
    finding.field = problem.field;
    finding.expected = problem.expected;
    finding.found = problem.found;
}

void Checker::plan(Kind kind, unsigned int copy, std::uint64_t index, std::uint64_t count) {
    // What follows from a superblock that was made anew waits until that is accepted.
    if (!result_.refused.empty() || (rebuilt_ && kind != Kind::superblock))
        return;
    result_.findings.back().repairable = true;
    result_.plan.push_back({kind, result_.findings.size() - 1, copy, index, count});
}

// --- superblocks ------------------------------------------------------------------------------

void Checker::no_winner() {
    const SuperblockScan& scan = result_.scan;
    const bool traces = std::any_of(scan.copies.begin(), scan.copies.end(), [](const auto& c) {
        return c.verdict == Verdict::bad_crc || c.verdict == Verdict::implausible ||
               c.verdict == Verdict::misplaced || c.verdict == Verdict::conflict;
    });
    const char* id = "RMF-0116";

    if (scan.newer_version)
        id = "RMF-0112";
    else if (scan.ambiguous)
        id = "RMF-0111";
    else if (scan.conflict)
        id = "RMF-0110";
    else if (traces)
        id = "RMF-0113";
    Finding& finding = add(id, spare_, "superblock");
    finding.expected = "the superblock of a spare";
    finding.found = remap::explain(scan);
    if (!not_rebuilt_.empty())
        finding.found += cat(", and none can be made anew: ", not_rebuilt_);
    result_.unknown = scan.newer_version || std::strcmp(id, "RMF-0116") == 0;
    if (result_.unknown)
        result_.refused = finding.found;
}

void Checker::check_superblock_copy(const SuperblockCopy& copy) {
    const bool beyond = copy.verdict == Verdict::absent && copy.problem.field == "place";
    const char* id = beyond ? "RMF-0109" : id_for(superblock_ids, copy.verdict);

    if (!id || (copy.verdict == Verdict::stale && result_.scan.interrupted))
        return;
    Finding& finding = add(id, spare_, "superblock");
    finding.copy = copy.copy;
    finding.sector = copy.sector;
    finding.verdict = verdict_name(copy.verdict);
    explain(finding, copy.problem);
    // A place that the winner does not record may have become part of the data area.
    if (copy.recorded && !beyond)
        plan(Kind::superblock_copy, copy.copy, 0);
}

/// The winner, or what can be put together where no copy is valid.
void Checker::choose_superblock() {
    SuperblockScan& scan = result_.scan;

    if (scan.newer_version)
        return;
    if (scan.winner_index >= 0 && (scan.winner || scan.majority)) {
        result_.superblock = scan.winner ? scan.winner : scan.majority;
        result_.superblock_bytes = scan.copies[static_cast<std::size_t>(scan.winner_index)].bytes;
        for (SuperblockCopy& copy : scan.copies) {
            if (copy.verdict == Verdict::bad_crc && superblock_copy_torn(scan, copy))
                copy.verdict = Verdict::torn;
        }
        return;
    }
    if (scan.conflict || scan.ambiguous)
        return;
    const auto recombined = recombine_superblock(spare_, scan);
    if (!recombined) {
        if (main_)
            rebuild_from_main();
        return;
    }
    result_.superblock = recombined->superblock;
    result_.superblock_bytes = recombined->bytes;
    scan.highest_generation = recombined->superblock.head.generation;
    Finding& finding = add("RMF-0117", spare_, "superblock");
    finding.expected = "a valid copy";
    finding.found = remap::explain(scan);
    plan(Kind::superblock, 0, 0);
}

/// The last resort: what the label on the main and the table say together.
void Checker::rebuild_from_main() {
    std::string why;
    const auto rebuilt = rebuild_superblock(spare_, *main_, why);
    const auto joined = [](const std::vector<std::string>& list) {
        std::string text;
        for (const std::string& item : list)
            text += cat(text.empty() ? "" : "; ", item);
        return text;
    };

    if (!rebuilt) {
        not_rebuilt_ = why;
        return;
    }
    rebuilt_ = true;
    result_.superblock = rebuilt->superblock;
    result_.superblock_bytes = encode_superblock(rebuilt->superblock, 0);
    result_.scan.highest_generation = rebuilt->superblock.head.generation;
    Finding& finding = add("RMF-0119", spare_, "superblock");
    finding.expected = "a valid copy";
    finding.found = cat(remap::explain(result_.scan), "; proved: ", joined(rebuilt->proved),
                        "; assumed: ", joined(rebuilt->assumed));
    plan(Kind::superblock, 0, 0);
}

void Checker::note_superblock_copies() {
    for (const SuperblockCopy& copy : result_.scan.copies) {
        CopyVerdict& verdict = result_.copies.emplace_back();
        verdict.device = spare_.name();
        verdict.structure = "superblock";
        verdict.copy = copy.copy;
        verdict.sector = copy.sector;
        verdict.verdict = copy.verdict;
        verdict.error = copy.error;
        if (copy.value)
            verdict.generation = copy.value->head.generation;
    }
}

/// True if there is a superblock to go on with.
bool Checker::check_superblocks() {
    result_.scan = scan_superblocks(spare_);
    const SuperblockScan& scan = result_.scan;

    choose_superblock();
    note_superblock_copies();
    if (!result_.superblock)
        no_winner();
    else if ((sb().head.ro_compat & ~REMAP_RO_COMPAT_KNOWN) != 0)
        result_.refused = "unknown features that allow reading only";
    if (!result_.refused.empty() && result_.superblock)
        add("RMF-0115", spare_, "superblock").found = result_.refused;
    for (const SuperblockCopy& copy : scan.copies) {
        if (result_.superblock && scan.winner_index >= 0)
            check_superblock_copy(copy);
    }
    if (scan.interrupted) {
        Finding& finding = add("RMF-0114", spare_, "superblock");
        finding.expected = cat(REMAP_SB_COPIES, " new copies");
        finding.found = cat(scan.count(Verdict::current));
    }
    return result_.superblock.has_value();
}

void Checker::check_set_state() {
    const std::uint64_t size = spare_.size();
    const std::uint32_t flags = sb().head.flags;

    if (const auto bad = check_geometry(sb(), size)) {
        // What is missing may be there, beyond a wrong partition table or in a whole copy.
        explain(add("RMF-0401", spare_, "device"), *bad);
        refuse("a part of the device is missing");
    }
    if (size / REMAP_SB_SECTORS > sb().spare_size / REMAP_SB_SECTORS) {
        Finding& finding = add("RMF-0402", spare_, "device");
        finding.expected = cat(sb().spare_size, " sectors");
        finding.found = cat(size, " sectors");
    }
    if (spare_.logical_block_size() > sb().block_size()) {
        Finding& finding = add("RMF-0408", spare_, "device");
        finding.expected = cat("at most ", sb().block_size(), " bytes");
        finding.found = cat(spare_.logical_block_size(), " bytes");
    }
    if (sb().head.state != REMAP_STATE_COMPLETE) {
        Finding& finding = add(main_ ? "RMF-0403" : "RMF-0404", spare_, "set");
        finding.expected = set_state_name(REMAP_STATE_COMPLETE);
        finding.found = set_state_name(sb().head.state);
    }
    if ((flags & REMAP_FLAG_LABEL_FROZEN) != 0)
        add("RMF-0406", spare_, "set");
}

// --- table ------------------------------------------------------------------------------------

/// A commit writes its blocks to one copy after the other, under one generation. So what the last
/// commit left is newest on the first copies only.
bool Checker::leftover_of_commit(const TableProblem& problem) const {
    const Table& table = result_.table;
    const std::uint64_t newest = table.generations[problem.index];

    if (problem.verdict != Verdict::stale || newest != table.highest_generation)
        return false;
    const auto [first, end] = std::equal_range(
        table.problems.begin(), table.problems.end(), problem,
        [](const TableProblem& a, const TableProblem& b) { return a.index < b.index; });
    // All live copies after this one must be old as well, and so must be none before a new one.
    if (std::any_of(first, end, [](const auto& other) { return other.verdict != Verdict::stale; }))
        return false;
    for (unsigned int copy = problem.copy + 1; copy < sb().segment().nr_copies; copy++) {
        const bool live = (sb().live_copies & (1U << copy)) != 0;
        const bool old =
            std::any_of(first, end, [copy](const auto& other) { return other.copy == copy; });
        if (live && !old)
            return false;
    }
    return true;
}

void Checker::check_table_copies() {
    const Table& table = result_.table;
    const auto in = [](const std::vector<std::uint64_t>& list, std::uint64_t index) {
        return std::binary_search(list.begin(), list.end(), index);
    };
    std::vector<const TableProblem*> by_copy;

    for (const TableProblem& p : table.problems)
        by_copy.push_back(&p);
    std::stable_sort(by_copy.begin(), by_copy.end(),
                     [](const auto* a, const auto* b) { return a->copy < b->copy; });
    const TableProblem* last = nullptr;
    bool last_planned = false;
    for (const TableProblem* p : by_copy) {
        const char* id = id_for(table_ids, p->verdict);
        // A conflict or what was put together has a finding for all copies.
        if (!id || in(table.recombined, p->index))
            continue;
        const bool leftover = !table.is_lost(p->index) && leftover_of_commit(*p);
        const bool planned =
            !leftover && !table.is_lost(p->index) && !in(table.miscounted, p->index);
        if (leftover)
            id = "RMF-0208";
        if (last && last->copy == p->copy && last->index + 1 == p->index &&
            last_planned == planned && last->problem.field == p->problem.field &&
            std::strcmp(result_.findings.back().problem->id, id) == 0) {
            result_.findings.back().count++;
            if (result_.findings.back().repairable)
                result_.plan.back().count++;
        } else {
            Finding& finding = add(id, spare_, "table block");
            finding.index = p->index;
            finding.copy = p->copy;
            finding.sector = p->sector;
            finding.verdict = verdict_name(p->verdict);
            explain(finding, p->problem);
            if (planned)
                plan(Kind::table_copy, p->copy, p->index);
        }
        last = p;
        last_planned = planned;
    }
}

/// Blocks of which no copy is whole, but all together are.
void Checker::recombine_lost_blocks(Survey& survey) {
    Table& table = result_.table;
    std::vector<std::uint64_t> lost;

    for (const std::uint64_t index : table.lost) {
        const bool conflict =
            std::binary_search(table.conflicts.begin(), table.conflicts.end(), index);
        const auto block = conflict ? std::nullopt : recombine_table_block(spare_, sb(), index);
        if (!block) {
            lost.push_back(index);
            continue;
        }
        std::copy(
            block->entries.begin(), block->entries.end(),
            table.entries.begin() + static_cast<std::ptrdiff_t>(index * REMAP_ENTRIES_PER_BLOCK));
        survey.add(index, block->entries);
        table.generations[index] = block->generation;
        table.highest_generation = std::max(table.highest_generation, block->generation);
        table.recombined.push_back(index);
    }
    table.lost = std::move(lost);
    for (std::size_t i = 0; i < table.recombined.size();) {
        const std::uint64_t first = table.recombined[i];
        std::uint64_t count = 0;
        for (; i < table.recombined.size() && table.recombined[i] == first + count; i++)
            count++;
        Finding& finding = add("RMF-0214", spare_, "table block");
        finding.index = first;
        finding.count = count;
        finding.expected = "a valid copy";
        finding.found = "only damaged ones";
        plan(Kind::table_block, 0, first, count);
    }
}

void Checker::judge_torn_copies() {
    Table& table = result_.table;

    for (TableProblem& p : table.problems) {
        if (p.verdict == Verdict::bad_crc && !table.is_lost(p.index) &&
            table_copy_torn(
                spare_, sb(), p.index, p.copy, table.generations[p.index],
                std::span(table.entries)
                    .subspan(p.index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK)))
            p.verdict = Verdict::torn;
    }
}

/// Each copy in runs of blocks with the same verdict.
void Checker::note_table_copies() {
    for (unsigned int copy = 0; copy < sb().segment().nr_copies; copy++) {
        const bool dead = (sb().live_copies & (1U << copy)) == 0;
        std::uint64_t next = 0;
        const auto put = [&](std::uint64_t end, Verdict verdict, int error) {
            CopyVerdict* last = next == 0 ? nullptr : &result_.copies.back();
            if (next == end)
                return;
            if (!last || last->verdict != verdict || last->error != error) {
                last = &result_.copies.emplace_back();
                last->device = spare_.name();
                last->structure = "table block";
                last->copy = copy;
                last->index = next;
                last->count = 0;
                last->sector = sb().table_sector(next, copy);
                last->verdict = verdict;
                last->error = error;
            }
            last->count += end - next;
            next = end;
        };
        for (const TableProblem& p : result_.table.problems) {
            if (p.copy != copy || dead)
                continue;
            put(p.index, Verdict::current, 0);
            put(p.index + 1, p.verdict, p.error);
        }
        put(sb().table_length, dead ? Verdict::dead : Verdict::current, 0);
    }
}

void Checker::check_lost_blocks() {
    const Table& table = result_.table;

    const auto conflicting = [&table](std::uint64_t index) {
        return std::binary_search(table.conflicts.begin(), table.conflicts.end(), index);
    };
    for (std::size_t i = 0; i < table.lost.size();) {
        const std::uint64_t first = table.lost[i];
        const bool conflict = conflicting(first);
        std::uint64_t count = 0;
        while (i < table.lost.size() && table.lost[i] == first + count &&
               conflicting(table.lost[i]) == conflict) {
            i++;
            count++;
        }
        Finding& finding = add(conflict ? "RMF-0207" : "RMF-0206", spare_, "table block");
        finding.index = first;
        finding.count = count;
        finding.expected = conflict ? "equal copies" : "a valid copy";
        finding.found = conflict ? "different ones" : "none";
    }
    for (const std::uint64_t index : table.miscounted)
        add("RMF-0211", spare_, "table block").index = index;
}

void Checker::check_dead_copies() {
    const bool whole = result_.table.lost.empty() && result_.table.miscounted.empty();

    for (unsigned int copy = 0; copy < sb().segment().nr_copies; copy++) {
        if ((sb().live_copies & (1U << copy)) != 0)
            continue;
        Finding& finding = add(whole ? "RMF-0209" : "RMF-0210", spare_, "table");
        finding.copy = copy;
        finding.sector = sb().segment().table_start[copy];
        finding.verdict = verdict_name(Verdict::dead);
        if (whole)
            plan(Kind::rebuild_copy, copy, 0);
    }
}

/// New table blocks are written before the length that takes them in.
void Checker::check_after_end() {
    constexpr std::uint64_t extension = 256;  // at most this many blocks at once
    const std::uint64_t first = sb().table_length;
    const std::uint64_t end = std::min(first + extension, sb().segment().table_blocks());
    std::uint64_t valid_end = first;
    std::uint64_t used_end = first;

    // One by one, and not beyond the first that is not ours: what comes after it may not even be
    // readable.
    while (valid_end < end) {
        bool valid = false;
        visit_table(spare_, sb(), valid_end, valid_end + 1, false, [&](const TableBlockView& view) {
            if (view.winner < 0)
                return;
            const TableCopy& copy = view.copies[static_cast<std::size_t>(view.winner)];
            valid = true;
            if (copy.header.in_use > 0)
                used_end = valid_end + 1;
        });
        if (!valid)
            break;
        valid_end++;
    }
    if (valid_end == first)
        return;
    Finding& finding = add(used_end > first ? "RMF-0213" : "RMF-0212", spare_, "table");
    finding.index = first;
    finding.expected = cat(first, " blocks");
    finding.found = cat(valid_end - first, " more");
    if (used_end > first)
        plan(Kind::extend_table, 0, used_end);
}

void Checker::check_entry_of(std::uint64_t slot) {
    const auto bad = check_entry(sb(), slot, result_.table.entries[slot]);

    if (!bad)
        return;
    const auto* row = std::find_if(entry_ids.begin(), entry_ids.end(),
                                   [&](const auto& r) { return bad->field == r.first; });
    bad_slots_.push_back(slot);
    if (!result_.findings.empty()) {
        Finding& last = result_.findings.back();
        if (last.problem == &problem(row->second) && *last.index + last.count == slot) {
            last.count++;
            return;
        }
    }
    Finding& finding = add(row->second, spare_, "slot");
    finding.index = slot;
    finding.sector = sb().table_sector(slot / REMAP_ENTRIES_PER_BLOCK, 0);
    explain(finding, *bad);
}

void Checker::check_entries(const Survey& survey) {
    for (const std::uint64_t index : survey.implausible()) {
        for (unsigned int i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++)
            check_entry_of(index * REMAP_ENTRIES_PER_BLOCK + i);
    }
    result_.slots_used = survey.slots_used();
    if (survey.slots_lost() > 0)
        add("RMF-0313", spare_, "table").found = cat(survey.slots_lost());
}

/// What is left when neither copies nor their sectors give a valid block, and what of a valid one
/// cannot be true.
void Checker::check_provable() {
    const Table& table = result_.table;
    std::set<std::uint64_t> doubtful(table.miscounted.begin(), table.miscounted.end());
    std::set<std::uint64_t> undecided;
    std::vector<SalvagedBlock> blocks;

    for (const Duplicate& d : duplicates_) {
        if (!d.winner)
            undecided.insert(d.slots.begin(), d.slots.end());
    }
    for (const std::uint64_t slot : bad_slots_)
        doubtful.insert(slot / REMAP_ENTRIES_PER_BLOCK);
    for (const std::uint64_t slot : undecided)
        doubtful.insert(slot / REMAP_ENTRIES_PER_BLOCK);
    for (const std::uint64_t index : table.lost)
        blocks.push_back(salvage_table_block(spare_, sb(), index));
    for (const std::uint64_t index : doubtful)
        blocks.push_back(salvage_valid_block(
            sb(), index,
            std::span(table.entries)
                .subspan(index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK),
            undecided));
    if (blocks.empty())
        return;
    // Nobody knows whose table this is, and the superblocks are all that there is to tell.
    if (result_.scan.ambiguous) {
        refuse("there are superblocks of two sets, and the table is not whole");
        return;
    }
    result_.loss = settle_loss(sb(), table, blocks);
    const Loss& loss = result_.loss;
    Finding& finding = add("RMF-0216", spare_, "table");
    finding.expected = "each of them equal in two copies";
    finding.found = loss.slots.empty() ? "only a count that is wrong"
                                       : cat("not so: slots ", number_runs(loss.slots));
    if (!loss.blocks.empty())
        finding.found += cat("; they name main blocks ", number_runs(loss.blocks));
    if (!loss.unmarked.empty())
        finding.found +=
            cat("; no slot is left to mark lost: main blocks ", number_runs(loss.unmarked));
    plan(Kind::salvage, 0, 0);
}

/// The loss is confirmed only when nothing else is in doubt.
void Checker::check_read_only() {
    if ((sb().head.flags & REMAP_FLAG_READ_ONLY) == 0)
        return;
    const bool doubts = std::any_of(
        result_.findings.begin(), result_.findings.end(),
        [](const Finding& finding) { return finding.problem->severity == Severity::error; });
    add("RMF-0405", spare_, "set");
    if (!doubts)
        plan(Kind::confirm_loss, 0, 0);
}

void Checker::check_duplicates() {
    for (const Duplicate& d : duplicates_) {
        Finding& finding = add(d.winner ? "RMF-0310" : "RMF-0311", spare_, "main block");
        finding.index = d.block;
        finding.expected = "one slot";
        for (const std::uint64_t slot : d.slots)
            finding.found += cat(finding.found.empty() ? "slots " : ", ", slot);
        if (d.winner)
            finding.found += cat("; slot ", *d.winner, " wins");
    }
}

void Checker::check_hidden_entries(const HiddenBlocks& hidden) {
    const auto& have = hidden.seen();

    for (std::size_t e = 0; e < have.size(); e++) {
        auto at = std::find(have[e].begin(), have[e].end(), false);
        while (at != have[e].end()) {
            const auto end = std::find(at, have[e].end(), true);
            Finding& finding = add("RMF-0312", spare_, "main block");
            finding.index = sb().hidden[e].start + static_cast<std::uint64_t>(at - have[e].begin());
            finding.expected = "a slot";
            finding.found = cat("none", run_text(static_cast<std::uint64_t>(end - at)));
            at = std::find(end, have[e].end(), false);
        }
    }
}

void Checker::count_slots() {
    std::uint64_t reserved = 0;
    const std::uint64_t start = sb().segment().data_start;

    for (const std::uint64_t place : sb().sb_sector) {
        for (std::uint64_t at = place; at < place + REMAP_SB_SECTORS; at += sb().block_sectors())
            reserved +=
                at >= start && (at - start) / sb().block_sectors() < sb().segment().nr_slots;
    }
    result_.slots_total = sb().segment().nr_slots - reserved;
}

/// Is there a live copy that lies on the device as a whole? What a superblock claims beyond the end
/// of the device is not worth the memory that it would take to load it.
bool Checker::table_on_device() const {
    const std::uint64_t length = sb().table_length * REMAP_TABLE_BLOCK_SECTORS;

    for (unsigned int copy = 0; copy < sb().segment().nr_copies; copy++) {
        const std::uint64_t start = sb().segment().table_start[copy];
        if ((sb().live_copies & (1U << copy)) != 0 && start <= spare_.size() &&
            length <= spare_.size() - start)
            return true;
    }
    return false;
}

void Checker::check_table() {
    if (!table_on_device()) {  // check_set_state has reported the size
        count_slots();
        return;
    }
    Survey survey(sb());
    result_.table = load_table(
        spare_, sb(), progress_,
        [&](std::uint64_t index, std::span<const Entry> entries) { survey.add(index, entries); });
    recombine_lost_blocks(survey);
    judge_torn_copies();
    note_table_copies();
    check_table_copies();
    check_lost_blocks();
    check_dead_copies();
    check_after_end();
    check_entries(survey);
    duplicates_ = survey.duplicates(result_.table);
    check_provable();
    check_duplicates();
    // With table blocks missing this would only say the same again; a set that is being adopted
    // or released need not have the entries.
    if (result_.table.lost.empty() && sb().head.state == REMAP_STATE_COMPLETE)
        check_hidden_entries(survey.hidden());
    count_slots();
}

// --- main -------------------------------------------------------------------------------------

bool Checker::in_exposed_extent(std::uint64_t block) const {
    return std::any_of(sb().hidden.begin(), sb().hidden.end(), [block](const Hidden& h) {
        return (h.flags & REMAP_HIDDEN_EXPOSED) != 0 && block >= h.start &&
               block - h.start < h.count;
    });
}

void Checker::note_label(unsigned int number, Verdict verdict, int error,
                         std::optional<std::uint64_t> generation) {
    CopyVerdict& copy = result_.copies.emplace_back();

    copy.device = main_->name();
    copy.structure = "label";
    copy.copy = number;
    copy.sector = sb().label_sector[number];
    copy.verdict = verdict;
    copy.error = error;
    copy.generation = generation;
}

/// Blocks come in ascending order; those in a row with one verdict are one record.
void Checker::note_filler(std::uint64_t block, Verdict verdict, int error) {
    CopyVerdict* last = &result_.copies.back();

    if (last->structure == "filler" && *last->index + last->count == block &&
        last->verdict == verdict && last->error == error) {
        last->count++;
        return;
    }
    last = &result_.copies.emplace_back();
    last->device = main_->name();
    last->structure = "filler";
    last->index = block;
    last->sector = block * sb().block_sectors();
    last->verdict = verdict;
    last->error = error;
}

/// Nothing is written, and what was planned already is not.
void Checker::refuse(const std::string& why) {
    result_.refused = why;
    for (Finding& finding : result_.findings)
        finding.repairable = false;
    result_.plan.clear();
}

/// Whoever wrote this knows more than we do: nothing is touched.
void Checker::refuse_newer(const char* structure, std::uint64_t sector,
                           const FieldProblem& problem) {
    Finding& finding = add("RMF-0515", *main_, structure);

    finding.sector = sector;
    finding.verdict = verdict_name(Verdict::newer_version);
    explain(finding, problem);
    result_.unknown = true;
    refuse(cat("a ", structure, " of a newer format"));
    main_is_ours_ = false;
}

void Checker::check_label(unsigned int number, std::vector<Finding>& repairs) {
    const std::uint64_t sector = sb().label_sector[number];
    const Label ours = make_label(sb());
    LabelBytes bytes{};
    Finding finding;

    finding.device = main_->name();
    finding.structure = "label";
    finding.copy = number;
    finding.sector = sector;
    if (const int error = main_->try_read(sector, bytes)) {
        note_label(number, Verdict::unreadable, error, std::nullopt);
        finding.problem = &problem("RMF-0507");
        finding.verdict = verdict_name(Verdict::unreadable);
        finding.found = std::strerror(error);
        repairs.push_back(std::move(finding));
        return;
    }
    auto decoded = decode_label(bytes, sector);
    const Head& head = decoded.value.head;
    if (decoded.valid() && (head.set_uuid != ours.head.set_uuid || head.nonce != ours.head.nonce ||
                            head.member_uuid != ours.head.member_uuid ||
                            head.partner_uuid != ours.head.partner_uuid)) {
        Finding& stranger = add("RMF-0502", *main_, "label");
        stranger.copy = number;
        stranger.sector = sector;
        stranger.verdict = verdict_name(Verdict::foreign);
        stranger.expected = cat("set ", ours.head.set_uuid, ", spare ", ours.head.partner_uuid);
        stranger.found = cat("set ", head.set_uuid, ", spare ", head.partner_uuid);
        note_label(number, Verdict::foreign, 0, head.generation);
        main_is_ours_ = false;
        return;
    }
    if (decoded.valid() && (head.copy != number || head.state != REMAP_STATE_COMPLETE)) {
        decoded.verdict = Verdict::misplaced;
        decoded.problem = {"copy and state", cat(number, ", complete"),
                           cat(+head.copy, ", ", set_state_name(head.state))};
    }
    if (decoded.verdict == Verdict::newer_version) {
        refuse_newer("label", sector, decoded.problem);
        result_.findings.back().copy = number;
    }
    note_label(number, decoded.verdict, 0,
               decoded.valid() ? std::optional(head.generation) : std::nullopt);
    if (decoded.verdict == Verdict::newer_version)
        return;
    if (decoded.valid()) {
        label_epochs_.emplace_back(number, decoded.value.epoch);
        if (!result_.label || decoded.value.epoch > result_.label->epoch)
            result_.label = decoded.value;
        return;
    }
    if (decoded.verdict == Verdict::absent && in_exposed_extent(sector / sb().block_sectors())) {
        Finding& exposed = add("RMF-0511", *main_, "label");
        exposed.copy = number;
        exposed.sector = sector;
        return;
    }
    finding.problem = &problem(decoded.verdict == Verdict::absent ? "RMF-0508" : "RMF-0506");
    finding.verdict = verdict_name(decoded.verdict);
    explain(finding, decoded.problem);
    repairs.push_back(std::move(finding));
}

void Checker::judge_label_epochs() {
    const std::uint32_t epoch = result_.label->epoch;
    const char* id = nullptr;

    if (epoch > sb().epoch)
        id = "RMF-0504";
    else if (epoch < sb().label_epoch)
        id = "RMF-0505";
    if (!id)
        return;
    Finding& finding = add(id, *main_, "label");
    finding.field = "epoch";
    finding.expected = cat(sb().label_epoch, " to ", sb().epoch);
    finding.found = cat(epoch);
    main_is_ours_ = false;
}

/// The kernel writes the labels one at a time, and a power cut ends that anywhere.
void Checker::note_older_labels() {
    for (const auto& [number, epoch] : label_epochs_) {
        if (epoch == result_.label->epoch)
            continue;
        Finding& finding = add("RMF-0509", *main_, "label");
        finding.copy = number;
        finding.sector = sb().label_sector[number];
        finding.verdict = verdict_name(Verdict::stale);
        finding.field = "epoch";
        finding.expected = cat(result_.label->epoch);
        finding.found = cat(epoch);
        for (CopyVerdict& copy : result_.copies) {
            if (copy.structure == "label" && copy.copy == number)
                copy.verdict = Verdict::stale;
        }
    }
}

void Checker::check_labels() {
    std::vector<Finding> repairs;

    for (unsigned int i = 0; i < sb().label_sector.size(); i++)
        check_label(i, repairs);
    if (result_.label) {
        judge_label_epochs();
        note_older_labels();
    } else if (main_is_ours_) {
        Finding& finding = add("RMF-0503", *main_, "label");
        finding.expected = cat("set ", sb().head.set_uuid);
        finding.found = cat("no valid label at ", sb().label_sector.size(), " places");
        main_is_ours_ = false;
    }
    for (Finding& repair : repairs) {
        const auto number = static_cast<unsigned int>(*repair.copy);
        result_.findings.push_back(std::move(repair));
        if (main_is_ours_)
            plan(Kind::label, number, 0);
    }
}

/// One finding for each way in which blocks of an extent are not as they should be.
void Checker::check_extent(const Hidden& extent) {
    const bool exposed = (extent.flags & REMAP_HIDDEN_EXPOSED) != 0;
    const Filler wanted = make_filler(sb());
    std::vector<std::uint64_t> unreadable;
    std::vector<std::uint64_t> other;
    const std::uint64_t end = extent.start + extent.count;
    const std::uint64_t per_run = (128U << 10) / sb().block_size();
    std::vector<std::uint8_t> run;
    bool whole_run = false;
    LabelBytes bytes{};

    for (std::uint64_t block = extent.start; block < end; block++) {
        const std::uint64_t sector = block * sb().block_sectors();
        const std::uint64_t in_run = (block - extent.start) % per_run;
        if (in_run == 0) {
            run.resize(std::min(per_run, end - block) * sb().block_size());
            whole_run = main_->try_read(sector, run) == 0;
        }
        if (std::binary_search(sb().label_sector.begin(), sb().label_sector.end(), sector))
            continue;
        if (whole_run) {
            const auto* const at = run.data() + in_run * sb().block_size();
            std::copy(at, at + bytes.size(), bytes.begin());
        } else if (const int error = main_->try_read(sector, bytes)) {
            unreadable.push_back(block);
            note_filler(block, Verdict::unreadable, error);
            continue;
        }
        auto decoded = decode_filler(bytes, sector);
        const Head& head = decoded.value.head;
        if (decoded.valid() &&
            (head.set_uuid != wanted.head.set_uuid || head.nonce != wanted.head.nonce ||
             head.member_uuid != wanted.head.member_uuid))
            decoded.verdict = Verdict::foreign;
        note_filler(block, decoded.verdict, 0);
        if (decoded.verdict == Verdict::newer_version) {
            refuse_newer("filler", sector, decoded.problem);
            return;
        }
        if (!decoded.valid())
            other.push_back(block);
    }
    const auto report = [&](const char* id, const std::vector<std::uint64_t>& blocks) {
        Finding& finding = add(id, *main_, "hidden block");
        finding.index = blocks.front();
        finding.sector = blocks.front() * sb().block_sectors();
        finding.expected = "filler";
        finding.found = cat(blocks.size(), " blocks without it");
    };
    if (!unreadable.empty())
        report("RMF-0512", unreadable);
    if (other.empty())
        return;
    report(exposed ? "RMF-0511" : "RMF-0510", other);
    for (const std::uint64_t block : other) {
        if (!exposed)
            plan(Kind::filler, 0, block);
    }
}

void Checker::check_fillers() {
    for (const Hidden& extent : sb().hidden) {
        if (main_is_ours_)
            check_extent(extent);
    }
}

/// A copy on another disk may be used on purpose, so this is only worth knowing.
void Checker::check_identity(BlockIo& io, remap_role role) {
    const Member* member = sb().member(role);

    if (!member || !io.is_block_device())
        return;
    const Identity recorded{member->wwn, member->serial, member->partuuid, member->size};
    const Identity found = identify_path(io.name());
    if (recorded.compare(found) != Identity::Match::different)
        return;
    Finding& finding = add(role == REMAP_ROLE_MAIN ? "RMF-0514" : "RMF-0407", io, "device");
    finding.expected = recorded.describe();
    finding.found = found.describe();
}

void Checker::check_main() {
    if (main_->size() < sb().main_size) {
        Finding& finding = add("RMF-0501", *main_, "device");
        finding.expected = cat("at least ", sb().main_size, " sectors");
        finding.found = cat(main_->size(), " sectors");
        main_is_ours_ = false;
        return;
    }
    if (main_->logical_block_size() > sb().block_size()) {
        Finding& finding = add("RMF-0513", *main_, "device");
        finding.expected = cat("at most ", sb().block_size(), " bytes");
        finding.found = cat(main_->logical_block_size(), " bytes");
        main_is_ours_ = false;
        return;
    }
    if (sb().is_bare() || sb().head.state != REMAP_STATE_COMPLETE)
        return;
    check_labels();
    if (main_is_ours_)
        check_fillers();
}

CheckResult Checker::run() {
    if (!check_superblocks())
        return std::move(result_);
    check_set_state();
    check_identity(spare_, REMAP_ROLE_SPARE);
    if (main_)
        check_identity(*main_, REMAP_ROLE_MAIN);
    check_table();
    check_read_only();
    if (main_)
        check_main();
    if (main_ && main_is_ours_ && sb().head.state != REMAP_STATE_COMPLETE) {
        for (std::size_t i = 0; i < result_.findings.size(); i++) {
            if (std::strcmp(result_.findings[i].problem->id, "RMF-0403") != 0)
                continue;
            if (result_.refused.empty()) {
                result_.findings[i].repairable = true;
                result_.plan.push_back({Kind::recover, i, 0, 0, 1});
            }
        }
    }
    return std::move(result_);
}

CheckResult Checker::cancelled() {
    for (Finding& finding : result_.findings)
        finding.repairable = false;
    result_.plan.clear();
    result_.cancelled = true;
    return std::move(result_);
}

}  // namespace

const char* severity_name(Severity severity) {
    switch (severity) {
        case Severity::note:
            return "note";
        case Severity::warning:
            return "warning";
        case Severity::error:
            return "error";
    }
    return "unknown";
}

bool CheckResult::damaged() const {
    return std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
        return finding.problem->severity != Severity::note;
    });
}

int CheckResult::exit_bits(bool preened) const {
    int bits = fsck::ok;

    if (unknown)
        return fsck::operational;
    for (const Finding& finding : findings) {
        const Severity severity = finding.problem->severity;
        const bool tolerable =
            preened && severity == Severity::warning && !awaits_confirmation(finding) &&
            (!finding.repairable || !finding.repair_error.empty() || harms_no_data(finding));
        if (finding.repaired)
            bits |= fsck::corrected;
        else if (severity != Severity::note && !tolerable)
            bits |= fsck::uncorrected;
    }
    return bits;
}

std::string describe(const Finding& finding) {
    std::string text = cat(finding.problem->id, " ", severity_name(finding.problem->severity), ": ",
                           finding.device, ": ", finding.structure);

    if (finding.index)
        text += finding.count > 1
                    ? cat("s ", *finding.index, " to ", *finding.index + finding.count - 1)
                    : cat(" ", *finding.index);
    if (finding.copy)
        text += cat(" copy ", *finding.copy);
    if (finding.sector)
        text += cat(" at sector ", *finding.sector);
    text += cat(": ", finding.problem->text);
    std::string detail = finding.field;
    const auto append = [&detail](const char* what, const std::string& value) {
        if (!value.empty())
            detail += cat(detail.empty() ? "" : detail.back() == ',' ? " " : ": ", what, value);
    };
    append("expected ", finding.expected);
    if (!finding.expected.empty() && !finding.found.empty())
        detail += ",";
    append("found ", finding.found);
    if (!detail.empty())
        text += cat(" (", detail, ")");
    return text;
}

CheckResult check_set(BlockIo& spare, BlockIo* main, const Progress& progress) {
    Checker checker(spare, main, progress);

    try {
        return checker.run();
    } catch (const Cancelled&) {
        return checker.cancelled();
    }
}

}  // namespace remap
