// SPDX-License-Identifier: GPL-2.0-or-later
#include <map>

#include "forensic_verbs.hpp"
#include "libremap/block_io.hpp"
#include "verbs.hpp"

namespace remap_dump {

int run_hexdump(const HexdumpVerb& verb) {
    static const std::map<std::string, remap::StructureKind> kinds = {
        {"superblock", remap::StructureKind::superblock},
        {"table", remap::StructureKind::table_block},
        {"label", remap::StructureKind::label},
        {"filler", remap::StructureKind::filler},
    };
    end_with_reader();
    const auto io = remap::open_block_io(verb.device, remap::Mode::read_only);
    remap::StandardOutput standard_output;
    const auto out = make_emitter(verb.json);
    remap::HexdumpOptions options = verb.options;
    if (!verb.what.empty())
        options.kind = kinds.at(verb.what);
    const remap::Exit code = remap::hexdump(*io, options, *out);
    standard_output.finish();
    return static_cast<int>(code);
}

}  // namespace remap_dump
