// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/known.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {

CommandLine parse_command_line(const std::string& text) {
    CommandLine result;
    std::istringstream in(text);
    for (std::string word; in >> word;) {
        constexpr std::string_view uuid_key = "rd.remap.uuid=";
        if (word == "rd.remap=0") {
            result.disabled = true;
        } else if (word.compare(0, uuid_key.size(), uuid_key) == 0) {
            const auto uuid = Uuid::parse(std::string_view(word).substr(uuid_key.size()));
            if (uuid) {
                result.sets.push_back(*uuid);
            } else {
                result.problems.push_back(
                    cat("kernel command line: \"", word, "\": expected rd.remap.uuid=<set>"));
            }
        }
    }
    return result;
}

CommandLine running_command_line(const std::string& proc) {
    std::ifstream in(proc + "/cmdline");
    return parse_command_line({std::istreambuf_iterator<char>(in), {}});
}

std::vector<RemaptabEntry> known_sets(const Remaptab& tab, const CommandLine& command_line) {
    std::vector<RemaptabEntry> known;
    const auto named = [&](const Uuid& set) {
        return std::find(command_line.sets.begin(), command_line.sets.end(), set) !=
               command_line.sets.end();
    };
    for (const RemaptabEntry& entry : tab.entries()) {
        if (!entry.has("noauto") || named(entry.set)) {
            known.push_back(entry);
        }
    }
    for (const Uuid& set : command_line.sets) {
        const bool listed = std::any_of(known.begin(), known.end(),
                                        [&](const RemaptabEntry& e) { return e.set == set; });
        if (!listed) {
            known.push_back({default_device_name(set), set, {}});
        }
    }
    return known;
}

RemaptabEntry set_named(const std::string& name, const Remaptab& tab,
                        const CommandLine& command_line) {
    if (const RemaptabEntry* entry = tab.find(name)) {
        return *entry;
    }
    for (const RemaptabEntry& entry : known_sets(tab, command_line)) {
        if (entry.name == name) {
            return entry;
        }
    }
    throw Error(Exit::unrecognised, cat(name, ": no set of this name is listed in ", tab.file(),
                                        " or named by rd.remap.uuid="));
}

}  // namespace remap
