// SPDX-License-Identifier: GPL-2.0-or-later
#include <ctime>

#include "cli/terminal.hpp"
#include "libremap/bad_list.hpp"
#include "libremap/error.hpp"
#include "libremap/import.hpp"
#include "libremap/input.hpp"
#include "libremap/logged_job.hpp"
#include "libremap/spare_target.hpp"
#include "libremap/text.hpp"
#include "libremap/uninterrupted.hpp"
#include "verbs.hpp"

namespace remap_dump {
namespace {

remap::BadList read_list(const ImportVerb& verb) {
    remap::InputFile file(verb.list);

    if (verb.format == "ddrescue")
        return remap::read_ddrescue_map(file, file.name());
    if (verb.format == "md")
        return remap::read_md_bad_blocks(file, file.name());
    return remap::read_badblocks(file, file.name(), verb.block_size);
}

std::string consequences(const ImportVerb& verb, const remap::ImportPlan& plan,
                         const remap::BadList& list) {
    std::string text = remap::cat(verb.spare, ": ", plan.blocks.size(),
                                  " blocks of the main become lost: whatever the main "
                                  "could still give, reads of them fail until they are written. ",
                                  plan.known, " have an entry already and stay as they are.");

    if (plan.skipped > 0)
        text += remap::cat(" ", plan.skipped, " are hidden or beyond the end and left out.");
    if (list.undecided_bytes > 0)
        text += remap::cat(" ", list.undecided_bytes,
                           " bytes that ddrescue has not given up are left out.");
    return text + remap::cat(" Free slots afterwards: ", plan.free_slots, ".");
}

}  // namespace

int run_import(const ImportVerb& verb) {
    if ((verb.format == "badblocks") != (verb.block_size != 0))
        throw remap::Error(remap::Exit::usage,
                           verb.block_size == 0
                               ? "import: a badblocks list has no unit; say it with --block-size"
                               : "import: --block-size is for --format badblocks");
    if (verb.block_size % remap::sector_size != 0)
        throw remap::Error(remap::Exit::usage, "import: --block-size: expected a multiple of 512");
    // The whole list is read before the device is opened.
    const remap::BadList list = read_list(verb);
    const auto spare = verb.dry_run ? remap::open_block_io(verb.spare, remap::Mode::read_only)
                                    : remap::open_spare_target(verb.spare);
    const remap::ImportPlan plan = remap::plan_import(*spare, list, verb.skip);
    const std::string text = consequences(verb, plan, list);
    if (verb.dry_run || plan.blocks.empty()) {
        cli::message(text + "\nNothing was written.");
        return static_cast<int>(remap::Exit::ok);
    }
    if (!verb.yes && !cli::confirmed(text, "Go on?"))
        throw remap::Error(remap::Exit::usage, "not done");
    cli::TerminalObserver observer;
    const remap::Uninterrupted until_done;
    const auto now = static_cast<std::uint32_t>(std::time(nullptr));
    const remap::UndoWish undo{wished_undo_file(verb.undo_file), {verb.spare}, cli::message};
    remap::run_logged(
        *spare, undo, {},
        [&](remap::BlockIo& io, remap::Observer& to) { remap::run_import(io, plan, now, to); },
        observer);
    return static_cast<int>(remap::Exit::ok);
}

}  // namespace remap_dump
