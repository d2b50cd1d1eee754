// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/terminal.hpp"
#include "libremap/error.hpp"
#include "libremap/migrate.hpp"
#include "libremap/text.hpp"
#include "libremap/uninterrupted.hpp"
#include "verbs.hpp"

namespace remap_dump {

int run_migrate(const MigrateVerb& verb) {
    remap::MigrateOptions options = verb.options;
    if (verb.doubtful == "main")
        options.doubtful = remap::Doubt::main;
    else if (verb.doubtful == "spare")
        options.doubtful = remap::Doubt::spare;
    if (verb.entry_sectors != 0)
        options.entry_sectors = verb.entry_sectors;
    options.undo.file = wished_undo_file(verb.undo_file);
    options.undo.told = cli::message;
    remap::MigrateJob job(options);
    {
        remap::StandardOutput standard_output;
        const auto out = make_emitter(verb.json);
        job.show(*out);
        standard_output.finish();
    }
    if (verb.dry_run) {
        cli::message("nothing was written");
        return static_cast<int>(job.exit());
    }
    if (!verb.yes && !cli::confirmed(job.consequences(), "Go on?"))
        throw remap::Error(remap::Exit::usage, "not done");
    cli::TerminalObserver observer;
    const remap::Uninterrupted until_done;
    job.run(observer);
    cli::message(remap::cat(options.new_spare,
                            ": is the spare of a bare set now; \"remapsetup "
                            "open --main ",
                            options.main, " ", options.new_spare, " NAME\" opens it"));
    return static_cast<int>(job.exit());
}

}  // namespace remap_dump
