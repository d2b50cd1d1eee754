// SPDX-License-Identifier: GPL-2.0-or-later
#include <iostream>

#include "cli/terminal.hpp"
#include "commands.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"

namespace remapsetup {
namespace {

void silence(const std::string& /*text*/) {}

}  // namespace

int run_open(const OpenCommand& command) {
    if (command.all) {
        return static_cast<int>(remap::open_all(command.all_options, cli::message,
                                                command.quiet ? silence : cli::message));
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
