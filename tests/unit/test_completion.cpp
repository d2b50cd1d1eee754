// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the tools say about their own command lines: completions, and the examples in their help.
#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "scratch.hpp"

namespace {

const std::vector<std::string> tools = {"remapsetup", "remap-dump", "remap-fsck"};

std::string program(const std::string& tool) {
    return std::string(REMAP_BIN_DIR) + "/" + tool;
}

std::string completion_of(const std::string& tool, const std::string& shell) {
    const auto made = scratch::run({program(tool), "--completion", shell});
    INFO(made.err);
    REQUIRE(made.code == 0);
    REQUIRE(made.out.find(tool) != std::string::npos);
    return made.out;
}

/// What bash offers when the user presses tab behind these words, the last of which is being typed.
std::vector<std::string> offered(const std::string& tool, const std::vector<std::string>& words) {
    const scratch::Folder folder;
    scratch::spill(folder.file("completion"), completion_of(tool, "bash"));
    std::string script = "set -u; cd " + folder.path().string() + "; touch 'a file' image\n" +
                         "source ./completion\nCOMP_WORDS=(" + tool;
    for (const std::string& word : words)
        script += " '" + word + "'";
    script += ")\nCOMP_CWORD=" + std::to_string(words.size()) + "\nCOMPREPLY=()\n" +
              "function=$(complete -p " + tool +
              "); function=${function#*-F }; ${function%% *}\n"
              "printf '%s\\n' ${COMPREPLY[@]+\"${COMPREPLY[@]}\"}\n";
    const auto result = scratch::run({"bash", "--norc", "-c", script});
    INFO(result.err);
    REQUIRE(result.code == 0);
    REQUIRE(result.err.empty());
    std::vector<std::string> lines;
    std::istringstream in(result.out);
    for (std::string line; std::getline(in, line);)
        lines.push_back(line);
    std::sort(lines.begin(), lines.end());
    return lines;
}

bool offers(const std::vector<std::string>& list, const std::string& word) {
    return std::find(list.begin(), list.end(), word) != list.end();
}

/// The lines of a help text that call the tool.
std::vector<std::string> examples_in(const std::string& help, const std::string& tool) {
    std::vector<std::string> lines;
    std::istringstream in(help);
    for (std::string line; std::getline(in, line);) {
        if (line.rfind("  " + tool + " ", 0) == 0)
            lines.push_back(line.substr(2 + tool.size()));
    }
    return lines;
}

/// The verbs that the help lists, the tool itself as an empty one.
std::vector<std::string> verbs_of(const std::string& tool) {
    std::vector<std::string> verbs = {""};
    std::istringstream in(scratch::run({program(tool), "--help"}).out);
    bool listed = false;
    for (std::string line; std::getline(in, line);) {
        if (listed && line.rfind("  ", 0) == 0 && line.size() > 2 && line[2] != ' ')
            verbs.push_back(line.substr(2, line.find(' ', 2) - 2));
        else if (listed && line.rfind(' ', 0) != 0)
            listed = false;
        if (line == "Subcommands:")
            listed = true;
    }
    return verbs;
}

}  // namespace

TEST_CASE("bash completes verbs, options, values and files", "[completion]") {
    const auto verbs = offered("remapsetup", {""});
    CHECK(offers(verbs, "format"));
    CHECK(offers(verbs, "release"));
    CHECK_FALSE(offers(verbs, "--help"));
    CHECK(offered("remapsetup", {"rel"}) == std::vector<std::string>{"release"});

    const auto options = offered("remapsetup", {"format", "--"});
    CHECK(offers(options, "--block-size"));
    CHECK(offers(options, "--help"));
    CHECK_FALSE(offers(options, "--wait"));
    CHECK_FALSE(offers(options, "--parse-only"));
    CHECK(offered("remapsetup", {"format", "--bl"}) == std::vector<std::string>{"--block-size"});
    CHECK(offered("remapsetup", {"format", "--block-size", ""}) ==
          std::vector<std::string>{"4096", "512"});
    CHECK(offered("remapsetup", {"format", "--block-size", "=", "5"}) ==
          std::vector<std::string>{"512"});
    CHECK(offered("remapsetup", {"format", "--yes", ""}) ==
          std::vector<std::string>{"a file", "completion", "image"});
    CHECK(offered("remapsetup", {"format", "--label", ""}).front().empty());

    CHECK(offers(offered("remap-dump", {""}), "show"));
    CHECK(offered("remap-dump", {"show", "i"}) == std::vector<std::string>{"image"});
    CHECK(offered("remap-dump", {"hexdump", "image", "su"}) ==
          std::vector<std::string>{"superblock"});
    CHECK(offered("remap-fsck", {"im"}) == std::vector<std::string>{"image"});
    CHECK(offered("remap-fsck", {"--main", "a"}) == std::vector<std::string>{"a file"});
    CHECK(offers(offered("remap-fsck", {"--"}), "--json"));
}

TEST_CASE("what zsh and fish get is what they understand, where they are installed",
          "[completion]") {
    const scratch::Folder folder;
    for (const std::string& tool : tools) {
        for (const std::string shell : {"bash", "zsh", "fish"}) {
            const std::string file = folder.file(tool + "." + shell);
            scratch::spill(file, completion_of(tool, shell));
            if (!std::filesystem::exists("/usr/bin/" + shell))
                continue;
            const auto checked = scratch::run({shell, "-n", file});
            INFO(shell << " " << tool << ": " << checked.err);
            CHECK(checked.code == 0);
            CHECK(checked.err.empty());
        }
    }
    CHECK(scratch::run({program(tools[0]), "--completion", "tcsh"}).code == 16);
}

TEST_CASE("every example in the help is a command line that the tool takes", "[completion]") {
    for (const std::string& tool : tools) {
        std::size_t examples = 0;
        for (const std::string& verb : verbs_of(tool)) {
            std::vector<std::string> words = {program(tool)};
            if (!verb.empty())
                words.push_back(verb);
            words.emplace_back("--help");
            const auto help = scratch::run(words);
            INFO(tool << " " << verb << ": " << help.err);
            REQUIRE(help.code == 0);
            for (const std::string& line : examples_in(help.out, tool)) {
                // What it is piped into, or written to, is not ours.
                const std::string ours = line.substr(0, line.find_first_of("|>"));
                const auto parsed =
                    scratch::run({"sh", "-c", program(tool) + " --parse-only" + ours});
                INFO(line << ": " << parsed.err);
                CHECK(parsed.code == 0);
                CHECK(parsed.out.empty());
                examples++;
            }
        }
        INFO(tool);
        CHECK(examples > 0);
        // The means of this test does see what is wrong.
        CHECK(scratch::run({program(tool), "--parse-only", "--no-such-option"}).code == 16);
        CHECK(scratch::run({program(tool), "--parse-only"}).code == 16);
    }
}
