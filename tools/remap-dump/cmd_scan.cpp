// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/terminal.hpp"
#include "forensic_verbs.hpp"
#include "libremap/block_io.hpp"
#include "libremap/scan.hpp"
#include "verbs.hpp"

namespace remap_dump {

int run_scan(const ScanVerb& verb) {
    end_with_reader();
    const auto io = remap::open_block_io(verb.device, remap::Mode::read_only);
    remap::StandardOutput standard_output;
    const auto out = make_emitter(verb.json);
    cli::TerminalObserver observer;
    remap::SearchOptions options;
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
        observer.progress("searched", done, total);
    };
    const remap::Exit code = remap::scan_device(*io, options, *out);
    standard_output.finish();
    return static_cast<int>(code);
}

}  // namespace remap_dump
