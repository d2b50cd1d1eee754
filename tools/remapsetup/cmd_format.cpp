// SPDX-License-Identifier: GPL-2.0-or-later
#include <iostream>

#include "cli/terminal.hpp"
#include "commands.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"
#include "libremap/uninterrupted.hpp"

namespace remapsetup {
namespace {

void show(const remap::FormatResult& result, const remap::FormatOptions& options) {
    const remap::Superblock& superblock = result.adopted.superblock;
    remap::TextEmitter out(std::cout);
    out.text("set", superblock.head.set_uuid.str());
    if (!superblock.label.empty()) {
        out.text("label", superblock.label);
    }
    out.text("main", options.main);
    out.text("spare", options.spare);
    out.quantity("block_size", superblock.block_size(), "bytes");
    out.quantity("main_size", superblock.main_size, "sectors");
    out.quantity("slots", superblock.segment().nr_slots, "blocks");
    out.quantity("hidden", superblock.hidden_blocks(), "blocks");
    if (!result.rescue_file.empty()) {
        out.text("rescue_file", result.rescue_file);
    }
    if (!result.name.empty()) {
        out.text("name", result.name);
    }
    out.finish();
    remap::finish_stdout();
}

}  // namespace

int run_format(const FormatCommand& command) {
    remap::FormatJob job(command.options);
    if (command.options.dry_run) {
        std::cout << job.consequences() << "\n";
        remap::finish_stdout();
        return static_cast<int>(remap::Exit::ok);
    }
    if (!command.yes && !cli::confirmed(job.consequences(), "Go on?")) {
        throw remap::Error(remap::Exit::usage, "not done");
    }
    cli::TerminalObserver observer;
    const remap::Uninterrupted until_done;
    const remap::FormatResult result = job.run(observer);
    for (const std::string& warning : result.warnings) {
        observer.warning(warning);
    }
    show(result, command.options);
    return static_cast<int>(result.warnings.empty() ? remap::Exit::ok : remap::Exit::damage);
}

}  // namespace remapsetup
