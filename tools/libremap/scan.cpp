// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/scan.hpp"

#include <cstring>
#include <string>

#include "libremap/text.hpp"

namespace remap {
namespace {

std::string generation_text(std::uint64_t generation) {
    return cat(generation >> 32, ".", generation & 0xffffffffU);
}

void show_run(const FoundRun& run, Emitter& out) {
    const bool table = run.kind == StructureKind::table_block;
    out.begin_object("");
    out.text("kind", structure_name(run.kind));
    out.number("sector", run.sector);
    out.number("count", run.count);
    out.text("verdict", verdict_name(run.verdict));
    if (run.kind != StructureKind::filler)
        out.number("copy", run.copy);
    if (table) {
        out.number("index", run.index);
        out.quantity("in_use", run.in_use, "entries");
    }
    if (run.kind != StructureKind::filler) {
        out.text("generation", generation_text(run.newest));
        if (run.oldest != run.newest)
            out.text("oldest", generation_text(run.oldest));
    }
    if (run.shift() != 0)
        out.number("says_sector", run.position);
    if (run.set)
        out.text("set", run.set->str());
    else
        out.text("seed", cat("0x", std::hex, run.seed));
    if (run.verdict != Verdict::current && !run.problem.field.empty()) {
        out.text("field", run.problem.field);
        out.text("expected", run.problem.expected);
        out.text("found", run.problem.found);
    }
    out.end_object();
}

}  // namespace

Exit scan_device(BlockIo& device, const SearchOptions& options, Emitter& out) {
    const SearchResult result = search_device(device, options);
    if (result.found.empty() && result.unreadable.empty())
        throw Error(Exit::unrecognised,
                    cat(device.name(), ": expected a structure of ours, found none in ",
                        device.size(), " sectors"));
    Exit exit = Exit::ok;
    out.text("device", device.name());
    out.quantity("size", device.size(), "sectors");
    out.begin_list("found");
    for (const FoundRun& run : result.found) {
        show_run(run, out);
        if (run.verdict != Verdict::current)
            exit = Exit::damage;
    }
    out.end_list();
    out.begin_list("unreadable");
    for (const UnreadableRun& run : result.unreadable) {
        out.begin_object("");
        out.number("sector", run.sector);
        out.quantity("count", run.count, "sectors");
        out.text("error", std::strerror(run.error));
        out.end_object();
        exit = Exit::damage;
    }
    out.end_list();
    out.finish();
    return exit;
}

}  // namespace remap
