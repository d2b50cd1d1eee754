// SPDX-License-Identifier: GPL-2.0-or-later
#include <sstream>

#include <sys/sysmacros.h>

#include "catch.hpp"
#include "libremap/dm.hpp"
#include "libremap/error.hpp"
#include "libremap/status.hpp"

namespace {

const std::string uuid = "5f0c0000-1111-2222-3333-444455556666";
const std::string line = uuid + " 1 560/16128 555 2 3 536 2/2 7 11 12 13 14 15 16 4 ok rw";

}  // namespace

TEST_CASE("The kernel's status line becomes named fields", "[status]") {
    const auto s = remap::parse_status(line);
    CHECK(s.set.str() == uuid);
    CHECK(s.block_sectors == 1);
    CHECK(s.slots_used == 560);
    CHECK(s.slots_total == 16128);
    CHECK(s.mapped == 555);
    CHECK(s.lost == 2);
    CHECK(s.bad_slots == 3);
    CHECK(s.hidden == 536);
    CHECK(s.live_copies == 2);
    CHECK(s.copies == 2);
    CHECK(s.epoch == 7);
    CHECK(s.remaps == 11);
    CHECK(s.main_write_errors == 12);
    CHECK(s.main_read_errors == 13);
    CHECK(s.spare_errors == 14);
    CHECK(s.failed_writes == 15);
    CHECK(s.in_doubt == 16);
    CHECK(s.table_length == 4);
    CHECK(s.health == "ok");
    CHECK(s.mode == "rw");
    CHECK(s.healthy());
}

TEST_CASE("Fields that a later kernel adds before the mode are passed over", "[status]") {
    std::string longer = line;
    longer.insert(longer.size() - 3, " new 17");
    const auto s = remap::parse_status(longer);
    CHECK(s.health == "ok");
    CHECK(s.mode == "rw");
    CHECK_FALSE(remap::parse_status(line.substr(0, line.size() - 5) + "degraded rw").healthy());
    CHECK_FALSE(remap::parse_status(line.substr(0, line.size() - 2) + "fail").healthy());
}

TEST_CASE("Every cut of a status line is refused, not misread", "[status]") {
    std::istringstream in(line);
    std::string cut;
    for (std::string word; in >> word;) {
        CHECK_THROWS_AS(remap::parse_status(cut), remap::Error);
        cut += (cut.empty() ? "" : " ") + word;
    }
    CHECK_NOTHROW(remap::parse_status(cut));
    CHECK_THROWS_AS(remap::parse_status("x" + line), remap::Error);
    CHECK_THROWS_AS(remap::parse_status(uuid + " 1 560-16128 555"), remap::Error);
}

TEST_CASE("The table line names both devices by number, then the features", "[status]") {
    remap::dm::CreateRequest request;
    request.main = makedev(8, 1);
    request.spare = makedev(8, 17);
    CHECK(remap::dm::table_parameters(request) == "8:1 8:17 0");
    request.features = {"read_only", "fua"};
    CHECK(remap::dm::table_parameters(request) == "8:1 8:17 2 read_only fua");
    CHECK(remap::dm::device_uuid(*remap::Uuid::parse(uuid)) == "REMAP-" + uuid);
}
