// SPDX-License-Identifier: GPL-2.0-or-later
#include "completion/command_line.hpp"

#include <algorithm>
#include <array>
#include <sstream>

namespace completion {
namespace {

/// CLI11 shows a set of words as "{a,b}" behind the type's name.
std::vector<std::string> words_in(const std::string& type) {
    const auto open = type.rfind('{');
    const auto close = type.rfind('}');
    std::vector<std::string> words;
    if (open == std::string::npos || close == std::string::npos || close < open) {
        return words;
    }
    std::istringstream in(type.substr(open + 1, close - open - 1));
    for (std::string word; std::getline(in, word, ',');) {
        words.push_back(word);
    }
    return words;
}

bool is_one_of(const std::string& word, std::initializer_list<const char*> list) {
    return std::find(list.begin(), list.end(), word) != list.end();
}

/// The manual's words for arguments say what they are.
Takes what(const CLI::Option& option, const std::vector<std::string>& words) {
    const std::string type = option.get_type_name();
    const std::string name = option.nonpositional() ? option.get_name() : option.get_name(true);
    if (option.get_items_expected_max() == 0) {
        return Takes::nothing;
    }
    if (!words.empty()) {
        return Takes::word;
    }
    if (type.rfind("UINT", 0) == 0 || type.rfind("INT", 0) == 0 || type.rfind("FLOAT", 0) == 0) {
        return Takes::number;
    }
    if (name == "NAME") {
        return Takes::device;
    }
    return is_one_of(name, {"--label", "--uuid"}) ? Takes::text : Takes::file;
}

Argument argument_of(const CLI::Option& option) {
    Argument argument;
    for (const std::string& name : option.get_lnames()) {
        argument.names.push_back("--" + name);
    }
    for (const std::string& name : option.get_snames()) {
        argument.names.push_back("-" + name);
    }
    if (argument.names.empty()) {
        argument.names.push_back(option.get_name(true));
    }
    argument.description = option.get_description();
    argument.words = words_in(option.get_type_name());
    argument.takes = what(option, argument.words);
    return argument;
}

}  // namespace

Command describe(const CLI::App& app) {
    Command command{app.get_name(), app.get_description(), {}, {}, {}};
    for (const CLI::Option* option : app.get_options()) {
        if (option->get_group().empty()) {
            continue;  // hidden
        }
        (option->nonpositional() ? command.options : command.positionals)
            .push_back(argument_of(*option));
    }
    for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
        command.verbs.push_back(describe(*verb));
    }
    return command;
}

}  // namespace completion
