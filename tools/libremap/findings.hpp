// SPDX-License-Identifier: GPL-2.0-or-later
//
// The result of a check as data; docs/remap-fsck.schema.json describes the JSON form.
#pragma once

#include "libremap/check.hpp"
#include "libremap/report.hpp"

namespace remap {

/// The lists "findings" and "copies".
void emit_findings(Emitter& out, const CheckResult& result);

/// The whole report of a check or repair; `undo_file` may be empty.
void emit_report(Emitter& out, const std::string& device, const CheckResult& result,
                 const std::string& undo_file, int exit_code);

}  // namespace remap
