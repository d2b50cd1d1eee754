// SPDX-License-Identifier: GPL-2.0-or-later
#include <iostream>

#include "cli/terminal.hpp"
#include "commands.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"
#include "libremap/text.hpp"
#include "libremap/uninterrupted.hpp"

namespace remapsetup {

int run_rescue(const RescueCommand& command) {
    remap::RescueJob job(command.options);
    std::cout << job.report();
    if (!command.options.write) {
        std::cout << (job.can_restore() ? "Nothing was changed; --write restores it.\n" : "");
        remap::finish_stdout();
        return static_cast<int>(remap::Exit::ok);
    }
    cli::TerminalObserver observer;
    const remap::Uninterrupted until_done;
    const remap::RescueResult result = job.run(observer);
    std::cout << "Restored." << (result.commands.empty() ? "" : " Now run:") << "\n";
    for (const std::string& next : result.commands) {
        std::cout << "    " << next << "\n";
    }
    remap::finish_stdout();
    if (!result.failed.empty()) {
        observer.warning(remap::cat(command.options.main, ": could not be written: blocks ",
                                    remap::block_list(result.failed)));
    }
    return static_cast<int>(result.failed.empty() ? remap::Exit::ok : remap::Exit::damage);
}

}  // namespace remapsetup
