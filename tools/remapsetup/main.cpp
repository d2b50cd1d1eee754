// SPDX-License-Identifier: GPL-2.0-or-later
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <csignal>
#include <functional>
#include <iostream>
#include <string_view>

#include "cli/entry.hpp"
#include "cli/exit_codes.hpp"
#include "cli/terminal.hpp"
#include "commands.hpp"
#include "completion/completion.hpp"
#include "libremap/error.hpp"
#include "libremap/remaptab.hpp"

namespace remapsetup {
namespace {

constexpr const char* examples = R"(Examples:
  remapsetup format --label root /dev/sda2 /dev/sdb1
  remapsetup open /dev/sdb1 root
  remapsetup open --all --wait 30
  remapsetup status --json root
  remapsetup close root
  remapsetup release /dev/sdb1

)";

using Run = std::function<int()>;

/// Options of one subcommand are bound to its struct; what is to be run is set when it was named.
struct Commands {
    FormatCommand format;
    ProbeCommand probe;
    OpenCommand open;
    CloseCommand close;
    ReleaseCommand release;
    RescueCommand rescue;
    StatusCommand status;
    ListCommand list;
    Run run;
};

void add_format(CLI::App* sub, Commands& commands) {
    FormatCommand& c = commands.format;
    remap::FormatOptions& o = c.options;
    sub->add_flag("-y,--yes", c.yes, "Do not ask");
    sub->add_flag("-n,--dry-run", o.dry_run,
                  "Check everything and say what would be done; the devices may be in use");
    CLI::Option* bare =
        sub->add_flag("--bare", o.bare, "Change nothing on MAIN: no label, nothing hidden");
    sub->add_flag("--zfs", o.zfs,
                  "A pool of ZFS will be made on the set: hide the places of its labels too")
        ->excludes(bare);
    sub->add_flag("--force", o.force,
                  "Overwrite a spare that holds something; adopt data that is not recognised, or "
                  "that this machine finds by the device or boots from");
    sub->add_option("--label", o.label, "Text that names the set, also the device's name");
    sub->add_option("--uuid", o.uuid, "The set's UUID (default: a random one)");
    sub->add_option("--rescue-file", o.rescue_file,
                    "Where the hidden blocks are saved, or \"none\"");
    sub->add_option("--remaptab", o.remaptab,
                    "File that gets the set's line, or \"none\" (default: /etc/remaptab for block "
                    "devices, none for image files)");
    sub->add_option("--block-size", o.block_size, "Bytes per block, for image files")
        ->check(CLI::IsMember({512, 4096}));
    sub->add_option("MAIN", o.main, "The device or image whose sectors fail")->required();
    sub->add_option("SPARE", o.spare, "The device or image that replaces them")->required();
    sub->callback(
        [&commands] { commands.run = [&commands] { return run_format(commands.format); }; });
}

void add_open(CLI::App* sub, Commands& commands) {
    OpenCommand& c = commands.open;
    CLI::Option* all =
        sub->add_flag("--all", c.all, "Every set in remaptab(5) or on the kernel command line");
    CLI::Option* listed =
        sub->add_option("--listed", c.listed, "The set that remaptab(5) calls so")->excludes(all);
    sub->add_flag("--bare", c.all_options.only_bare,
                  "With --all: only bare sets without nofail; exit code 1 if one is not open")
        ->needs(all);
    CLI::Option* main =
        sub->add_option("--main", c.options.main, "The main (default: found by its label)")
            ->excludes(all)
            ->excludes(listed);
    sub->add_flag(
           "--moved", c.options.moved,
           "With --main: the main of a bare set is on other hardware than before; nothing but "
           "your word tells")
        ->needs(main);
    sub->add_flag("--no-label", c.options.no_label,
                  "With --main: take it for the main although none of its labels can be read")
        ->needs(main);
    sub->add_flag("--fsck", c.options.fsck, "First check and repair as \"remap-fsck -p\" does")
        ->excludes(all)
        ->excludes(listed);
    sub->add_flag("--read-only", c.options.read_only, "Open the set for reading only")
        ->excludes(all)
        ->excludes(listed);
    sub->add_option("--remaptab", c.all_options.remaptab, "Use this instead of /etc/remaptab");
    sub->add_option("--wait", c.all_options.wait_seconds,
                    "With --all or --listed: try for so many seconds (default: 0 with --all, else "
                    "as remaptab says)")
        ->check(CLI::NonNegativeNumber);
    sub->add_flag("--noudevsync", c.options.no_udev_sync,
                  "Do not wait for udev (for use inside a udev rule)");
    sub->add_flag("--advice", c.advice,
                  "With --all: if a set is not open, say what to do in an emergency shell")
        ->needs(all);
    sub->add_flag("--quiet", c.quiet, "With --all: say nothing about members that are missing");
    CLI::Option* spare = sub->add_option("SPARE", c.options.spare, "The spare of the set");
    CLI::Option* name = sub->add_option("NAME", c.options.name, "Name below /dev/mapper");
    for (CLI::Option* option : {spare, name}) {
        option->excludes(all)->excludes(listed);
    }
    sub->callback([&commands] {
        OpenCommand& open = commands.open;
        if (!open.all && open.listed.empty() &&
            (open.options.spare.empty() || open.options.name.empty())) {
            throw CLI::RequiredError("SPARE and NAME, --all or --listed");
        }
        open.all_options.no_udev_sync = open.options.no_udev_sync;
        commands.run = [&commands] { return run_open(commands.open); };
    });
}

void add_close(CLI::App* sub, Commands& commands) {
    CloseCommand& c = commands.close;
    CLI::Option* all = sub->add_flag(
        "--all", c.all, "Every remap device that is not in use and does not carry the system");
    sub->add_option("--remaptab", c.all_options.remaptab, "Use this instead of /etc/remaptab");
    sub->add_flag("--noudevsync", c.all_options.no_udev_sync, "Do not wait for udev");
    sub->add_option("NAME", c.name, "Name below /dev/mapper")->excludes(all);
    sub->callback([&commands] {
        if (!commands.close.all && commands.close.name.empty()) {
            throw CLI::RequiredError("NAME or --all");
        }
        commands.run = [&commands] { return run_close(commands.close); };
    });
}

void add_release(CLI::App* sub, Commands& commands) {
    ReleaseCommand& c = commands.release;
    sub->add_flag("-y,--yes", c.yes, "Do not ask");
    sub->add_flag("--accept-loss", c.options.accept_loss,
                  "Go on although blocks are lost; they become zeroes");
    CLI::Option* to =
        sub->add_option("--to", c.options.to,
                        "Copy everything to this disk instead; main and spare are not changed");
    sub->add_flag("--force", c.options.force, "With --to: overwrite a disk that holds something");
    CLI::Option* main =
        sub->add_option("--main", c.options.main, "The main (default: found by its label)");
    sub->add_flag("--no-label", c.options.no_label,
                  "With --to and --main: take it for the main although none of its labels can be "
                  "read")
        ->needs(to)
        ->needs(main);
    sub->add_option("--remaptab", c.options.remaptab,
                    "File that loses the set's line, or \"none\"");
    sub->add_option("SPARE", c.options.spare, "The spare of the set")->required();
    sub->callback(
        [&commands] { commands.run = [&commands] { return run_release(commands.release); }; });
}

void add_rescue(CLI::App* sub, Commands& commands) {
    RescueCommand& c = commands.rescue;
    sub->add_option("--rescue-file", c.options.rescue_file, "The file that format wrote");
    sub->add_flag("--write", c.options.write,
                  "Restore what the rescue file has; else nothing is changed");
    sub->add_option("MAIN", c.options.main, "The main that is left")->required();
    sub->callback(
        [&commands] { commands.run = [&commands] { return run_rescue(commands.rescue); }; });
}

void add_status(CLI::App* sub, Commands& commands) {
    sub->add_flag("--json", commands.status.json, "As JSON");
    sub->add_option("NAME", commands.status.name, "Name below /dev/mapper (default: all)");
    sub->callback(
        [&commands] { commands.run = [&commands] { return run_status(commands.status); }; });
}

void add_probe(CLI::App* sub, Commands& commands) {
    sub->add_flag("--udev", commands.probe.udev, "As properties for the udev database");
    sub->add_option("--type", commands.probe.type,
                    "What libblkid says that it is: a leg of another device is no member");
    sub->add_flag("--bare", commands.probe.bare,
                  "Say whether DEV is, or lies on, the raw main of a bare set in remaptab(5)");
    commands.probe.remaptab = remap::default_remaptab;
    sub->add_option("--remaptab", commands.probe.remaptab, "Use this instead of /etc/remaptab");
    sub->add_option("DEV", commands.probe.device, "A device or image")->required();
    sub->callback(
        [&commands] { commands.run = [&commands] { return run_probe(commands.probe); }; });
}

void add_list(CLI::App* sub, Commands& commands) {
    sub->add_flag("--json", commands.list.json, "As JSON");
    commands.list.remaptab = remap::default_remaptab;
    sub->add_option("--remaptab", commands.list.remaptab, "Use this instead of /etc/remaptab");
    sub->add_option("--unit", commands.list.unit_of,
                    "Only print systemd's unit that opens this set (a UUID) by itself; exit code 2 "
                    "if there is none");
    sub->callback([&commands] { commands.run = [&commands] { return run_list(commands.list); }; });
}

struct Verb {
    const char* name;
    const char* description;
    void (*add)(CLI::App*, Commands&);
};

constexpr std::array verbs = {
    Verb{"format", "Make MAIN and SPARE a set, with MAIN's data in place (adoption)", add_format},
    Verb{"open",
         "Create the remap device NAME of the set that SPARE belongs to, or of all known sets",
         add_open},
    Verb{"close", "Remove the remap device NAME, or all", add_close},
    Verb{"release", "Write everything back to the main and end the set", add_release},
    Verb{"rescue", "Say, or do, what brings MAIN's data back when its spare is gone for good",
         add_rescue},
    Verb{"status", "Show the state of open remap devices", add_status},
    Verb{"probe", "Say whether DEV is a member of a set", add_probe},
    Verb{"list", "List all sets of which a member is seen", add_list},
};

/// Defines the verbs; when the command line begins with one, the options of no other: udev has
/// every block device of a machine probed, and boot waits for it.
void add_verbs(CLI::App& app, Commands& commands, std::string_view first_word) {
    const auto named = [&](const Verb& verb) { return first_word == verb.name; };
    const bool one = std::any_of(verbs.begin(), verbs.end(), named);
    for (const Verb& verb : verbs) {
        CLI::App* sub = app.add_subcommand(verb.name, verb.description);
        if (!one || named(verb)) {
            verb.add(sub, commands);
        }
    }
}

/// CLI11 takes an unknown command for a positional argument and only says that one is missing.
void require_known_command(const CLI::App& app, int argc, char** argv) {
    const std::string word = argc > 1 ? argv[1] : "";
    const auto named = [&word](const CLI::App* command) { return command->get_name() == word; };
    if (!word.empty() && word[0] != '-' && app.get_subcommands(named).empty()) {
        throw remap::Error(remap::Exit::usage,
                           "unknown command \"" + word + "\"; see remapsetup --help");
    }
}

int run(int argc, char** argv) {
    CLI::App app{"Sets up devices that replace the bad sectors of a disk by those of a spare",
                 "remapsetup"};
    Commands commands;
    app.set_version_flag("--version", std::string("remapsetup ") + REMAP_TOOL_VERSION);
    app.require_subcommand(1);
    app.footer(std::string(examples) + cli::exit_codes_help);
    add_verbs(app, commands, argc > 1 ? argv[1] : "");
    completion::add_hidden_options(app);
    require_known_command(app, argc, argv);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        cli::message(error.what());
        return static_cast<int>(remap::Exit::usage);
    }
    return commands.run();
}

}  // namespace
}  // namespace remapsetup

int remapsetup_main(int argc, char** argv) {
    // A reader that has gone is an error of the output, which is checked, and must not end an
    // adoption.
    std::signal(SIGPIPE, SIG_IGN);
    return cli::exit_status_of([&] { return remapsetup::run(argc, argv); });
}
