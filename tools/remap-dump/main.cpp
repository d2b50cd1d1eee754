// SPDX-License-Identifier: GPL-2.0-or-later
#include <CLI/CLI.hpp>
#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include "cli/entry.hpp"
#include "cli/exit_codes.hpp"
#include "cli/terminal.hpp"
#include "completion/completion.hpp"
#include "forensic_verbs.hpp"
#include "libremap/error.hpp"
#include "verbs.hpp"

namespace remap_dump {
namespace {

constexpr const char* undo_help =
    "A new file with what \"remap-fsck --undo\" needs to take it back";

constexpr const char* footer = R"(Examples:
  remap-dump /dev/sdb1
  remap-dump show --json spare.img
  remap-dump export /dev/sdb1 > root.json
  remap-dump restore root.json /dev/sdb1

Without a verb, "show" is meant. "remap-dump VERB --help" tells more.

)";

using Run = std::function<int()>;

/// Options of one verb are bound to its struct; what is to be run is set when it was named.
struct Verbs {
    ShowVerb show;
    ForensicVerbs forensic;
    ExportVerb exported;
    RestoreVerb restore;
    ImportVerb imported;
    MigrateVerb migrate;
    Run run;
};

void add_show(CLI::App& app, Verbs& verbs) {
    ShowVerb& v = verbs.show;
    CLI::App* sub =
        app.add_subcommand("show", "Show everything that dm-remap has on a device (the default)");
    sub->add_flag("--json", v.json, "Print JSON");
    sub->add_flag("--timeline", v.timeline, "When and why blocks were remapped");
    sub->add_option("DEVICE", v.device, "Spare or main: a block device or an image file")
        ->required();
    sub->callback([&verbs] { verbs.run = [&verbs] { return run_show(verbs.show); }; });
}

void add_export(CLI::App& app, Verbs& verbs) {
    ExportVerb& v = verbs.exported;
    CLI::App* sub = app.add_subcommand("export", "Write the metadata of a spare in another form");
    sub->add_option("--format", v.format,
                    "json or text, to restore from; ddrescue, a mapfile of the main; badblocks, a "
                    "list for mke2fs -l; dmtable, the same device without this module")
        ->check(CLI::IsMember({"json", "text", "ddrescue", "badblocks", "dmtable"}))
        ->capture_default_str();
    sub->add_option("--block-size", v.block_size, "For badblocks: bytes per block of the list")
        ->check(CLI::Range(512, 65536));
    sub->add_option("--main", v.main, "For dmtable: the main");
    sub->add_option("SPARE", v.device, "The spare: a block device or an image file")->required();
    sub->footer(R"(Examples:
  remap-dump export /dev/sdb1 > root.json
  remap-dump export --format badblocks --block-size 4096 /dev/sdb1
  remap-dump export --format dmtable --main /dev/sda2 /dev/sdb1 | dmsetup create -r data)");
    sub->callback([&verbs] { verbs.run = [&verbs] { return run_export(verbs.exported); }; });
}

void add_restore(CLI::App& app, Verbs& verbs) {
    RestoreVerb& v = verbs.restore;
    CLI::App* sub = app.add_subcommand(
        "restore", "Write the metadata of a spare from a dump in JSON or text (not the data)");
    sub->add_flag("-y,--yes", v.yes, "Do not ask");
    sub->add_flag("-n,--dry-run", v.dry_run, "Check everything, write nothing");
    CLI::Option* in_place = sub->add_flag("--slots-in-place", v.slots_in_place,
                                          "The data of remapped blocks is in TARGET's slots");
    sub->add_flag("--slots-lost", v.slots_lost,
                  "That data is gone: what was remapped reads as an error until it is written")
        ->excludes(in_place);
    sub->add_option("--main", v.options.main, "Check that this main's label is not newer");
    sub->add_flag("--force", v.options.force,
                  "Overwrite what TARGET holds; take a dump of a set that was in use");
    sub->add_option("-z,--undo-file", v.undo_file, undo_help);
    sub->add_option("DUMP", v.options.dump, "A dump, or - for standard input")->required();
    sub->add_option("TARGET", v.options.target, "The spare: a block device or an image file")
        ->required();
    sub->footer(R"(Examples:
  remap-dump restore --main /dev/sda2 root.json /dev/sdb1
  remap-dump restore -y --slots-lost root.json new-spare.img)");
    sub->callback([&verbs] { verbs.run = [&verbs] { return run_restore(verbs.restore); }; });
}

void add_import(CLI::App& app, Verbs& verbs) {
    ImportVerb& v = verbs.imported;
    CLI::App* sub = app.add_subcommand(
        "import", "Enter bad sectors of the main from a list, into a set that is not open");
    sub->add_option("--format", v.format,
                    "ddrescue, a mapfile; badblocks, a list of badblocks(8); md, \"SECTOR COUNT\" "
                    "per line")
        ->required()
        ->check(CLI::IsMember({"ddrescue", "badblocks", "md"}));
    sub->add_option("--block-size", v.block_size, "For badblocks: bytes per block of the list")
        ->check(CLI::Range(512, 65536));
    sub->add_option("-z,--undo-file", v.undo_file, undo_help);
    sub->add_flag("--skip", v.skip, "Leave out sectors that are hidden or beyond the main's end");
    sub->add_flag("-y,--yes", v.yes, "Do not ask");
    sub->add_flag("-n,--dry-run", v.dry_run, "Check everything, write nothing");
    sub->add_option("LIST", v.list, "The list, or - for standard input")->required();
    sub->add_option("SPARE", v.spare, "The spare: a block device or an image file")->required();
    sub->footer(R"(The blocks become lost: reads of them fail until they are written, also where the
main could still be read. A block that has an entry already is left as it is.

Examples:
  remap-dump import --format ddrescue rescue.map /dev/sdb1
  badblocks -b 4096 /dev/sda2 | remap-dump import -y --format badblocks --block-size 4096 - /dev/sdb1)");
    sub->callback([&verbs] { verbs.run = [&verbs] { return run_import(verbs.imported); }; });
}

void add_migrate(CLI::App& app, Verbs& verbs) {
    MigrateVerb& v = verbs.migrate;
    CLI::App* sub = app.add_subcommand(
        "migrate", "Make a bare set on NEW_SPARE from a spare of the older project of this name");
    sub->add_option("--main", v.options.main, "The main")->required();
    sub->add_option("--entry-sectors", v.entry_sectors,
                    "Sectors that each older entry stands for; the older format does not say")
        ->check(CLI::Range(1, 2048));
    sub->add_option("--doubtful", v.doubtful,
                    "What counts where the older format does not tell: lost (reads fail until "
                    "written), main, or spare")
        ->check(CLI::IsMember({"lost", "main", "spare"}))
        ->capture_default_str();
    sub->add_option("--label", v.options.label, "Text that names the set");
    sub->add_option("--block-size", v.options.block_size, "Bytes per block, for image files")
        ->check(CLI::IsMember({512, 4096}));
    sub->add_flag("--force", v.options.force, "Overwrite what NEW_SPARE holds");
    sub->add_option("-z,--undo-file", v.undo_file, undo_help);
    sub->add_flag("--json", v.json, "Print the decisions as JSON");
    sub->add_flag("-y,--yes", v.yes, "Do not ask");
    sub->add_flag("-n,--dry-run", v.dry_run, "Show the decisions, write nothing");
    sub->add_option("OLD_SPARE", v.options.old_spare, "Read only")->required();
    sub->add_option("NEW_SPARE", v.options.new_spare, "Another device or image")->required();
    sub->footer(R"(Neither OLD_SPARE nor MAIN is written to.

Examples:
  remap-dump migrate -n --main /dev/sda2 /dev/sdb1 /dev/sdc1
  remap-dump migrate --main /dev/sda2 --entry-sectors 8 /dev/sdb1 /dev/sdc1)");
    sub->callback([&verbs] { verbs.run = [&verbs] { return run_migrate(verbs.migrate); }; });
}

/// CLI11 wants the arguments last first. Without a verb, those of `show` are meant.
std::vector<std::string> arguments(const CLI::App& app, int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const std::size_t at = !words.empty() && words.front() == "--parse-only" ? 1 : 0;
    const std::string first = words.size() > at ? words[at] : "";
    const auto named = [&first](const CLI::App* verb) { return verb->get_name() == first; };
    const bool general =
        first == "--help" || first == "-h" || first == "--version" || first == "--completion";

    if (!general && app.get_subcommands(named).empty())
        words.insert(words.begin() + static_cast<std::ptrdiff_t>(at), "show");
    return {words.rbegin(), words.rend()};
}

int run(int argc, char** argv) {
    CLI::App app("Shows, saves, restores and converts the metadata of dm-remap sets.",
                 "remap-dump");
    Verbs verbs;

    app.set_version_flag("--version", std::string("remap-dump ") + REMAP_TOOL_VERSION);
    app.require_subcommand(1);
    app.footer(std::string(footer) + cli::exit_codes_help);
    add_show(app, verbs);
    add_forensic_verbs(app, verbs.forensic, verbs.run);
    completion::add_hidden_options(app);
    add_export(app, verbs);
    add_restore(app, verbs);
    add_import(app, verbs);
    add_migrate(app, verbs);
    try {
        app.parse(arguments(app, argc, argv));
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        cli::message(error.what());
        return static_cast<int>(remap::Exit::usage);
    }
    return verbs.run();
}

}  // namespace
}  // namespace remap_dump

int remap_dump_main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    return cli::exit_status_of([&] { return remap_dump::run(argc, argv); });
}
