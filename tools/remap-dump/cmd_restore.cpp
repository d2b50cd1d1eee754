// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/terminal.hpp"
#include "libremap/error.hpp"
#include "libremap/restore.hpp"
#include "libremap/uninterrupted.hpp"
#include "verbs.hpp"

namespace remap_dump {

int run_restore(const RestoreVerb& verb) {
    remap::RestoreOptions options = verb.options;
    if (verb.slots_in_place)
        options.slots = remap::SlotData::in_place;
    else if (verb.slots_lost)
        options.slots = remap::SlotData::lost;
    options.undo.file = wished_undo_file(verb.undo_file);
    options.undo.told = cli::message;
    remap::RestoreJob job(options);
    if (verb.dry_run) {
        cli::message(job.consequences() + "\nNothing was written.");
        return static_cast<int>(remap::Exit::ok);
    }
    if (!verb.yes && !cli::confirmed(job.consequences(), "Go on?"))
        throw remap::Error(remap::Exit::usage, "not done");
    cli::TerminalObserver observer;
    const remap::Uninterrupted until_done;
    job.run(observer);
    return static_cast<int>(remap::Exit::ok);
}

}  // namespace remap_dump
