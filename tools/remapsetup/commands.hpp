// SPDX-License-Identifier: GPL-2.0-or-later
//
// The subcommands: each takes its parsed options and returns the exit code; what fails throws
// remap::Error.
#pragma once

#include <string>
#include <vector>

#include "libremap/assemble.hpp"
#include "libremap/format_set.hpp"
#include "libremap/release.hpp"
#include "libremap/rescue.hpp"

namespace remapsetup {

struct FormatCommand {
    remap::FormatOptions options;
    bool yes = false;
};
int run_format(const FormatCommand& command);

struct ProbeCommand {
    std::string device;
    bool udev = false;
    std::string type;  ///< what libblkid says that it is
    bool bare = false;
    std::string remaptab;
};
int run_probe(const ProbeCommand& command);

struct OpenCommand {
    remap::OpenOptions options;
    bool all = false;
    std::string listed;  ///< name in remaptab, or empty
    remap::OpenAllOptions all_options;
    bool advice = false;
    bool quiet = false;
};
int run_open(const OpenCommand& command);

struct CloseCommand {
    std::string name;
    bool all = false;
    remap::OpenAllOptions all_options;
};
int run_close(const CloseCommand& command);

struct ReleaseCommand {
    remap::ReleaseOptions options;
    bool yes = false;
};
int run_release(const ReleaseCommand& command);

struct RescueCommand {
    remap::RescueOptions options;
};
int run_rescue(const RescueCommand& command);

struct StatusCommand {
    std::string name;  ///< empty: all
    bool json = false;
};
int run_status(const StatusCommand& command);

struct ListCommand {
    bool json = false;
    std::string remaptab;
    std::string unit_of;  ///< a set whose unit is asked for, or empty
};
int run_list(const ListCommand& command);

}  // namespace remapsetup
