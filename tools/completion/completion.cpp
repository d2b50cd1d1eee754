// SPDX-License-Identifier: GPL-2.0-or-later
#include "completion/completion.hpp"

#include <algorithm>
#include <cctype>
#include <iostream>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "completion/command_line.hpp"

namespace completion {
namespace {

/// A word for the shells' single quotes.
std::string quoted(const std::string& text) {
    std::string out = "'";
    for (const char c : text) {
        out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    return out + "'";
}

std::string joined(const std::vector<std::string>& words, const char* between) {
    std::string out;
    for (const std::string& word : words) {
        out += (out.empty() ? "" : between) + word;
    }
    return out;
}

/// A shell function's name for a tool.
std::string function_of(const std::string& tool) {
    std::string name = "_" + tool;
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    return name;
}

std::vector<std::string> names_of(const std::vector<Command>& verbs) {
    std::vector<std::string> names;
    for (const Command& verb : verbs) {
        names.push_back(verb.name);
    }
    return names;
}

std::vector<std::string> names_of(const std::vector<Argument>& options) {
    std::vector<std::string> names;
    for (const Argument& option : options) {
        names.insert(names.end(), option.names.begin(), option.names.end());
    }
    return names;
}

// --- bash -------------------------------------------------------------------------------------

std::string bash_candidates(const Argument& argument) {
    switch (argument.takes) {
        case Takes::word:
            return "compgen -W " + quoted(joined(argument.words, " ")) + " -- \"$cur\"";
        case Takes::file:
            return "compgen -f -- \"$cur\"";
        case Takes::device:
            return "compgen -W \"$(cd /dev/mapper 2>/dev/null && echo *)\" -- \"$cur\"";
        case Takes::nothing:
        case Takes::number:
        case Takes::text:
            break;
    }
    return ":";
}

/// The cases of one command: the value of the option before the cursor, an option, an argument.
void bash_cases(const Command& command, const std::string& verb, std::ostream& out) {
    for (const Argument& option : command.options) {
        if (option.takes == Takes::nothing) {
            continue;
        }
        std::vector<std::string> patterns;
        for (const std::string& name : option.names) {
            patterns.push_back(quoted(verb + ":" + name + ":") + "*");
        }
        out << "        " << joined(patterns, " | ") << ") " << bash_candidates(option) << " ;;\n";
    }
    out << "        " << quoted(verb + ":") << "*:-*) compgen -W "
        << quoted(joined(names_of(command.options), " ")) << " -- \"$cur\" ;;\n";
    out << "        " << quoted(verb + ":") << "*) ";
    if (!command.verbs.empty()) {
        out << "compgen -W " << quoted(joined(names_of(command.verbs), " ")) << " -- \"$cur\" ;;\n";
        return;
    }
    std::string all;
    for (const Argument& argument : command.positionals) {
        const std::string candidates = bash_candidates(argument);
        if (all.find(candidates) == std::string::npos) {
            all += (all.empty() ? "" : "; ") + candidates;
        }
    }
    out << (all.empty() ? ":" : all) << " ;;\n";
}

void write_bash(const Command& tool, std::ostream& out) {
    const std::string function = function_of(tool.name);
    out << "# bash completion for " << tool.name << ", made from its options\n\n"
        << function << "_candidates() {\n    case $verb:$prev:$cur in\n";
    for (const Command& verb : tool.verbs) {
        bash_cases(verb, verb.name, out);
    }
    bash_cases(tool, "", out);
    out << "    esac\n}\n\n"
        << function << R"(() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb='' i
    # "--option=value" comes as three words
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
)";
    if (!tool.verbs.empty()) {
        out << "    for ((i = 1; i < COMP_CWORD; i++)); do\n        case ${COMP_WORDS[i]} in\n"
            << "        " << joined(names_of(tool.verbs), " | ") << ")\n"
            << "            verb=${COMP_WORDS[i]}\n            break\n            ;;\n"
            << "        esac\n    done\n";
    }
    out << "    mapfile -t COMPREPLY < <(" << function << "_candidates)\n}\n\n"
        << "complete -o filenames -F " << function << " " << tool.name;
    if (tool.name == "remap-fsck") {
        out << " fsck.remap";
    }
    out << "\n";
}

// --- zsh --------------------------------------------------------------------------------------

/// Text inside "[...]" or after ":" of an _arguments specification.
std::string zsh_text(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '[' || c == ']' || c == ':' || c == '\\') {
            out += '\\';
        }
        out += c;
    }
    return out;
}

std::string zsh_action(const Argument& argument) {
    switch (argument.takes) {
        case Takes::word:
            return "(" + joined(argument.words, " ") + ")";
        case Takes::file:
            return "_files";
        case Takes::device:
            return "_path_files -W /dev/mapper";
        case Takes::nothing:
        case Takes::number:
        case Takes::text:
            break;
    }
    return " ";
}

void zsh_arguments(const Command& command, const std::string& indent, std::ostream& out) {
    for (const Argument& option : command.options) {
        for (const std::string& name : option.names) {
            std::string spec = name + "[" + zsh_text(option.description) + "]";
            if (option.takes != Takes::nothing) {
                spec += ":value:" + zsh_action(option);
            }
            out << " \\\n" << indent << quoted(spec);
        }
    }
    for (const Argument& argument : command.positionals) {
        out << " \\\n"
            << indent
            << quoted(":" + zsh_text(argument.names.front()) + ":" + zsh_action(argument));
    }
}

void write_zsh(const Command& tool, std::ostream& out) {
    const std::string function = function_of(tool.name);
    out << "#compdef " << tool.name << (tool.name == "remap-fsck" ? " fsck.remap" : "")
        << "\n# zsh completion for " << tool.name << ", made from its options\n\n"
        << function << "() {\n";
    if (tool.verbs.empty()) {
        out << "    _arguments";
        zsh_arguments(tool, "        ", out);
        out << "\n}\n\n" << function << " \"$@\"\n";
        return;
    }
    out << "    local context state state_descr line\n    typeset -A opt_args\n"
        << "    _arguments -C";
    zsh_arguments(tool, "        ", out);
    out << " \\\n        '1:command:->command' '*::argument:->argument'\n    case $state in\n"
        << "    command)\n        local -a commands=(\n";
    for (const Command& verb : tool.verbs) {
        out << "            " << quoted(verb.name + ":" + zsh_text(verb.description)) << "\n";
    }
    out << "        )\n        _describe command commands\n        ;;\n    argument)\n"
        << "        case $line[1] in\n";
    for (const Command& verb : tool.verbs) {
        out << "        " << verb.name << ")\n            _arguments";
        zsh_arguments(verb, "                ", out);
        out << "\n            ;;\n";
    }
    out << "        esac\n        ;;\n    esac\n}\n\n" << function << " \"$@\"\n";
}

// --- fish -------------------------------------------------------------------------------------

std::string fish_quoted(const std::string& text) {
    std::string out = "'";
    for (const char c : text) {
        out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    }
    return out + "'";
}

std::string fish_candidates(const Argument& argument) {
    switch (argument.takes) {
        case Takes::word:
            return " -x -a " + fish_quoted(joined(argument.words, " "));
        case Takes::file:
            return " -r -F";
        case Takes::device:
            return " -x -a '(path basename /dev/mapper/* 2>/dev/null)'";
        case Takes::number:
        case Takes::text:
            return " -x";
        case Takes::nothing:
            break;
    }
    return "";
}

void fish_command(const Command& command, const std::string& start, std::ostream& out) {
    for (const Argument& option : command.options) {
        out << start;
        for (const std::string& name : option.names) {
            const bool is_long = name.rfind("--", 0) == 0;
            out << (is_long ? " -l " : " -s ") << name.substr(is_long ? 2 : 1);
        }
        out << fish_candidates(option) << " -d " << fish_quoted(option.description) << "\n";
    }
    for (const Argument& argument : command.positionals) {
        if (argument.takes != Takes::file) {
            out << start << fish_candidates(argument) << "\n";
        }
    }
}

void write_fish(const Command& tool, std::ostream& out) {
    const std::string start = "complete -c " + tool.name;
    out << "# fish completion for " << tool.name << ", made from its options\n\n";
    if (tool.verbs.empty()) {
        fish_command(tool, start, out);
        return;
    }
    fish_command(tool, start + " -n __fish_use_subcommand", out);
    for (const Command& verb : tool.verbs) {
        out << start << " -f -n __fish_use_subcommand -a " << verb.name << " -d "
            << fish_quoted(verb.description) << "\n";
        fish_command(verb, start + " -n '__fish_seen_subcommand_from " + verb.name + "'", out);
    }
}

void print(const CLI::App& app, const std::string& shell) {
    const Command tool = describe(app);
    if (shell == "bash") {
        write_bash(tool, std::cout);
    } else if (shell == "zsh") {
        write_zsh(tool, std::cout);
    } else {
        write_fish(tool, std::cout);
    }
    if (!std::cout.flush()) {
        throw CLI::RuntimeError("standard output: cannot write", 1);
    }
}

}  // namespace

void add_hidden_options(CLI::App& app) {
    app.add_option_function<std::string>(
           "--completion",
           [&app](const std::string& shell) {
               print(app, shell);
               throw CLI::Success();
           },
           "Print the completion file of a shell")
        ->check(CLI::IsMember({"bash", "zsh", "fish"}))
        ->group("");
    // CLI11 takes a literal for the variable that the flag sets.
    const std::string parse_only_text = "Parse the command line and do nothing";
    CLI::Option* parse_only = app.add_flag("--parse-only", parse_only_text)->group("");
    app.final_callback([parse_only] {
        if (parse_only->count() > 0) {
            throw CLI::Success();
        }
    });
}

}  // namespace completion
