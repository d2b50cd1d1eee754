// SPDX-License-Identifier: GPL-2.0-or-later
//
// remap-dump scan and hexdump on a set that somebody laid hands on. Input: a sector, what to take
// it for, then hostile_set.hpp's.
#include <sstream>

#include "hostile_set.hpp"
#include "libremap/error.hpp"
#include "libremap/hexdump.hpp"
#include "libremap/scan.hpp"

using namespace remap;

namespace {

template <typename Show>
void show(const Show& emit) {
    std::ostringstream json_text;
    std::ostringstream text;
    try {
        JsonEmitter json(json_text);
        emit(json);
        TextEmitter plain(text);
        emit(plain);
    } catch (const Error&) {
        return;
    }
    fuzz::check_json(json_text.str());
    fuzz::check_text(text.str());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    HexdumpOptions options;
    const std::uint16_t sector = input.word();
    const std::uint8_t what = input.byte();
    if ((what & 8) == 0) {
        options.sector = sector;
    } else {
        options.number = sector;
        options.copy = what >> 4;
    }
    if ((what & 4) == 0) {
        options.kind = static_cast<StructureKind>(what & 3);
    }
    fuzz::HostileSet set(input);
    set.freeze("scan and hexdump only read");
    for (BlockIo* io : {static_cast<BlockIo*>(&set.spare), static_cast<BlockIo*>(&set.main)}) {
        show([&](Emitter& out) { hexdump(*io, options, out); });
        show([&](Emitter& out) { scan_device(*io, {}, out); });
    }
    return 0;
}
