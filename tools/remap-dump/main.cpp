// SPDX-License-Identifier: GPL-2.0-or-later
#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>
#include <iostream>
#include <memory>
#include <string>

#include "libremap/block_io.hpp"
#include "libremap/dump.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"

namespace {

int dump(const std::string& device, bool json) {
    const auto io = remap::open_block_io(device, remap::Mode::read_only);
    remap::StandardOutput standard_output;
    std::unique_ptr<remap::Emitter> out;

    if (json)
        out = std::make_unique<remap::JsonEmitter>(std::cout);
    else
        out = std::make_unique<remap::TextEmitter>(std::cout);
    const remap::Exit code = remap::dump_device(*io, *out);
    standard_output.finish();
    return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Show everything that dm-remap has on a device, also when it is damaged.",
                 "remap-dump");
    std::string device;
    bool json = false;

    app.add_option("DEVICE", device, "spare or main: a block device or an image file")->required();
    app.add_flag("--json", json, "print JSON");
    app.set_version_flag("--version", std::string("remap-dump ") + REMAP_TOOL_VERSION);
    app.footer(
        "Exit status: 0 shown, 1 shown and damage was seen, 2 nothing of ours,\n"
        "8 the device cannot be read or is of a newer format, 16 wrong usage.");
    try {
        app.parse(argc, argv);
        return dump(device, json);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) ? static_cast<int>(remap::Exit::usage) : 0;
    } catch (const remap::Error& error) {
        std::cerr << "remap-dump: " << remap::printable(error.what()) << "\n";
        return error.exit_code();
    } catch (const std::exception& error) {
        std::cerr << "remap-dump: " << device << ": " << error.what() << "\n";
        return static_cast<int>(remap::Exit::operational);
    }
}
