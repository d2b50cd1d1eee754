// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/references.hpp"

#include <glob.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>

#include "libremap/text.hpp"

namespace remap {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view blanks = " \t\r";

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

bool begins_with(std::string_view text, std::string_view prefix) {
    return text.substr(0, prefix.size()) == prefix;
}

/// "\x20" and the like, as udev writes names of links.
std::string udev_text(const std::string& name) {
    std::string out;
    for (std::size_t i = 0; i < name.size(); ++i) {
        if (name.compare(i, 2, "\\x") == 0 && i + 3 < name.size() &&
            std::isxdigit(static_cast<unsigned char>(name[i + 2])) != 0 &&
            std::isxdigit(static_cast<unsigned char>(name[i + 3])) != 0) {
            out += static_cast<char>(std::stoi(name.substr(i + 2, 2), nullptr, 16));
            i += 3;
        } else {
            out += name[i];
        }
    }
    return out;
}

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);) {
        parts.push_back(part);
    }
    return parts;
}

/// What may be the name of a device in "a=b,c=d": the whole, its parts, and their values.
std::vector<std::string> candidates(const std::string& value) {
    std::vector<std::string> all = {value};
    for (const std::string& part : split(value, ',')) {
        all.push_back(part);
        const auto equals = part.find('=');
        if (equals != std::string::npos) {
            all.push_back(part.substr(equals + 1));
        }
    }
    return all;
}

bool is_file_system(const std::string& type) {
    static constexpr std::array<std::string_view, 3> others = {"LVM2_member", "linux_raid_member",
                                                               "zfs_member"};
    return !type.empty() && std::find(others.begin(), others.end(), type) == others.end();
}

std::string naming(const std::string& where, const std::string& word, const std::string& instead) {
    return cat(where, ": names it ", word, ", where only the label of the set will be seen; write ",
               instead, " instead");
}

void check_fields(const MainNames& names, const ConfigLine& line,
                  const std::vector<std::string>& words, std::vector<std::string>& out) {
    for (const std::string& word : words) {
        for (const std::string& each : candidates(word)) {
            if (names.named(each) == Named::by_device) {
                out.push_back(naming(line.where, each, names.instead()));
                return;
            }
        }
    }
}

void check_fstab(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    constexpr std::size_t options = 3;
    for (const ConfigLine& line : config_lines(host, "/etc/fstab")) {
        const auto words = config_words(line.text);
        std::vector<std::string> fields = {fstab_text(words[0])};
        if (words.size() > options) {
            fields.push_back(fstab_text(words[options]));
        }
        check_fields(names, line, fields, out);
    }
}

/// Source, key and options may all name a device.
void check_crypttab(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    for (const ConfigLine& line : config_lines(host, "/etc/crypttab")) {
        auto words = config_words(line.text);
        words.erase(words.begin());
        check_fields(names, line, words, out);
    }
}

/// mdadm.conf goes on on lines that begin with a blank.
std::vector<ConfigLine> mdadm_lines(const Host& host) {
    std::vector<std::string> files = {"/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"};
    for (const char* folder : {"/etc/mdadm/mdadm.conf.d", "/etc/mdadm.conf.d"}) {
        const auto more = files_in(host, folder);
        files.insert(files.end(), more.begin(), more.end());
    }
    std::vector<ConfigLine> lines;
    for (const std::string& file : files) {
        for (const ConfigLine& line : config_lines(host, file)) {
            if (blanks.find(line.text[0]) != std::string_view::npos && !lines.empty()) {
                lines.back().text += line.text;
            } else {
                lines.push_back(line);
            }
        }
    }
    return lines;
}

/// The device that a pattern of mdadm.conf takes in, if the main is among them.
bool pattern_takes_main(const MainNames& names, const Host& host, const std::string& pattern) {
    if (!begins_with(pattern, "/")) {
        return false;
    }
    glob_t found{};
    bool taken = false;
    if (::glob(host.path(pattern).c_str(), 0, nullptr, &found) == 0) {
        for (std::size_t i = 0; i < found.gl_pathc && !taken; ++i) {
            const std::string path = found.gl_pathv[i];
            const std::string& dev = host.machine.dev;
            const bool in_dev = begins_with(path, dev + "/");
            taken = names.named(in_dev ? "/dev" + path.substr(dev.size()) : path) != Named::no;
        }
        ::globfree(&found);
    }
    return taken;
}

void check_mdadm(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    std::vector<std::pair<ConfigLine, std::string>> narrow;
    bool everything = false;
    for (const ConfigLine& line : mdadm_lines(host)) {
        const auto words = config_words(line.text);
        const std::string keyword = lower(words[0]).substr(0, 3);
        for (std::size_t i = 1; i < words.size(); ++i) {
            constexpr std::string_view devices = "devices=";
            if (keyword == "dev") {
                everything = everything || lower(words[i]) == "partitions";
                if (pattern_takes_main(names, host, words[i])) {
                    narrow.emplace_back(line, words[i]);
                }
            } else if (keyword == "arr" && begins_with(lower(words[i]), devices)) {
                for (const std::string& pattern : split(words[i].substr(devices.size()), ',')) {
                    if (pattern_takes_main(names, host, pattern)) {
                        out.push_back(naming(line.where, pattern,
                                             "UUID= of the array, as \"mdadm --detail --scan\" "
                                             "shows it,"));
                    }
                }
            }
        }
    }
    // Several lines add up: one with "partitions" takes in the remap device as well.
    for (const auto& [line, word] : narrow) {
        if (!everything) {
            out.push_back(naming(line.where, word, "\"DEVICE partitions\""));
        }
    }
}

/// PVIDs are written without the dashes of UUIDs.
std::string without_dashes(std::string text) {
    text.erase(std::remove(text.begin(), text.end(), '-'), text.end());
    return text;
}

void check_lvm_devices(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    std::vector<ConfigLine> of_main;
    std::string pvid = without_dashes(names.main().uuid);
    for (const std::string& file : files_in(host, "/etc/lvm/devices")) {
        if (fs::path(file).extension() != ".devices") {
            continue;
        }
        for (const ConfigLine& line : config_lines(host, file)) {
            bool mine = false;
            bool prepared = false;
            for (const std::string& word : config_words(line.text)) {
                const auto equals = word.find('=');
                const std::string key = word.substr(0, equals);
                const std::string value =
                    equals == std::string::npos ? "" : word.substr(equals + 1);
                mine = mine || (key == "PVID" && !pvid.empty() && value == pvid) ||
                       ((key == "DEVNAME" || key == "IDNAME") && names.named(value) != Named::no);
                prepared = prepared || (key == "IDNAME" && !names.main().name.empty() &&
                                        value == names.mapper());
            }
            if (prepared) {
                return;
            }
            if (mine) {
                of_main.push_back(line);
            }
        }
    }
    for (const ConfigLine& line : of_main) {
        out.push_back(cat(line.where, ": LVM looks for the physical volume on this device only (",
                          line.text, "); write \"IDTYPE=devname IDNAME=", names.mapper(),
                          " DEVNAME=", names.mapper(), pvid.empty() ? "" : cat(" PVID=", pvid),
                          "\" instead"));
    }
}

void add_parameters(const std::string& where, const std::vector<std::string>& words,
                    std::vector<KernelParameter>& out) {
    for (const std::string& word : words) {
        const auto equals = word.find('=');
        if (equals != std::string::npos) {
            out.push_back({where, word.substr(0, equals), word.substr(equals + 1)});
        }
    }
}

/// grub's own files: GRUB_CMDLINE_LINUX="a b" and its like.
void add_grub_defaults(const Host& host, std::vector<KernelParameter>& out) {
    std::vector<std::string> files = {"/etc/default/grub"};
    const auto more = files_in(host, "/etc/default/grub.d");
    files.insert(files.end(), more.begin(), more.end());
    for (const std::string& file : files) {
        for (const ConfigLine& line : config_lines(host, file)) {
            const auto start = line.text.find_first_not_of(blanks);
            const auto equals = line.text.find('=');
            if (begins_with(std::string_view(line.text).substr(start), "GRUB_CMDLINE") &&
                equals != std::string::npos) {
                add_parameters(line.where, config_words(line.text.substr(equals + 1)), out);
            }
        }
    }
}

/// Lines of a boot loader's own files that begin with `keyword`.
void add_loader_lines(const Host& host, const std::string& file, std::string_view keyword,
                      std::vector<KernelParameter>& out) {
    for (const ConfigLine& line : config_lines(host, file)) {
        const auto words = config_words(line.text);
        if (begins_with(words[0], keyword)) {
            add_parameters(line.where, words, out);
        }
    }
}

void check_command_lines(const MainNames& names, const Host& host, std::vector<std::string>& out) {
    for (const KernelParameter& parameter : kernel_parameters(host)) {
        // What hibernation uses is objected to under whatever name.
        if (parameter.key == "resume") {
            continue;
        }
        for (const std::string& value : candidates(parameter.value)) {
            if (names.named(value) == Named::by_device ||
                (parameter.key == "root" && names.is_number(value))) {
                out.push_back(naming(parameter.where, cat(parameter.key, "=", parameter.value),
                                     cat(parameter.key, "=", names.instead())));
                break;
            }
        }
    }
}

}  // namespace

std::string Host::path(const std::string& file) const {
    constexpr std::string_view dev = "/dev";
    if (begins_with(file, "/dev/")) {
        return machine.dev + file.substr(dev.size());
    }
    return root + file;
}

MainNames::MainNames(FutureMain main, const Host& host) : main_(std::move(main)), host_(host) {
    if (main_.device) {
        partuuid_ = identify(*main_.device, host.machine).partuuid;
        partlabel_ = udev_text(udev_property(*main_.device, "ID_PART_ENTRY_NAME", host.machine));
    }
}

bool MainNames::same_device(const std::string& path) const {
    struct stat mine {};
    struct stat other {};
    if (::stat(main_.path.c_str(), &mine) != 0 || ::stat(path.c_str(), &other) != 0) {
        return false;
    }
    if (S_ISBLK(mine.st_mode) || S_ISBLK(other.st_mode)) {
        return S_ISBLK(mine.st_mode) && S_ISBLK(other.st_mode) && mine.st_rdev == other.st_rdev;
    }
    return mine.st_dev == other.st_dev && mine.st_ino == other.st_ino;
}

Named MainNames::by_tag(const std::string& key, const std::string& value) const {
    const Named payload = main_.bare ? Named::by_device : Named::by_payload;
    const auto link = [&](const char* folder) {
        return same_device(host_.path(cat("/dev/disk/", folder, "/", value)));
    };
    if (key == "UUID") {
        return !main_.uuid.empty() && lower(value) == lower(main_.uuid) ? payload : Named::no;
    }
    if (key == "LABEL") {
        return !main_.label.empty() && value == main_.label ? payload : Named::no;
    }
    if (key == "PARTUUID") {
        const bool same = !partuuid_.empty() && lower(value) == lower(partuuid_);
        return same || link("by-partuuid") ? Named::by_device : Named::no;
    }
    if (key == "PARTLABEL") {
        const bool same = !partlabel_.empty() && value == partlabel_;
        return same || link("by-partlabel") ? Named::by_device : Named::no;
    }
    if (key == "ID") {
        return link("by-id") ? Named::by_device : Named::no;
    }
    return Named::no;
}

Named MainNames::named(const std::string& word) const {
    constexpr std::string_view by_uuid = "/dev/disk/by-uuid/";
    constexpr std::string_view by_label = "/dev/disk/by-label/";
    if (begins_with(word, by_uuid)) {
        return by_tag("UUID", word.substr(by_uuid.size()));
    }
    if (begins_with(word, by_label)) {
        return by_tag("LABEL", udev_text(word.substr(by_label.size())));
    }
    if (begins_with(word, "/")) {
        return same_device(host_.path(word)) ? Named::by_device : Named::no;
    }
    const auto equals = word.find('=');
    return equals == std::string::npos ? Named::no
                                       : by_tag(word.substr(0, equals), word.substr(equals + 1));
}

bool MainNames::is_number(const std::string& word) const {
    if (!main_.device) {
        return false;
    }
    const unsigned int major = gnu_dev_major(main_.device->devno);
    const unsigned int minor = gnu_dev_minor(main_.device->devno);
    std::ostringstream hexadecimal;
    hexadecimal << std::hex << ((minor & 0xff) | (major << 8) | ((minor & ~0xffU) << 12));
    return word == cat(major, ":", minor) || lower(word) == hexadecimal.str();
}

bool MainNames::lies_on_main(const std::string& word) const {
    const auto equals = word.find('=');
    std::string path = word;
    if (equals != std::string::npos && !begins_with(word, "/")) {
        path = cat("/dev/disk/by-", lower(word.substr(0, equals)), "/", word.substr(equals + 1));
    }
    struct stat status {};
    return main_.device && begins_with(path, "/") &&
           ::stat(host_.path(path).c_str(), &status) == 0 && S_ISBLK(status.st_mode) &&
           device_lies_on(status.st_rdev, *main_.device, host_.machine);
}

std::string MainNames::mapper() const {
    return cat("/dev/mapper/", main_.name.empty() ? "NAME" : main_.name);
}

std::string MainNames::instead() const {
    if (!main_.bare && is_file_system(main_.type) && !main_.uuid.empty()) {
        return cat("UUID=", main_.uuid);
    }
    return cat(mapper(), main_.name.empty() ? " (with the NAME that --label gives)" : "");
}

std::vector<ConfigLine> config_lines(const Host& host, const std::string& file) {
    std::vector<ConfigLine> lines;
    std::ifstream in(host.path(file));
    std::size_t number = 0;
    for (std::string text; std::getline(in, text);) {
        ++number;
        const auto start = text.find_first_not_of(blanks);
        if (start != std::string::npos && text[start] != '#' && !config_words(text).empty()) {
            lines.push_back({cat(file, ":", number), text});
        }
    }
    return lines;
}

std::vector<std::string> files_in(const Host& host, const std::string& folder) {
    std::vector<std::string> files;
    std::error_code error;
    for (fs::directory_iterator it(host.path(folder), error), end; !error && it != end;
         it.increment(error)) {
        files.push_back(cat(folder, "/", it->path().filename().string()));
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::vector<std::string> config_words(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> words;
    for (std::string word; in >> word;) {
        word.erase(
            std::remove_if(word.begin(), word.end(), [](char c) { return c == '"' || c == '\''; }),
            word.end());
        if (!word.empty()) {
            words.push_back(word);
        }
    }
    return words;
}

std::string fstab_text(const std::string& word) {
    const auto octal = [](char c) { return c >= '0' && c <= '7'; };
    std::string out;
    for (std::size_t i = 0; i < word.size(); ++i) {
        if (word[i] == '\\' && i + 3 < word.size() && octal(word[i + 1]) && octal(word[i + 2]) &&
            octal(word[i + 3])) {
            out += static_cast<char>(std::stoi(word.substr(i + 1, 3), nullptr, 8));
            i += 3;
        } else {
            out += word[i];
        }
    }
    return out;
}

std::vector<KernelParameter> kernel_parameters(const Host& host) {
    std::vector<KernelParameter> parameters;
    std::ifstream running(host.machine.proc + "/cmdline");
    std::string text;
    std::getline(running, text);
    add_parameters("/proc/cmdline", config_words(text), parameters);
    add_grub_defaults(host, parameters);
    for (const ConfigLine& line : config_lines(host, "/etc/kernel/cmdline")) {
        add_parameters(line.where, config_words(line.text), parameters);
    }
    for (const char* file : {"/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"}) {
        add_loader_lines(host, file, "linux", parameters);
    }
    for (const char* folder :
         {"/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries"}) {
        for (const std::string& file : files_in(host, folder)) {
            add_loader_lines(host, file, "options", parameters);
        }
    }
    return parameters;
}

std::vector<std::string> objections_to_names(const MainNames& names, const Host& host) {
    std::vector<std::string> out;
    check_fstab(names, host, out);
    check_crypttab(names, host, out);
    check_mdadm(names, host, out);
    check_lvm_devices(names, host, out);
    check_command_lines(names, host, out);
    return out;
}

}  // namespace remap
