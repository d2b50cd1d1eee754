// SPDX-License-Identifier: GPL-2.0-or-later
//
// The verbs: each takes its parsed options and returns the exit code; what fails throws
// remap::Error. Each has a file of its own.
#pragma once

#include <memory>
#include <string>

#include "libremap/report.hpp"

namespace remap_dump {

struct ShowVerb {
    std::string device;
    bool json = false;
};
int run_show(const ShowVerb& verb);

/// For verbs that only read: a reader of the output who has gone ends them at once and quietly, as
/// with any filter, whatever was inherited. Verbs that write must not be ended by it, and ignore
/// the signal.
void end_with_reader();

/// Text or JSON on standard output.
std::unique_ptr<remap::Emitter> make_emitter(bool json);

}  // namespace remap_dump
