// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/remaptab.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "libremap/bare_main.hpp"
#include "libremap/error.hpp"
#include "libremap/file_util.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::size_t max_device_name = 127;
constexpr std::string_view comment_start = "#";
constexpr mode_t new_file_mode = 0644;

std::vector<std::string> words_of(const std::string& line) {
    std::istringstream in(line);
    std::vector<std::string> words;
    for (std::string word; in >> word;) {
        if (word.compare(0, comment_start.size(), comment_start) == 0) {
            break;
        }
        words.push_back(word);
    }
    return words;
}

std::vector<std::string> options_of(const std::string& text) {
    std::vector<std::string> options;
    if (text == "-") {
        return options;
    }
    std::istringstream in(text);
    for (std::string option; std::getline(in, option, ',');) {
        if (!option.empty()) {
            options.push_back(option);
        }
    }
    return options;
}

struct ParsedLine {
    std::optional<RemaptabEntry> entry;
    std::string problem;
};

ParsedLine parse_line(const std::string& line) {
    constexpr std::string_view uuid_key = "UUID=";
    constexpr std::size_t max_words = 3;
    const auto words = words_of(line);
    if (words.empty()) {
        return {};
    }
    if (words.size() < 2 || words.size() > max_words) {
        return {std::nullopt, cat("expected NAME UUID=<set> OPTIONS, found ", words.size(),
                                  words.size() == 1 ? " word" : " words")};
    }
    if (!valid_device_name(words[0])) {
        return {std::nullopt, cat("\"", words[0], "\" is not a valid device name")};
    }
    const std::string& key = words[1];
    const auto set = key.compare(0, uuid_key.size(), uuid_key) == 0
                         ? Uuid::parse(std::string_view(key).substr(uuid_key.size()))
                         : std::nullopt;
    if (!set) {
        return {std::nullopt, cat("expected UUID=<set>, found \"", key, "\"")};
    }
    return {RemaptabEntry{
                words[0], *set,
                words.size() == max_words ? options_of(words[2]) : std::vector<std::string>{}},
            {}};
}

[[noreturn]] void fail(const std::string& file, const char* what) {
    const int error = errno;
    throw Error(Exit::operational, cat(file, ": ", what, ": ", std::strerror(error)));
}

/// The file that is to be replaced: behind a link the target, so that the link stays.
std::string resolved(const std::string& file) {
    std::error_code error;
    const auto real = std::filesystem::canonical(file, error);
    return error ? file : real.string();
}

}  // namespace

std::string line_of(const RemaptabEntry& entry) {
    std::string options;
    for (const std::string& option : entry.options) {
        options += (options.empty() ? "" : ",") + option;
    }
    return cat(entry.name, " UUID=", entry.set, " ", options.empty() ? "-" : options);
}

bool RemaptabEntry::has(std::string_view option) const {
    return std::any_of(options.begin(), options.end(), [&](const std::string& given) {
        return std::string_view(given).substr(0, given.find('=')) == option;
    });
}

std::optional<std::string> RemaptabEntry::value(std::string_view option) const {
    for (const std::string& given : options) {
        const auto equals = given.find('=');
        if (equals != std::string::npos && std::string_view(given).substr(0, equals) == option) {
            return given.substr(equals + 1);
        }
    }
    return std::nullopt;
}

std::optional<unsigned int> RemaptabEntry::timeout() const {
    const auto text = value("timeout");
    unsigned int seconds = 0;
    if (!text) {
        return std::nullopt;
    }
    const char* const end = text->data() + text->size();
    const auto [stop, error] = std::from_chars(text->data(), end, seconds);
    return error == std::errc() && stop == end ? std::optional(seconds) : std::nullopt;
}

bool valid_device_name(std::string_view name) {
    constexpr std::string_view others = "#+-.:=@_";
    const bool plain = std::all_of(name.begin(), name.end(), [&](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               others.find(c) != std::string_view::npos;
    });
    // "control" is device-mapper's own node. A leading "-" would be taken for an option, a leading
    // "#" for a comment.
    return plain && !name.empty() && name.size() <= max_device_name && name != "." &&
           name != ".." && name != "control" && name[0] != '-' && name[0] != '#';
}

std::string default_device_name(const Uuid& set) {
    constexpr std::size_t digits = 8;
    return "remap-" + set.str().substr(0, digits);
}

Remaptab Remaptab::parse(std::string_view text, std::string file) {
    Remaptab tab;
    tab.file_ = std::move(file);
    std::istringstream in{std::string(text)};
    for (std::string line; std::getline(in, line);) {
        tab.append(line);
    }
    return tab;
}

Remaptab Remaptab::load(const std::string& file) {
    // A pipe would wait for somebody to write to it, at boot for ever.
    struct stat status {};
    if (::stat(file.c_str(), &status) == 0 && !S_ISREG(status.st_mode) &&
        !S_ISCHR(status.st_mode)) {
        throw Error(Exit::operational, cat(file, ": expected a file, found ",
                                           S_ISDIR(status.st_mode) ? "a directory" : "no file"));
    }
    std::ifstream in(file, std::ios::binary);
    if (!in) {
        if (errno == ENOENT) {
            return parse("", file);
        }
        fail(file, "cannot read");
    }
    std::string text;
    try {
        text.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    } catch (const std::ios_base::failure&) {
        fail(file, "cannot read");  // a directory, for one
    }
    return parse(text, file);
}

void Remaptab::append(const std::string& text) {
    ParsedLine parsed = parse_line(text);
    const auto problem = [&](const std::string& why) {
        problems_.push_back(cat(file_, ":", lines_.size() + 1, ": ", why));
    };
    if (!parsed.problem.empty()) {
        problem(parsed.problem);
    } else if (parsed.entry && find(parsed.entry->set) != nullptr) {
        problem(cat("set ", parsed.entry->set, " is listed already, this line is ignored"));
        parsed.entry.reset();
    } else if (parsed.entry && find(parsed.entry->name) != nullptr) {
        problem(cat("name ", parsed.entry->name, " is taken already, this line is ignored"));
        parsed.entry.reset();
    }
    if (parsed.entry && parsed.entry->has("timeout") && !parsed.entry->timeout()) {
        problem("expected timeout=<seconds>, this option is ignored");
    }
    if (parsed.entry && parsed.entry->has("main") && !listed_main(*parsed.entry)) {
        problem(
            "expected main=wwn:...+serial:...+partuuid:..., as format writes it: the main of this "
            "set is not hidden, and the set is not opened");
    }
    lines_.push_back({text, parsed.entry ? std::optional<Uuid>(parsed.entry->set) : std::nullopt});
    if (parsed.entry) {
        entries_.push_back(std::move(*parsed.entry));
    }
}

const RemaptabEntry* Remaptab::find(const Uuid& set) const {
    const auto it = std::find_if(entries_.begin(), entries_.end(),
                                 [&](const RemaptabEntry& entry) { return entry.set == set; });
    return it != entries_.end() ? &*it : nullptr;
}

const RemaptabEntry* Remaptab::find(std::string_view name) const {
    const auto it = std::find_if(entries_.begin(), entries_.end(),
                                 [&](const RemaptabEntry& entry) { return entry.name == name; });
    return it != entries_.end() ? &*it : nullptr;
}

void Remaptab::add(const RemaptabEntry& entry) {
    if (!valid_device_name(entry.name)) {
        throw Error(Exit::usage, cat("\"", entry.name, "\" is not a valid device name"));
    }
    if (const RemaptabEntry* other = find(entry.name)) {
        throw Error(Exit::usage,
                    cat(file_, ": name ", entry.name, " already stands for set ", other->set));
    }
    if (const RemaptabEntry* other = find(entry.set)) {
        throw Error(Exit::usage,
                    cat(file_, ": set ", entry.set, " is already listed as ", other->name));
    }
    append(line_of(entry));
}

bool Remaptab::remove(const Uuid& set) {
    const auto line = std::remove_if(lines_.begin(), lines_.end(),
                                     [&](const Line& l) { return l.set && *l.set == set; });
    const bool found = line != lines_.end();
    lines_.erase(line, lines_.end());
    entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                  [&](const RemaptabEntry& e) { return e.set == set; }),
                   entries_.end());
    return found;
}

std::string Remaptab::text() const {
    std::string out;
    for (const Line& line : lines_) {
        out += line.text + "\n";
    }
    return out;
}

void Remaptab::save() const {
    const std::string file = resolved(file_);
    struct stat old {};
    const bool existed = ::stat(file.c_str(), &old) == 0;
    std::string temporary = file + ".XXXXXX";
    const FileHandle fd(::mkostemp(temporary.data(), O_CLOEXEC));
    if (fd.get() < 0) {
        fail(file_, "cannot write beside it");
    }
    try {
        const std::string content = text();
        write_all(fd.get(), content.data(), content.size(), temporary);
        if (::fchmod(fd.get(), existed ? old.st_mode & 07777 : new_file_mode) != 0 ||
            (existed && ::fchown(fd.get(), old.st_uid, old.st_gid) != 0)) {
            fail(temporary, "cannot set its mode and owner");
        }
        sync_file(fd.get(), temporary);
        if (::rename(temporary.c_str(), file.c_str()) != 0) {
            fail(file_, "cannot be replaced");
        }
    } catch (...) {
        ::unlink(temporary.c_str());
        throw;
    }
    sync_directory_of(file);
}

void update_remaptab(const std::string& file, const std::function<bool(Remaptab&)>& change) {
    const FileHandle lock = lock_directory_of(resolved(file));
    Remaptab tab = Remaptab::load(file);
    if (change(tab)) {
        tab.save();
    }
}

}  // namespace remap
