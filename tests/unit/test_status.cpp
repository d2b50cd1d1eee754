// SPDX-License-Identifier: GPL-2.0-or-later
#include <sstream>

#include <sys/sysmacros.h>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "libremap/dm.hpp"
#include "libremap/error.hpp"
#include "libremap/status.hpp"

namespace {

const std::string uuid = "5f0c0000-1111-2222-3333-444455556666";
const std::string line = uuid + " 1 560/16128 555 2 3 536 2/2 7 11 12 13 14 15 16 4 17 18 ok rw";

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
    CHECK(s.circuit == 17);
    CHECK(s.burst == 18);
    CHECK(s.health == "ok");
    CHECK(s.mode == "rw");
    CHECK(s.healthy());
}

TEST_CASE("Every counter of the status line is printed with its name", "[status]") {
    std::ostringstream text;
    remap::JsonEmitter out(text);
    remap::emit_status(remap::parse_status(line), out);
    out.finish();
    const auto shown = nlohmann::json::parse(text.str());
    CHECK(shown.at("remaps_since_open") == 11);
    CHECK(shown.at("failed_writes") == 15);
    CHECK(shown.at("table_blocks") == 4);
    CHECK(shown.at("circuit_writes") == 17);
    CHECK(shown.at("burst_writes") == 18);
    CHECK(shown.at("health") == "ok");
    CHECK(shown.at("mode") == "rw");
}

TEST_CASE("Fields that a later kernel adds before the last two are passed over", "[status]") {
    std::string longer = line;
    longer.insert(longer.size() - 6, " 19 new");
    const auto s = remap::parse_status(longer);
    CHECK(s.burst == 18);
    CHECK(s.health == "ok");
    CHECK(s.mode == "rw");
    CHECK_FALSE(remap::parse_status(line.substr(0, line.size() - 5) + "degraded rw").healthy());
    CHECK_FALSE(remap::parse_status(line.substr(0, line.size() - 2) + "fail").healthy());
}

TEST_CASE("Fields that an earlier kernel does not print are 0", "[status]") {
    std::string shorter = line;
    shorter.erase(shorter.find(" 17 18"), 6);
    const auto s = remap::parse_status(shorter);
    CHECK(s.table_length == 4);
    CHECK(s.circuit == 0);
    CHECK(s.burst == 0);
    CHECK(s.health == "ok");
    CHECK(s.mode == "rw");
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
