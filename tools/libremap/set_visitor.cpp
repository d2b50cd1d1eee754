// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/set_visitor.hpp"

#include <algorithm>
#include <string>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

Error bad(const std::string& what, const std::string& expected, const std::string& found) {
    return {Exit::unrecognised, cat(what, ": expected ", expected, ", found ", found)};
}

}  // namespace

std::uint64_t StagedSet::highest_generation() const {
    std::uint64_t highest = superblock.head.generation;

    for (const std::uint64_t generation : generations)
        highest = std::max(highest, generation);
    return highest;
}

void SetBuilder::superblock(const DumpInfo& info, const Superblock& sb) {
    // What an unknown feature has put into reserved places is not in a dump.
    if ((sb.head.compat & ~REMAP_COMPAT_KNOWN) != 0 ||
        (sb.head.ro_compat & ~REMAP_RO_COMPAT_KNOWN) != 0 ||
        (sb.head.incompat & ~REMAP_INCOMPAT_KNOWN) != 0)
        throw Error(Exit::operational,
                    "superblock: expected only features that this program knows, found others");
    set_.info = info;
    set_.superblock = sb;
    // Here the copies differ; it is filled in as each is written.
    set_.superblock.head.copy = 0;
    set_.superblock.head.position = sb.sb_sector[0];
    // What cannot be written and read back as it is must not be written at all.
    const auto read_back =
        decode_superblock(encode_superblock(set_.superblock, 0), sb.sb_sector[0]);
    if (!read_back.valid())
        throw bad(cat("superblock: ", read_back.problem.field), read_back.problem.expected,
                  read_back.problem.found);
    if (read_back.value != set_.superblock)
        throw bad("superblock", "values that the format can hold", "others");
    started_ = true;
}

void SetBuilder::block(std::uint64_t index, std::uint64_t generation) {
    const std::uint64_t expected = set_.generations.size();

    if (!started_)
        throw bad("table block", "the superblock before it", "none");
    if (expected == set_.superblock.table_length)
        throw bad("table block", cat("not more than the table's length, ", expected),
                  cat("block ", index));
    if (index != expected)
        throw bad("table block", cat("block ", expected), cat("block ", index));
    if (generation >> 32 > set_.superblock.epoch)
        throw bad(cat("table block ", index, ": epoch of its generation"),
                  cat("at most ", set_.superblock.epoch), cat(generation >> 32));
    set_.generations.push_back(generation);
    set_.entries.resize(set_.generations.size() * REMAP_ENTRIES_PER_BLOCK);
    next_slot_ = index * REMAP_ENTRIES_PER_BLOCK;
}

void SetBuilder::lost_block(std::uint64_t index) {
    throw bad(cat("table block ", index), "its entries",
              "that they were lost before the dump was made; nobody knows what it mapped");
}

void SetBuilder::entry(std::uint64_t slot, const Entry& entry) {
    if (slot < next_slot_ || slot >= set_.entries.size())
        throw bad("slot", cat(next_slot_, " to ", set_.entries.size(), ", ascending"), cat(slot));
    if (entry.is_free())
        throw bad(cat("slot ", slot, ": state"), "mapped, lost or bad", "free");
    if (const auto problem = check_entry(set_.superblock, slot, entry))
        throw bad(cat("slot ", slot, ": ", problem->field), problem->expected, problem->found);
    set_.entries[slot] = entry;
    next_slot_ = slot + 1;
}

void SetBuilder::finish() {
    if (!started_)
        throw bad("dump", "a superblock", "none");
    if (set_.generations.size() != set_.superblock.table_length)
        throw bad("dump", cat(set_.superblock.table_length, " table blocks"),
                  cat(set_.generations.size()));
}

}  // namespace remap
