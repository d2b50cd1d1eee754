// SPDX-License-Identifier: GPL-2.0-or-later
#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "cli/terminal.hpp"
#include "completion/completion.hpp"
#include "forensic_verbs.hpp"
#include "libremap/error.hpp"
#include "verbs.hpp"

namespace remap_dump {
namespace {

constexpr const char* footer = R"(Examples:
  remap-dump /dev/sdb1
  remap-dump show --json spare.img

Without a verb, "show" is meant. "remap-dump VERB --help" tells more.

Exit status: 0 done; 1 done, and damage was seen; 2 not recognised, or damaged
beyond use; 8 I/O error, in use, or a newer format; 16 wrong use.)";

using Run = std::function<int()>;

/// Options of one verb are bound to its struct; what is to be run is set when it was named.
struct Verbs {
    ShowVerb show;
    ForensicVerbs forensic;
    Run run;
};

void add_show(CLI::App& app, Verbs& verbs) {
    ShowVerb& v = verbs.show;
    CLI::App* sub =
        app.add_subcommand("show", "Show everything that dm-remap has on a device (the default)");
    sub->add_flag("--json", v.json, "Print JSON");
    sub->add_option("DEVICE", v.device, "Spare or main: a block device or an image file")
        ->required();
    sub->callback([&verbs] { verbs.run = [&verbs] { return run_show(verbs.show); }; });
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
    app.footer(footer);
    add_show(app, verbs);
    add_forensic_verbs(app, verbs.forensic, verbs.run);
    completion::add_hidden_options(app);
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

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    try {
        return remap_dump::run(argc, argv);
    } catch (const remap::Error& error) {
        cli::message(error.what());
        return error.exit_code();
    } catch (const std::exception& error) {
        cli::message(error.what());
        return static_cast<int>(remap::Exit::operational);
    }
}
