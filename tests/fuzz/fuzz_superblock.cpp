// SPDX-License-Identifier: GPL-2.0-or-later
//
// A superblock with the right checksum. Input: flags, then 4096 bytes; missing ones are zero.
#include "libremap/format.hpp"
#include "libremap/metadata.hpp"
#include "support.hpp"

using namespace remap;

namespace {

/// Everything that is computed from an accepted superblock, within its own bounds.
void use(const Superblock& sb) {
    const Segment& segment = sb.segment();
    for (const std::uint64_t slot :
         {std::uint64_t{0}, segment.nr_slots / 2, segment.nr_slots - 1}) {
        static_cast<void>(sb.slot_sector(slot));
        static_cast<void>(sb.slot_reserved(slot));
    }
    for (unsigned int copy = 0; copy < segment.nr_copies; ++copy) {
        static_cast<void>(sb.table_sector(segment.table_blocks() - 1, copy));
    }
    std::uint64_t hidden = 0;
    for (const Hidden& extent : sb.hidden) {
        fuzz::promise(extent.start + extent.count <= sb.main_blocks(), "hidden beyond the main");
        fuzz::promise(sb.block_hidden(extent.start), "a hidden extent is not hidden");
        hidden += extent.count;
    }
    fuzz::promise(hidden == sb.hidden_blocks(), "hidden blocks are miscounted");
    fuzz::promise(sb.table_length <= segment.table_blocks(), "the table is longer than its place");
    static_cast<void>(check_geometry(sb, sb.spare_size));
    static_cast<void>(check_geometry(sb, sb.spare_size / 2));
    if (!sb.is_bare()) {
        const Label label = make_label(sb);
        for (unsigned int i = 0; i < sb.label_sector.size(); ++i) {
            const auto again =
                decode_label(encode_label(label, i, sb.label_sector[i]), sb.label_sector[i]);
            fuzz::promise(again.valid(), "the label of an accepted superblock is refused");
        }
        static_cast<void>(encode_filler(make_filler(sb), 0));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const std::uint8_t flags = input.byte();
    std::vector<std::uint8_t> bytes = input.bytes(REMAP_SB_SIZE);
    if ((flags & 1) == 0) {
        fuzz::seal_head(bytes);
    }
    fuzz::Input position(bytes.data() + offsetof(remap_head, position), 8);
    const std::uint64_t sector = (flags & 2) == 0 ? position.quadword() : flags;

    const auto decoded = decode_superblock(bytes, sector);
    if (!decoded.valid()) {
        fuzz::promise(decoded.verdict == Verdict::absent || !decoded.problem.field.empty(),
                      "refused without a reason");
        return 0;
    }
    fuzz::promise(!check_superblock(decoded.value), "accepted, and then not");
    use(decoded.value);
    const unsigned int copy = decoded.value.head.copy;
    const auto again = decode_superblock(encode_superblock(decoded.value, copy), sector);
    fuzz::promise(again.valid() && again.value == decoded.value, "written and read it differs");
    // As a copy for another place it is still the same superblock.
    SuperblockBytes moved{};
    std::copy(bytes.begin(), bytes.end(), moved.begin());
    const unsigned int next = (copy + 1) % REMAP_SB_COPIES;
    relocate_superblock(moved, next, decoded.value.sb_sector[next]);
    const auto elsewhere = decode_superblock(moved, decoded.value.sb_sector[next]);
    fuzz::promise(elsewhere.valid(), "moved to the place of its next copy it is refused");
    return 0;
}
