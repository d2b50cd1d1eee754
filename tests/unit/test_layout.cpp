// SPDX-License-Identifier: GPL-2.0-or-later
#include <string>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/layout.hpp"
#include "sample_set.hpp"

using namespace remap;

namespace {

/// Every bound that a reader checks holds for the layout of a new spare.
void check_layout(std::uint64_t spare, std::uint64_t main, std::uint32_t block_sectors,
                  std::uint64_t hidden) {
    INFO("spare " << spare << " main " << main << " block " << block_sectors);
    const Layout layout = plan_layout({spare, main, block_sectors, hidden, 0});
    Superblock sb = test::SampleSet().superblock;

    sb.head.block_shift = block_sectors == 1 ? 9 : 12;
    sb.head.flags = REMAP_FLAG_BARE;
    sb.hidden.clear();
    sb.label_sector.clear();
    sb.deciding_sector = 0;
    sb.main_size = main;
    sb.spare_size = spare;
    sb.sb_sector = layout.sb_sector;
    sb.segments = {layout.segment};
    sb.segments[0].member = 1;
    sb.table_length = layout.table_length;
    const auto bad = check_superblock(sb);
    INFO((bad ? bad->field + ": " + bad->found : std::string()));
    CHECK_FALSE(bad);

    std::uint64_t reserved = 0;
    if (layout.segment.nr_slots < 1000000) {
        for (std::uint64_t slot = 0; slot < layout.segment.nr_slots; slot++)
            reserved += sb.slot_reserved(slot);
        CHECK(layout.usable_slots + reserved == layout.segment.nr_slots);
    }
    CHECK(layout.usable_slots >= hidden);
    CHECK(layout.segment.nr_slots <= main / block_sectors);
    CHECK(layout.table_length * REMAP_ENTRIES_PER_BLOCK >= hidden);
}

/// Why no layout is made, or an empty string.
std::string refusal(std::uint64_t spare, std::uint64_t hidden = 0) {
    try {
        plan_layout({spare, 1 << 20, 1, hidden, 0});
    } catch (const Error& error) {
        CHECK(error.code() == Exit::usage);
        return error.what();
    }
    return {};
}

}  // namespace

TEST_CASE("a new spare of any size has a layout that readers accept") {
    for (std::uint64_t spare = 2048; spare < 9000; spare += 129)
        check_layout(spare, 1 << 20, 1, 100);
    for (const std::uint64_t spare :
         {2048ULL, 131071ULL, 131072ULL, 204800ULL, 1ULL << 24, 1ULL << 31, 1ULL << 35}) {
        for (const std::uint64_t main : {2048ULL, 204800ULL, 1ULL << 32, 1ULL << 40}) {
            check_layout(spare, main, 1, 0);
            check_layout(spare, main, 8, 0);
        }
    }
}

TEST_CASE("the default number of slots is bounded") {
    CHECK(plan_layout({1ULL << 36, 1ULL << 40, 1, 0, 0}).segment.nr_slots == 16ULL << 20);
    CHECK(plan_layout({1ULL << 36, 1ULL << 40, 1, 0, 1000}).segment.nr_slots == 1000);
}

TEST_CASE("a spare of 16 TB is formatted by writing a handful of table blocks") {
    CHECK(plan_layout({1ULL << 35, 1ULL << 36, 8, 512, 0}).table_length < 10);
}

TEST_CASE("a spare that is too small is refused with what it has and what it needs") {
    CHECK(refusal(2047).find("2047") != std::string::npos);
    CHECK(refusal(2048, 5000).find("5000") != std::string::npos);
}
