// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

#include "cli/terminal.hpp"
#include "commands.hpp"
#include "libremap/assemble.hpp"
#include "libremap/bare_main.hpp"
#include "libremap/closed_sets.hpp"
#include "libremap/dm.hpp"
#include "libremap/error.hpp"
#include "libremap/older_format.hpp"
#include "libremap/probe.hpp"
#include "libremap/report.hpp"
#include "libremap/status.hpp"
#include "libremap/text.hpp"
#include "libremap/units.hpp"

namespace remapsetup {
namespace {

std::unique_ptr<remap::Emitter> make_emitter(bool json) {
    if (json) {
        return std::make_unique<remap::JsonEmitter>(std::cout);
    }
    return std::make_unique<remap::TextEmitter>(std::cout);
}

void finish(remap::Emitter& out) {
    out.finish();
    remap::finish_stdout();
}

/// One device with its status; was it healthy?
bool show_device(const remap::dm::Device& device, remap::Emitter& out) {
    const remap::KernelStatus status = remap::parse_status(remap::dm::status_line(device.name));
    out.text("name", device.name);
    out.text("device", remap::cat("/dev/mapper/", device.name));
    out.boolean("suspended", device.suspended);
    out.number("open_count", static_cast<std::uint64_t>(std::max(device.open_count, 0)));
    remap::emit_status(status, out);
    out.text("table", remap::dm::table_line(device.name));
    return status.healthy();
}

/// What is known about one set from all its members that are seen.
struct ListedSet {
    std::string label;
    std::string state;
    std::vector<std::string> mains;
    std::vector<std::string> spares;
};

std::map<remap::Uuid, ListedSet> collect_sets(const std::vector<remap::SeenMember>& members) {
    std::map<remap::Uuid, ListedSet> sets;
    for (const remap::SeenMember& member : members) {
        if (member.info.newer) {
            cli::message(remap::cat(member.device.path, ": a member in format ",
                                    member.info.version, ", newer than this program"));
            continue;
        }
        ListedSet& set = sets[member.info.set];
        if (member.info.role == REMAP_ROLE_SPARE) {
            set.spares.push_back(member.device.path);
            set.label = member.info.label;
            set.state = remap::set_state_name(member.info.state);
        } else {
            set.mains.push_back(member.device.path);
        }
    }
    return sets;
}

/// Why the set cannot be opened, as far as that can be told from which devices are there.
std::string trouble_with(const remap::Uuid& set, const remap::RemaptabEntry* entry,
                         const std::vector<remap::SeenMember>& seen) {
    try {
        const auto listed = entry != nullptr ? remap::listed_main(*entry) : std::nullopt;
        const remap::ChosenPair pair = remap::choose_pair(set, seen, {}, listed);
        // Nothing but its line tells which the main of a bare set is.
        return pair.bare && !listed ? "" : pair.missing;
    } catch (const remap::Error& error) {
        return error.what();
    }
}

void emit_paths(const std::string& name, const std::vector<std::string>& paths,
                remap::Emitter& out) {
    std::string text;
    for (const std::string& path : paths) {
        text += (text.empty() ? "" : " ") + path;
    }
    out.text(name, text);
}

/// The unit of a set that is to be opened without being asked for.
int show_unit(const ListCommand& command) {
    const auto wanted = remap::Uuid::parse(command.unit_of);
    if (!wanted) {
        throw remap::Error(
            remap::Exit::usage,
            remap::cat("--unit: expected the UUID of a set, found \"", command.unit_of, "\""));
    }
    const remap::CommandLine command_line = remap::running_command_line("/proc");
    if (!command_line.disabled && !remap::was_closed(*wanted)) {
        const auto tab = remap::Remaptab::load(command.remaptab);
        for (const remap::RemaptabEntry& entry : remap::known_sets(tab, command_line)) {
            if (entry.set == *wanted) {
                std::cout << remap::open_unit(entry.name) << "\n";
                remap::finish_stdout();
                return static_cast<int>(remap::Exit::ok);
            }
        }
    }
    return static_cast<int>(remap::Exit::unrecognised);
}

/// Is it to be left alone because a bare set's main is below it?
int show_raw_main(const ProbeCommand& command) {
    const auto device = remap::block_device_of(command.device);
    const auto raw = device
                         ? remap::raw_main_below(*device, remap::Remaptab::load(command.remaptab))
                         : std::nullopt;
    if (!raw) {
        if (!command.udev) {
            cli::message(command.device + ": not the raw main of a bare set that is listed");
        }
        return static_cast<int>(remap::Exit::unrecognised);
    }
    if (command.udev) {
        std::cout << remap::hiding_properties(*raw, *device);
        remap::finish_stdout();
        return static_cast<int>(remap::Exit::ok);
    }
    remap::TextEmitter out(std::cout);
    out.text("device", command.device);
    out.text("raw_main", raw->main.path);
    out.text("set", raw->entry.set.str());
    out.text("listed_as", raw->entry.name);
    finish(out);
    return static_cast<int>(remap::Exit::ok);
}

}  // namespace

int run_probe(const ProbeCommand& command) {
    if (command.bare) {
        return show_raw_main(command);
    }
    const auto io = remap::open_block_io(command.device, remap::Mode::read_only);
    const auto info = remap::probe_member(*io);
    if (info && remap::is_leg(*info, command.type, io->size())) {
        cli::message(remap::cat(command.device, ": ", command.type, " of ", io->size(),
                                " sectors, shows a member of ", info->size,
                                ": a leg of the device that is the member"));
        return static_cast<int>(remap::Exit::unrecognised);
    }
    if (!info) {
        if (!command.udev) {
            const auto older = remap::recognise_older(*io);
            cli::message(older ? remap::cat(command.device, ": metadata of the older project (",
                                            remap::older_kind_name(*older),
                                            "), not a member of a set; see remap-dump(8), migrate")
                               : command.device + ": not a member of a set");
        }
        return static_cast<int>(remap::Exit::unrecognised);
    }
    if (command.udev) {
        std::cout << remap::udev_properties(*info);
        remap::finish_stdout();
        return static_cast<int>(remap::Exit::ok);
    }
    remap::TextEmitter out(std::cout);
    out.text("device", command.device);
    out.text("role", remap::role_name(info->role));
    out.number("version", info->version);
    if (!info->newer) {
        out.text("state", remap::set_state_name(info->state));
        out.text("set", info->set.str());
        out.text("member", info->member.str());
        out.text("partner", info->partner.str());
        out.number("epoch", info->epoch);
        if (!info->label.empty()) {
            out.text("label", info->label);
        }
    }
    finish(out);
    return static_cast<int>(remap::Exit::ok);
}

int run_status(const StatusCommand& command) {
    std::vector<remap::dm::Device> devices = remap::dm::list_devices();
    if (!command.name.empty()) {
        devices.erase(std::remove_if(devices.begin(), devices.end(),
                                     [&](const remap::dm::Device& device) {
                                         return device.name != command.name;
                                     }),
                      devices.end());
        if (devices.empty()) {
            throw remap::Error(remap::Exit::unrecognised,
                               command.name + ": no remap device of this name is open");
        }
    } else {
        // What an interrupted opening has left has no status.
        devices.erase(
            std::remove_if(devices.begin(), devices.end(),
                           [](const remap::dm::Device& device) { return !device.has_table; }),
            devices.end());
    }
    bool healthy = true;
    const auto out = make_emitter(command.json);
    out->begin_list("devices");
    for (const remap::dm::Device& device : devices) {
        out->begin_object("");
        healthy = show_device(device, *out) && healthy;
        out->end_object();
    }
    out->end_list();
    finish(*out);
    return static_cast<int>(healthy ? remap::Exit::ok : remap::Exit::damage);
}

int run_list(const ListCommand& command) {
    if (!command.unit_of.empty()) {
        return show_unit(command);
    }
    const remap::Remaptab tab = remap::Remaptab::load(command.remaptab);
    const std::vector<remap::SeenMember> seen = remap::scan_members();
    if (seen.empty() && ::geteuid() != 0) {
        cli::message("no member is seen; most devices can be read by root only");
    }
    auto sets = collect_sets(seen);
    for (const remap::RemaptabEntry& entry : tab.entries()) {
        sets.try_emplace(entry.set);
    }
    const auto out = make_emitter(command.json);
    out->begin_list("sets");
    for (const auto& [uuid, set] : sets) {
        const remap::RemaptabEntry* entry = tab.find(uuid);
        const auto device = remap::dm::find_set(uuid);
        out->begin_object("");
        out->text("set", uuid.str());
        out->text("label", set.label);
        out->text("state", set.state);
        emit_paths("main", set.mains, *out);
        emit_paths("spare", set.spares, *out);
        out->text("listed_as", entry != nullptr ? entry->name : "");
        const bool open = device && device->has_table;
        out->text("open_as", open ? device->name : "");
        out->text("trouble", open ? "" : trouble_with(uuid, entry, seen));
        out->end_object();
    }
    out->end_list();
    finish(*out);
    return static_cast<int>(remap::Exit::ok);
}

}  // namespace remapsetup
