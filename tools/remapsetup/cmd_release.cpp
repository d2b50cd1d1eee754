// SPDX-License-Identifier: GPL-2.0-or-later
#include <iostream>

#include "cli/terminal.hpp"
#include "commands.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"
#include "libremap/text.hpp"
#include "libremap/uninterrupted.hpp"

namespace remapsetup {

int run_release(const ReleaseCommand& command) {
    remap::ReleaseJob job(command.options);
    if (!command.yes && !cli::confirmed(job.consequences(), "Go on?")) {
        throw remap::Error(remap::Exit::usage, "not done");
    }
    cli::TerminalObserver observer;
    const remap::Uninterrupted until_done;
    const remap::ReleaseResult result = job.run(observer);
    remap::TextEmitter out(std::cout);
    out.text(command.options.to ? "copied_to" : "main", job.data_name());
    out.quantity(command.options.to ? "copied" : "written_back", result.written, "blocks");
    out.quantity("lost", result.lost.size(), "blocks");
    out.finish();
    remap::finish_stdout();
    for (const std::uint64_t block : result.lost) {
        observer.warning(
            remap::cat(job.data_name(), ": block ", block, " was lost and holds zeroes now"));
    }
    return static_cast<int>(result.lost.empty() ? remap::Exit::ok : remap::Exit::damage);
}

}  // namespace remapsetup
