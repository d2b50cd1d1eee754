// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the kernel says: the target's status line, and the kernel's command line. Input: flags, then
// the text.
#include <sstream>

#include "libremap/assemble.hpp"
#include "libremap/error.hpp"
#include "libremap/status.hpp"
#include "support.hpp"

using namespace remap;

namespace {

void status_line(const std::string& line) {
    std::ostringstream json_text;
    std::ostringstream text;
    try {
        const KernelStatus status = parse_status(line);
        JsonEmitter json(json_text);
        emit_status(status, json);
        json.finish();
        TextEmitter plain(text);
        emit_status(status, plain);
        plain.finish();
    } catch (const Error& error) {
        fuzz::promise(error.code() == Exit::unrecognised, "a bad line has the wrong exit code");
        return;
    }
    fuzz::check_json(json_text.str());
    fuzz::check_text(text.str());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    if ((input.byte() & 1) == 0) {
        status_line(input.text());
    } else {
        static_cast<void>(parse_command_line(input.text()));
    }
    return 0;
}
