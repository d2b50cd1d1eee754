// SPDX-License-Identifier: GPL-2.0-or-later
#include <iostream>

#include "cli/terminal.hpp"
#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/export.hpp"
#include "libremap/identity.hpp"
#include "libremap/pair.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/text.hpp"
#include "verbs.hpp"

namespace remap_dump {
namespace {

using remap::Error;
using remap::Exit;

/// A dump from which the set can be made again.
Exit export_set(remap::BlockIo& spare, const ExportVerb& verb) {
    const bool in_use = remap::in_use(spare) || !remap::users_of(verb.device).empty();
    const auto writer = verb.format == "json" ? remap::make_json_writer(std::cout)
                                              : remap::make_text_writer(std::cout);

    if (in_use)
        cli::message(verb.device +
                     ": warning: in use; the dump says so, and what is remapped from now on is "
                     "not in it");
    return remap::visit_set(spare, in_use, *writer);
}

/// What other programs want to know of the main.
Exit export_view(remap::BlockIo& spare, const ExportVerb& verb) {
    const remap::MainView view = remap::view_main(spare);
    const bool partial = view.lost_table_blocks > 0;

    if (partial && verb.format == "dmtable")
        throw Error(
            Exit::unrecognised,
            remap::cat(verb.device, ": expected a whole table, found ", view.lost_table_blocks,
                       " table blocks without a valid copy: what they mapped is not known, "
                       "and a device without it would show stale data; run remap-fsck"));
    if (partial)
        cli::message(remap::cat(verb.device, ": warning: ", view.lost_table_blocks,
                                " table blocks have no valid copy; what they mapped is missing"));
    if (verb.format == "ddrescue") {
        remap::write_ddrescue_map(view, verb.device, std::cout);
    } else if (verb.format == "badblocks") {
        remap::write_badblocks(view, verb.block_size, std::cout);
    } else {
        // Refused before the first line if the two do not belong together.
        const remap::Superblock superblock = remap::require_openable(spare, true);
        const auto main = remap::open_block_io(verb.main, remap::Mode::read_only);
        remap::require_pair(*main, verb.device, superblock, remap::identify_path(verb.main));
        remap::write_dm_table(view, verb.main, verb.device, std::cout);
    }
    return view.damaged || partial ? Exit::damage : Exit::ok;
}

}  // namespace

int run_export(const ExportVerb& verb) {
    end_with_reader();
    if (verb.format == "badblocks" && verb.block_size == 0)
        throw Error(Exit::usage,
                    "export: a badblocks list has no unit; say it with --block-size BYTES");
    if (verb.format != "badblocks" && verb.block_size != 0)
        throw Error(Exit::usage, "export: --block-size is for --format badblocks");
    if ((verb.format == "dmtable") == verb.main.empty())
        throw Error(Exit::usage, verb.main.empty()
                                     ? "export: --format dmtable needs the main: --main MAIN"
                                     : "export: --main is for --format dmtable");
    const auto spare = remap::open_block_io(verb.device, remap::Mode::read_only);
    remap::StandardOutput standard_output;
    const bool whole_set = verb.format == "json" || verb.format == "text";
    const Exit code = whole_set ? export_set(*spare, verb) : export_view(*spare, verb);
    standard_output.finish();
    return static_cast<int>(code);
}

}  // namespace remap_dump
