// SPDX-License-Identifier: GPL-2.0-or-later
//
// A label or filler with the right checksum. Input: flags, then 512 bytes; missing ones are zero.
#include "libremap/format.hpp"
#include "support.hpp"

using namespace remap;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const std::uint8_t flags = input.byte();
    std::vector<std::uint8_t> bytes = input.bytes(REMAP_LABEL_SIZE);
    if ((flags & 1) == 0) {
        fuzz::seal_head(bytes);
    }
    fuzz::Input position(bytes.data() + offsetof(remap_head, position), 8);
    const std::uint64_t sector = (flags & 2) == 0 ? position.quadword() : flags;

    const auto label = decode_label(bytes, sector);
    const auto filler = decode_filler(bytes, sector);
    fuzz::promise(!label.valid() || !filler.valid(), "both a label and filler");
    if (label.valid()) {
        const auto again =
            decode_label(encode_label(label.value, label.value.head.copy, sector), sector);
        fuzz::promise(again.valid() && again.value == label.value, "a label changed");
    }
    if (filler.valid()) {
        const auto again = decode_filler(encode_filler(filler.value, sector), sector);
        fuzz::promise(again.valid() && again.value == filler.value, "filler changed");
    }
    return 0;
}
