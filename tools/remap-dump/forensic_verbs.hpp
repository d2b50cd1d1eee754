// SPDX-License-Identifier: GPL-2.0-or-later
//
// The verbs for devices that nothing else understands any more.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "libremap/hexdump.hpp"

namespace remap_dump {

struct ScanVerb {
    std::string device;
    bool json = false;
};
int run_scan(const ScanVerb& verb);

struct HexdumpVerb {
    std::string device;
    std::string what;  ///< empty: as the magic says
    remap::HexdumpOptions options;
    bool json = false;
};
int run_hexdump(const HexdumpVerb& verb);

struct ForensicVerbs {
    ScanVerb scan;
    HexdumpVerb hexdump;
};

/// Defines `scan` and `hexdump`; `run` is set when one of them was named. `verbs` and `run` must
/// outlive the parsing.
void add_forensic_verbs(CLI::App& app, ForensicVerbs& verbs, std::function<int()>& run);

}  // namespace remap_dump
