// SPDX-License-Identifier: GPL-2.0-or-later
//
// scripts/bench tools measures what it says it does. How long anything takes is no matter here.
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "catch.hpp"
#include "scratch.hpp"

namespace {

using Json = nlohmann::json;

scratch::Result bench(const std::string& entries) {
    const std::string source = REMAP_SOURCE_DIR;

    return scratch::run({"env", "DM_REMAP_BUILD=" REMAP_BIN_DIR "/..", "PYTHONDONTWRITEBYTECODE=1",
                         "PYTHONPATH=" + source + "/tests/vm", "/usr/bin/python3", "-m",
                         "remapvm.bench", "tools", "--runs", "1", "--json", "--entries", entries});
}

/// The bars that were set for a million entries, by the beginning of what is measured.
const std::map<std::string, double> bars = {
    {"remap-fsck -n, 1,000 entries: CPU", 80},
    {"remap-fsck -n, 1,000 entries: peak RSS", 32},
    {"  remap-fsck's CPU over that", 4},
    {"remap-fsck -n, 10 entries: wall", 10},
    {"remap-dump export --format json, 1,000 entries: wall", 600},
    {"remap-dump export --format json, 1,000 entries: peak RSS", 64},
    {"remap-dump restore, 1,000 entries: wall", 2000},
    {"remap-dump restore, 1,000 entries: peak RSS", 64},
};

}  // namespace

TEST_CASE("scripts/bench tools measures every bar and exits as they are met", "[bench]") {
    const auto result = bench("1000");
    INFO(result.err);
    REQUIRE((result.code == 0 || result.code == 1));
    const Json figures = Json::parse(result.out);
    std::map<std::string, double> seen;
    bool missed = false;

    for (const Json& figure : figures) {
        INFO(figure.dump());
        CHECK(figure.at("kernel") == "host");
        CHECK(figure.at("value").get<double>() > 0);
        CHECK((figure.at("unit") == "ms" || figure.at("unit") == "MiB" ||
               figure.at("unit") == "times"));
        if (figure.at("bar").is_null()) {
            CHECK(figure.at("met").is_null());
            continue;
        }
        const auto bar = figure.at("bar").get<double>();
        CHECK(figure.at("met").get<bool>() == (figure.at("value").get<double>() <= bar));
        missed = missed || !figure.at("met").get<bool>();
        seen[figure.at("what").get<std::string>()] = bar;
    }
    CHECK(seen == bars);
    CHECK(result.code == (missed ? 1 : 0));
}

TEST_CASE("scripts/bench refuses a number of entries that is none", "[bench]") {
    const auto result = bench("0");
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK(result.err.find("--entries") != std::string::npos);
}
