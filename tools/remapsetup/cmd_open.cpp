// SPDX-License-Identifier: GPL-2.0-or-later
#include <iostream>

#include "cli/terminal.hpp"
#include "commands.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"

namespace remapsetup {
namespace {

void silence(const std::string& /*text*/) {}

constexpr const char* advice =
    "attach what is missing, run \"remapsetup open --all\", and leave the shell. \"remapsetup "
    "list\" "
    "shows every set. If a spare is gone for good, \"remapsetup rescue MAIN\" says what is left to "
    "do";

}  // namespace

int run_open(const OpenCommand& command) {
    if (command.all) {
        const remap::Exit code = remap::open_all(command.all_options, cli::message,
                                                 command.quiet ? silence : cli::message);
        if (command.advice && code != remap::Exit::ok) {
            cli::message(advice);
        }
        return static_cast<int>(code);
    }
    if (!command.listed.empty()) {
        remap::open_listed(command.listed, command.all_options, cli::message);
        return static_cast<int>(remap::Exit::ok);
    }
    std::cout << remap::open_set(command.options, cli::message) << "\n";
    remap::finish_stdout();
    return static_cast<int>(remap::Exit::ok);
}

int run_close(const CloseCommand& command) {
    if (command.all) {
        remap::close_all(command.all_options, cli::message);
    } else {
        remap::close_set(command.name, !command.all_options.no_udev_sync);
    }
    return static_cast<int>(remap::Exit::ok);
}

}  // namespace remapsetup
