// SPDX-License-Identifier: GPL-2.0-or-later
//
// The result of a check as data; docs/remap-fsck.schema.json describes the JSON form.
#pragma once

#include "libremap/check.hpp"
#include "libremap/report.hpp"

namespace remap {

/// The lists "findings" and "copies".
void emit_findings(Emitter& out, const CheckResult& result);

}  // namespace remap
