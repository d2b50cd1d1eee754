// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/units.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

namespace fs = std::filesystem;

constexpr const char* target = "remap-open.target";
constexpr unsigned int systemd_default = 90;  ///< seconds that systemd waits for a device
constexpr const char* unit_folder = "/usr/lib/systemd/system";

[[noreturn]] void fail(const fs::path& path, const std::string& why) {
    throw Error(Exit::operational, cat(path.string(), ": cannot be made: ", why));
}

void make_folder(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) {
        fail(path, error.message());
    }
}

/// Unit `name` becomes a dependency ("wants", "requires") of `of`.
void link(const fs::path& folder, const std::string& of, const char* kind, const std::string& name,
          const std::string& file) {
    const fs::path place = folder / cat(of, ".", kind);
    make_folder(place);
    std::error_code error;
    fs::create_symlink(fs::path(unit_folder) / file, place / name, error);
    if (error) {
        fail(place / name, error.message());
    }
}

/// Lines that are added to the [Unit] section of a unit.
void drop_in(const fs::path& folder, const std::string& unit, const char* file,
             const std::string& lines) {
    const fs::path place = folder / cat(unit, ".d");
    make_folder(place);
    std::ofstream out(place / file);
    out << "# Made of remaptab(5) by remap-generator.\n[Unit]\n" << lines;
    out.close();
    if (!out) {
        fail(place / file, std::strerror(errno));
    }
}

void write_unit(const RemaptabEntry& set, const fs::path& folder) {
    constexpr const char* file = "remap-open@.service";
    const bool required = !set.has("nofail");
    const std::string unit = open_unit(set.name);
    const std::string device = escape_unit(cat("dev/mapper/", set.name)) + ".device";
    link(folder, target, required ? "requires" : "wants", unit, file);
    drop_in(folder, unit, "50-remaptab.conf",
            cat("Description=Remap device ", set.name, "\n",
                required ? cat("Before=", target, "\n") : ""));
    // Who waits for the device does not wait longer when opening it has failed.
    link(folder, device, "requires", unit, file);
    // While the unit waits for members, so must they; and then as long as for any device.
    const unsigned int seconds = set.timeout().value_or(default_member_timeout);
    drop_in(folder, device, "40-remaptab.conf",
            cat("JobRunningTimeoutSec=",
                seconds == 0 ? std::string("infinity")
                             : cat(std::uint64_t{seconds} + systemd_default, "s"),
                "\n"));
}

}  // namespace

std::string escape_unit(std::string_view text) {
    constexpr std::string_view plain = ":_.";
    constexpr std::string_view digits = "0123456789abcdef";
    std::string escaped;
    for (const char c : text) {
        const bool alphanumeric =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (c == '/') {
            escaped += '-';
        } else if (alphanumeric ||
                   (plain.find(c) != std::string_view::npos && !(c == '.' && escaped.empty()))) {
            escaped += c;
        } else {
            const auto byte = static_cast<unsigned char>(c);
            escaped += cat("\\x", digits[byte >> 4], digits[byte & 0xf]);
        }
    }
    return escaped;
}

std::string open_unit(const std::string& name) {
    return cat("remap-open@", escape_unit(name), ".service");
}

void write_units(const std::vector<RemaptabEntry>& sets, const std::string& folder) {
    std::vector<RemaptabEntry> wanted;
    // What the initramfs opens is there already, or boot would not have come so far.
    std::copy_if(sets.begin(), sets.end(), std::back_inserter(wanted),
                 [](const RemaptabEntry& set) { return !set.has("x-initrd.attach"); });
    if (wanted.empty()) {
        return;
    }
    link(folder, "sysinit.target", "wants", target, target);
    std::string problems;
    for (const RemaptabEntry& set : wanted) {
        try {
            write_unit(set, folder);
        } catch (const Error& error) {
            // The others are to be opened all the same.
            problems += (problems.empty() ? "" : "; ") + std::string(error.what());
        }
    }
    if (!problems.empty()) {
        throw Error(Exit::operational, problems);
    }
}

}  // namespace remap
