// SPDX-License-Identifier: GPL-2.0-or-later
//
// systemd runs this early at boot and at daemon-reload, with three folders for units as arguments,
// see systemd.generator(7): the sets of remaptab(5) become units. Tests may name another remaptab
// and another procfs.
#include "cli/terminal.hpp"
#include "libremap/error.hpp"
#include "libremap/known.hpp"
#include "libremap/units.hpp"

namespace {

void run(int argc, char** argv) {
    constexpr int with_folders = 4;
    constexpr int with_files = 6;
    if (argc != with_folders && argc != with_files) {
        throw remap::Error(
            remap::Exit::usage,
            "usage: remap-generator NORMAL EARLY LATE [REMAPTAB PROC]; systemd calls it");
    }
    const bool given = argc == with_files;
    const auto tab = remap::Remaptab::load(given ? argv[4] : remap::default_remaptab);
    const auto command_line = remap::running_command_line(given ? argv[5] : "/proc");
    for (const auto* problems : {&tab.problems(), &command_line.problems}) {
        for (const std::string& problem : *problems) {
            cli::message(problem);
        }
    }
    if (!command_line.disabled) {
        remap::write_units(remap::known_sets(tab, command_line), argv[1]);
    }
}

}  // namespace

int main(int argc, char** argv) {
    return cli::exit_status_of([&] {
        run(argc, argv);
        return static_cast<int>(remap::Exit::ok);
    });
}
