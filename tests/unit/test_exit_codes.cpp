// SPDX-License-Identifier: GPL-2.0-or-later
//
// docs/exit-codes.md defines what the tools end with; manual pages and --help say the same.
#include <cctype>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/check.hpp"
#include "libremap/error.hpp"
#include "scratch.hpp"

namespace {

using Codes = std::map<int, std::string>;

std::vector<std::string> lines_of(const std::string& path) {
    std::istringstream in(scratch::slurp(std::string(REMAP_SOURCE_DIR) + "/" + path));
    std::vector<std::string> lines;

    for (std::string line; std::getline(in, line);)
        lines.push_back(line);
    REQUIRE(!lines.empty());
    return lines;
}

/// The table whose second column has this head.
Codes documented(const std::string& head) {
    static const std::regex row(R"(\| (\d+) \| (.*) \|)");
    Codes codes;
    bool in_table = false;

    for (const std::string& line : lines_of("docs/exit-codes.md")) {
        std::smatch match;
        if (line == "| code | " + head + " |")
            in_table = true;
        else if (line.empty())
            in_table = false;
        else if (in_table && std::regex_match(line, match, row))
            codes[std::stoi(match[1])] = match[2];
    }
    return codes;
}

/// A line of a manual page as it is read: words in alternating fonts side by side, no escapes.
std::string plain(const std::string& line) {
    const bool fonts = line.rfind(".BR ", 0) == 0;
    std::string shown;
    bool quoted = false;

    for (std::size_t at = fonts ? 4 : 0; at < line.size(); at++) {
        if (fonts && line[at] == '"')
            quoted = !quoted;
        else if (line[at] != '\\' && (!fonts || quoted || line[at] != ' '))
            shown += line[at];
    }
    return shown;
}

/// The list in the section EXIT STATUS: a number, then its text up to the next request of its own.
Codes in_manual(const std::string& tool) {
    Codes codes;
    bool in_section = false;
    int code = -1;
    bool number_next = false;

    for (const std::string& line : lines_of("docs/man/" + tool + ".8")) {
        if (line.rfind(".SH ", 0) == 0) {
            in_section = line == ".SH EXIT STATUS";
        } else if (!in_section) {
            continue;
        } else if (line == ".TP") {
            number_next = true;
        } else if (line == ".PP") {
            code = -1;
        } else if (number_next) {
            code = std::stoi(line);
            number_next = false;
        } else if (code >= 0) {
            codes[code] += (codes[code].empty() ? "" : " ") + plain(line);
        }
    }
    for (auto& [number, text] : codes) {
        REQUIRE(!text.empty());
        REQUIRE(text.back() == '.');
        text.pop_back();
        text[0] = static_cast<char>(std::tolower(text[0]));
    }
    return codes;
}

/// The sentence that begins with "Exit status".
Codes in_help(const std::string& tool) {
    const auto result = scratch::run({std::string(REMAP_BIN_DIR) + "/" + tool, "--help"});
    const std::string help = std::regex_replace(result.out, std::regex("\\s+"), " ");
    static const std::regex sentence("Exit status(?:, the sum of)?: ([^.]*)\\.");
    static const std::regex item("(\\d+) ([^;]*)(?:; |$)");
    std::smatch match;
    Codes codes;

    REQUIRE(result.code == 0);
    REQUIRE(std::regex_search(help, match, sentence));
    const std::string list = match[1];
    for (std::sregex_iterator at(list.begin(), list.end(), item), end; at != end; ++at)
        codes[std::stoi((*at)[1])] = (*at)[2];
    return codes;
}

}  // namespace

TEST_CASE("every manual page and --help has the exit codes that are documented", "[exit-codes]") {
    const Codes common = documented("remapsetup, remap-dump");
    const Codes fsck = documented("remap-fsck");

    REQUIRE(common.size() == 5);
    REQUIRE(fsck.size() == 6);
    for (const std::string tool : {"remapsetup", "remap-dump"}) {
        INFO(tool);
        CHECK(in_manual(tool) == common);
        CHECK(in_help(tool) == common);
    }
    CHECK(in_manual("remap-fsck") == fsck);
    CHECK(in_help("remap-fsck") == fsck);
}

TEST_CASE("the exit codes in the code are those documented", "[exit-codes]") {
    using remap::Exit;
    namespace bits = remap::fsck;
    const auto number = [](Exit code) { return static_cast<int>(code); };
    std::vector<int> common;
    std::vector<int> fsck;

    for (const auto& [code, text] : documented("remapsetup, remap-dump"))
        common.push_back(code);
    for (const auto& [code, text] : documented("remap-fsck"))
        fsck.push_back(code);
    CHECK(common == std::vector{number(Exit::ok), number(Exit::damage), number(Exit::unrecognised),
                                number(Exit::operational), number(Exit::usage)});
    CHECK(fsck == std::vector{bits::ok, bits::corrected, bits::uncorrected, bits::operational,
                              bits::usage, bits::cancelled});
}
