// SPDX-License-Identifier: GPL-2.0-or-later
#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>
#include <iostream>
#include <optional>
#include <string>

#include "cli/entry.hpp"
#include "cli/exit_codes.hpp"
#include "cli/terminal.hpp"
#include "completion/completion.hpp"
#include "libremap/error.hpp"
#include "libremap/fsck.hpp"
#include "libremap/report.hpp"
#include "terminal.hpp"

namespace {

/// What the command line says, before it is made into FsckOptions.
struct Arguments {
    std::string spare;
    std::string main;
    std::string undo_file;
    std::string undo;
    std::string out;
    bool no = false;
    bool preen = false;
    bool yes = false;
    bool json = false;
    bool confirm_loss = false;
    bool ignored = false;
    int progress_fd = -1;
};

void define(CLI::App& app, Arguments& arguments) {
    app.add_option("SPARE", arguments.spare, "the spare: a block device or an image file")
        ->required();
    app.add_option("--main", arguments.main, "check the main's labels and hidden blocks as well");
    auto* no = app.add_flag("-n", arguments.no, "check everything, change nothing");
    auto* preen =
        app.add_flag("-p,-a", arguments.preen, "repair what can be repaired without loss");
    auto* yes = app.add_flag("-y", arguments.yes, "repair everything that can be repaired");
    no->excludes(preen)->excludes(yes);
    preen->excludes(yes);
    auto* json = app.add_flag("--json", arguments.json, "print the findings as JSON");
    auto* undo_file = app.add_option("-z,--undo-file", arguments.undo_file,
                                     "write what the repair overwrites to this new file");
    undo_file->excludes(no);
    auto* out = app.add_option("-o,--output", arguments.out,
                               "write the repaired spare to this new image, change no device");
    out->excludes(no)->excludes(undo_file);
    app.add_option("--undo", arguments.undo, "take the repair of this undo file back")
        ->excludes(preen)
        ->excludes(yes)
        ->excludes(json)
        ->excludes(undo_file)
        ->excludes(out);
    app.add_flag("--confirm-loss", arguments.confirm_loss,
                 "make a set writable again that a repair with loss left read-only")
        ->excludes(no)
        ->excludes(preen)
        ->excludes(yes)
        ->excludes(out);
    app.add_option(
        "-C", arguments.progress_fd,
        "write progress to this file descriptor; 0: a bar on the terminal, as without it");
    app.add_flag("-f,-T,-l,-M,-V,-r", arguments.ignored, "accepted for fsck(8), without effect");
    app.set_version_flag("--version", std::string("remap-fsck ") + REMAP_TOOL_VERSION);
    app.footer(std::string("Without -n, -p, -y: asks for each repair, or only reports if there is "
                           "no terminal.\n") +
               cli::fsck_exit_codes_help +
               "\n\nExamples:\n"
               "  remap-fsck -n --main /dev/sda2 /dev/sdb1\n"
               "  remap-fsck -p /dev/sdb1\n"
               "  remap-fsck -n --json spare.img\n"
               "  remap-fsck -y -z /root/sdb1.undo /dev/sdb1\n"
               "  remap-fsck --undo /root/sdb1.undo /dev/sdb1\n"
               "  remap-fsck -y -o repaired.img spare.img");
}

/// What is neither asked for nor can be asked about is not done; but a copy that is to be repaired
/// has no use otherwise.
remap::FsckMode mode_of(const Arguments& arguments) {
    if (arguments.no)
        return remap::FsckMode::check;
    if (arguments.preen)
        return remap::FsckMode::preen;
    if (arguments.yes)
        return remap::FsckMode::yes;
    if (remap_fsck::on_terminal() && !arguments.json)
        return remap::FsckMode::interactive;
    return arguments.out.empty() ? remap::FsckMode::check : remap::FsckMode::preen;
}

std::optional<std::string> if_given(const std::string& value) {
    return value.empty() ? std::nullopt : std::optional(value);
}

int undo(const Arguments& arguments, remap::FsckFrontend& frontend) {
    return remap::run_undo(
        {arguments.undo, arguments.spare, if_given(arguments.main), arguments.no}, frontend);
}

int check(const Arguments& arguments, remap::FsckFrontend& frontend) {
    remap::FsckOptions options;

    options.spare = arguments.spare;
    options.main = if_given(arguments.main);
    options.undo_file = if_given(arguments.undo_file);
    options.out = if_given(arguments.out);
    options.mode = mode_of(arguments);
    options.json = arguments.json;
    options.confirm_loss = arguments.confirm_loss;
    options.progress_fd = arguments.progress_fd;
    return remap::run_fsck(options, frontend);
}

int run(const Arguments& arguments) {
    remap::StandardOutput standard_output;
    cli::TerminalObserver bar;
    remap::FsckFrontend frontend{std::cout, std::cerr, remap_fsck::ask, remap_fsck::interrupted};

    // Who is given a descriptor draws the bar itself.
    if (arguments.progress_fd <= 0)
        frontend.progress = [&bar](const std::string& what, std::uint64_t done,
                                   std::uint64_t total) { bar.progress(what, done, total); };
    const int bits =
        arguments.undo.empty() ? check(arguments, frontend) : undo(arguments, frontend);

    try {
        standard_output.finish();
    } catch (const remap::Error& error) {
        std::cerr << "remap-fsck: " << error.what() << "\n";
        return bits | remap::fsck::operational;
    }
    return bits;
}

}  // namespace

int remap_fsck_main(int argc, char** argv) {
    CLI::App app("Check and repair the metadata of a dm-remap set.", "remap-fsck");
    Arguments arguments;

    // Whoever reads the output or the progress may go; a repair is brought to its end.
    std::signal(SIGPIPE, SIG_IGN);
    remap_fsck::note_interrupts();
    define(app, arguments);
    completion::add_hidden_options(app);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) ? remap::fsck::usage : remap::fsck::ok;
    }
    try {
        return run(arguments);
    } catch (const std::exception& error) {
        std::cerr << "remap-fsck: " << remap::printable(error.what()) << "\n";
        return remap::fsck::operational;
    }
}
