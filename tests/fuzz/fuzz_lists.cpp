// SPDX-License-Identifier: GPL-2.0-or-later
//
// Lists of bad sectors, and their import. Input: a byte that chooses list, unit, set and whether
// sectors that do not fit are left out; then the list. Promised: runs are in range, and come back
// when they are written; an import makes the blocks of the list lost and changes nothing else, and
// its undo file gives back the identical bytes.
#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "hostile_set.hpp"
#include "libremap/bad_list.hpp"
#include "libremap/error.hpp"
#include "libremap/import.hpp"
#include "libremap/logged_job.hpp"
#include "libremap/text.hpp"
#include "memory_sink.hpp"

using namespace remap;

namespace {

constexpr const char* name = "list";
constexpr std::uint64_t last_sector = (std::uint64_t{1} << 63) / sector_size;

enum Format { ddrescue, badblocks, md, formats };

BadList read(const std::string& text, Format format, std::uint64_t block_size) {
    std::stringbuf in(text);
    switch (format) {
        case ddrescue:
            return read_ddrescue_map(in, name);
        case badblocks:
            return read_badblocks(in, name, block_size);
        default:
            return read_md_bad_blocks(in, name);
    }
}

void check_runs(const BadList& list) {
    const SectorRun* before = nullptr;
    for (const SectorRun& run : list.runs) {
        fuzz::promise(run.count > 0, "an empty run");
        fuzz::promise(run.start < last_sector && run.count <= last_sector - run.start,
                      "a run that no device can have");
        fuzz::promise(before == nullptr || run.start < before->start ||
                          run.start > before->start + before->count,
                      "two runs that are one");
        before = &run;
    }
}

/// As the program writes it to which the format belongs.
std::string written(const BadList& list, Format format) {
    std::ostringstream out;
    std::uint64_t at = 0;
    if (format == ddrescue) {
        out << "0 ?\n";
    }
    for (const SectorRun& run : list.runs) {
        const std::uint64_t start = run.start * sector_size;
        switch (format) {
            case ddrescue:
                if (start > at) {
                    out << at << " " << start - at << " +\n";
                }
                at = start + run.count * sector_size;
                out << start << " 0x" << std::hex << run.count * sector_size << std::dec << " -\n";
                break;
            case badblocks:
                for (std::uint64_t i = 0; i < run.count; ++i) {
                    out << run.start + i << "\n";
                }
                break;
            default:
                out << run.start << " " << run.count << "\n";
        }
    }
    return out.str();
}

std::uint64_t sectors_of(const BadList& list) {
    std::uint64_t sum = 0;
    for (const SectorRun& run : list.runs) {
        sum += std::min(run.count, last_sector - sum);
    }
    return sum;
}

void check_round_trip(const BadList& list, Format format) {
    constexpr std::uint64_t many = 4096;
    // The last sector that a file offset reaches is not a whole one.
    const bool cut = std::any_of(list.runs.begin(), list.runs.end(), [](const SectorRun& run) {
        return run.start + run.count >= last_sector;
    });
    if (cut || (format == badblocks && sectors_of(list) > many)) {
        return;
    }
    fuzz::promise(read(written(list, format), format, sector_size).runs == list.runs,
                  "a list does not come back");
}

std::map<std::uint64_t, Mapping> mappings(BlockIo& spare) {
    std::map<std::uint64_t, Mapping> all;
    for (const Mapping& mapping : live_mappings(load_intact_table(spare, load_superblock(spare)))) {
        all.emplace(mapping.block, mapping);
    }
    return all;
}

void check_import(const BadList& list, const test::SampleSet& sample, bool skip) {
    fuzz::Overlay spare("spare.img", sample.spare.content(), 512);
    const fuzz::Overlay untouched("spare.img", sample.spare.content(), 512);
    const Superblock& sb = sample.superblock;
    spare.freeze("a plan only reads");
    ImportPlan plan;
    try {
        plan = plan_import(spare, list, skip);
    } catch (const Error& error) {
        fuzz::promise(error.code() == Exit::unrecognised, error.what());
        return;
    }
    const RehearsedJob rehearsed(
        spare, {}, [&plan](BlockIo& io, Observer& to) { run_import(io, plan, 1, to); });
    test::MemorySink sink;
    write_undo(sink, rehearsed.header, rehearsed.rehearsal.journal, spare, nullptr);
    spare.thaw();
    auto wanted = mappings(spare);
    for (const std::uint64_t block : plan.blocks) {
        fuzz::promise(block < sb.main_blocks() && !sb.block_hidden(block), "an impossible block");
        fuzz::promise(wanted.count(block) == 0, "a block that has an entry, or comes twice");
        Mapping lost;
        lost.entry = Entry::make(REMAP_ENTRY_LOST, block, REMAP_CAUSE_IMPORT, 0, 0, 1);
        wanted.emplace(block, lost);
    }
    Observer quiet;
    run_import(spare, plan, 1, quiet);
    const auto found = mappings(spare);
    fuzz::promise(std::equal(found.begin(), found.end(), wanted.begin(), wanted.end(),
                             [](const auto& a, const auto& b) {
                                 return a.first == b.first && !a.second.undecidable &&
                                        a.second.entry.state() == b.second.entry.state();
                             }),
                  "other blocks than those of the list were entered");
    fuzz::promise(check_set(spare, nullptr).exit_bits() == fsck::ok, "an import left damage");
    const UndoResult undone = undo_repair(parse_undo(sink.bytes, "undo"), spare, nullptr);
    fuzz::promise(undone.errors.empty() && spare.same_as(untouched), "an import is not undone");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const std::uint8_t choice = input.byte();
    const auto format = static_cast<Format>((choice & 3) % formats);
    const std::uint64_t block_size = sector_size << (choice >> 2 & 7);
    const auto& samples = fuzz::sample_sets();
    BadList list;
    try {
        list = read(input.text(), format, block_size);
    } catch (const Error& error) {
        fuzz::promise(error.code() == Exit::unrecognised, error.what());
        fuzz::check_refusal(error, name);
        return 0;
    }
    check_runs(list);
    check_round_trip(list, format);
    check_import(list, samples[(choice >> 5 & 3) % samples.size()], (choice & 0x80) != 0);
    return 0;
}
