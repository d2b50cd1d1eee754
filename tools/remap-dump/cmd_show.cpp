// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/block_io.hpp"
#include "libremap/dump.hpp"
#include "libremap/timeline.hpp"
#include "verbs.hpp"

namespace remap_dump {

int run_show(const ShowVerb& verb) {
    end_with_reader();
    const auto io = remap::open_block_io(verb.device, remap::Mode::read_only);
    remap::StandardOutput standard_output;
    const auto out = make_emitter(verb.json);
    const remap::Exit code =
        verb.timeline ? remap::show_timeline(*io, *out) : remap::dump_device(*io, *out);
    standard_output.finish();
    return static_cast<int>(code);
}

}  // namespace remap_dump
