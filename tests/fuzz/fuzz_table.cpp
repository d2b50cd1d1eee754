// SPDX-License-Identifier: GPL-2.0-or-later
//
// A table block with the right checksum. Input: flags, copy, then 4096 bytes.
#include "libremap/format.hpp"
#include "sample_set.hpp"
#include "support.hpp"

using namespace remap;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const test::SampleSet sample({4096, 4096, 9, 8, 300, 1});
    static const Superblock& sb = sample.superblock;
    fuzz::Input input(data, size);
    const std::uint8_t flags = input.byte();
    const unsigned int copy = input.byte() % sb.segment().nr_copies;
    std::vector<std::uint8_t> bytes = input.bytes(REMAP_TABLE_BLOCK_SIZE);
    if ((flags & 1) == 0) {
        fuzz::seal_table_block(bytes, sb.seed());
    }
    fuzz::Input header(bytes.data() + offsetof(remap_table_block, index), 8);
    const std::uint64_t index =
        (flags & 2) == 0 ? header.quadword() % sb.table_length : flags % sb.table_length;

    const auto decoded =
        decode_table_header(bytes, sb.seed(), index, copy, sb.table_sector(index, copy));
    std::array<Entry, REMAP_ENTRIES_PER_BLOCK> entries{};
    table_entries(bytes, entries);
    for (unsigned int i = 0; i < entries.size(); ++i) {
        fuzz::promise(table_entry(bytes, i) == entries.at(i), "an entry read in two ways differs");
        const std::uint64_t slot = index * REMAP_ENTRIES_PER_BLOCK + i;
        if (!check_entry(sb, slot, entries.at(i)) && entries.at(i).is_live()) {
            fuzz::promise(entries.at(i).block() < sb.main_blocks(), "an entry beyond the main");
            fuzz::promise(!sb.slot_reserved(slot), "a reserved slot is used");
        }
        static_cast<void>(entry_state_name(entries.at(i).state()));
        static_cast<void>(entry_cause_name(entries.at(i).cause()));
    }
    if (decoded.valid()) {
        const auto again =
            decode_table_header(encode_table_block(sb.seed(), decoded.value, entries), sb.seed(),
                                index, copy, sb.table_sector(index, copy));
        fuzz::promise(again.valid(), "a table block that was accepted, written anew, is refused");
        fuzz::promise(again.value.generation == decoded.value.generation, "generation changed");
    }
    return 0;
}
