// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/findings.hpp"

#include <cstring>

namespace remap {
namespace {

const char* repair_name(Repair repair) {
    switch (repair) {
        case Repair::none:
            return "none";
        case Repair::preen:
            return "safe";
        case Repair::confirmed:
            return "confirmed";
        case Repair::on_request:
            return "on-request";
    }
    return "unknown";
}

void text(Emitter& out, const char* name, const std::string& value) {
    if (!value.empty())
        out.text(name, value);
}

template <typename Number>
void number(Emitter& out, const char* name, const std::optional<Number>& value) {
    if (value)
        out.number(name, *value);
}

void emit(Emitter& out, const Finding& finding) {
    out.begin_object("");
    out.text("id", finding.problem->id);
    out.text("severity", severity_name(finding.problem->severity));
    out.text("repair", repair_name(finding.problem->repair));
    out.text("text", finding.problem->text);
    if (finding.problem->fix)
        out.text("fix", finding.problem->fix);
    out.text("device", finding.device);
    out.text("structure", finding.structure);
    number(out, "index", finding.index);
    out.number("count", finding.count);
    number(out, "copy", finding.copy);
    number(out, "sector", finding.sector);
    text(out, "verdict", finding.verdict);
    text(out, "field", finding.field);
    text(out, "expected", finding.expected);
    text(out, "found", finding.found);
    out.boolean("repairable", finding.repairable);
    out.boolean("repaired", finding.repaired);
    text(out, "repair_error", finding.repair_error);
    out.end_object();
}

void emit(Emitter& out, const CopyVerdict& copy) {
    out.begin_object("");
    out.text("device", copy.device);
    out.text("structure", copy.structure);
    number(out, "copy", copy.copy);
    number(out, "index", copy.index);
    out.number("count", copy.count);
    out.number("sector", copy.sector);
    out.text("verdict", verdict_name(copy.verdict));
    number(out, "generation", copy.generation);
    if (copy.error != 0) {
        out.number("errno", static_cast<std::uint64_t>(copy.error));
        out.text("error", std::strerror(copy.error));
    }
    out.end_object();
}

}  // namespace

void emit_findings(Emitter& out, const CheckResult& result) {
    out.begin_list("findings");
    for (const Finding& finding : result.findings)
        emit(out, finding);
    out.end_list();
    out.begin_list("copies");
    for (const CopyVerdict& copy : result.copies)
        emit(out, copy);
    out.end_list();
}

void emit_report(Emitter& out, const std::string& device, const CheckResult& result,
                 const std::string& undo_file, int exit_code) {
    out.text("device", device);
    if (result.superblock)
        out.text("set_uuid", result.superblock->head.set_uuid.str());
    out.number("slots_used", result.slots_used);
    out.number("slots_total", result.slots_total);
    text(out, "refused", result.refused);
    emit_findings(out, result);
    text(out, "undo_file", undo_file);
    out.number("exit_code", static_cast<std::uint64_t>(exit_code));
    out.finish();
}

}  // namespace remap
