// SPDX-License-Identifier: GPL-2.0-or-later
//
// What udev asks about every device. Input: flags, then hostile_set.hpp's.
#include "hostile_set.hpp"
#include "libremap/error.hpp"
#include "libremap/probe.hpp"

using namespace remap;

namespace {

/// The udev database takes lines KEY=value; anything else in them would be rules' business.
void check_properties(const std::string& text) {
    fuzz::check_text(text);
    fuzz::promise(!text.empty() && text.back() == '\n', "no whole line");
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        const std::string line = text.substr(at, end - at);
        const std::size_t equal = line.find('=');
        fuzz::promise(equal != std::string::npos && equal > 0, "no property: " + line);
        for (const char byte : line.substr(0, equal)) {
            fuzz::promise((byte >= 'A' && byte <= 'Z') || byte == '_', "no name: " + line);
        }
        for (const char byte : line.substr(equal + 1)) {
            fuzz::promise(byte != ' ' && byte != '"' && byte != '\'' && byte != '$' && byte != '`',
                          "a value that is not encoded: " + line);
        }
        at = end + 1;
    }
}

void probe(BlockIo& io) {
    const auto info = probe_member(io);
    if (info) {
        check_properties(udev_properties(*info));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    fuzz::HostileSet set(input);
    set.freeze("a probe only reads");
    probe(set.spare);
    probe(set.main);
    return 0;
}
