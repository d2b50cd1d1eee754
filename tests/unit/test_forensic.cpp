// SPDX-License-Identifier: GPL-2.0-or-later
//
// remap-dump scan and hexdump: what is shown of structures that nothing else understands any more.
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/hexdump.hpp"
#include "libremap/scan.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

struct Shown {
    Exit exit = Exit::ok;
    nlohmann::json json;
};

Shown hexdump_of(BlockIo& io, const HexdumpOptions& options) {
    std::ostringstream out;
    JsonEmitter emitter(out);
    const Exit exit = hexdump(io, options, emitter);
    return {exit, nlohmann::json::parse(out.str())};
}

Shown scan_of(BlockIo& io) {
    std::ostringstream out;
    JsonEmitter emitter(out);
    const Exit exit = scan_device(io, {}, emitter);
    return {exit, nlohmann::json::parse(out.str())};
}

std::size_t count(const nlohmann::json& found, const std::string& kind) {
    std::size_t structures = 0;
    for (const auto& run : found) {
        if (run["kind"] == kind)
            structures += run["count"].get<std::size_t>();
    }
    return structures;
}

/// Is every byte of the structure in exactly one field that is shown?
bool covered(const nlohmann::json& shown, std::size_t size) {
    std::size_t at = 0;
    for (const auto& field : shown["fields"]) {
        if (field["offset"].get<std::size_t>() != at)
            return false;
        at += field["bytes"].get<std::string>().size() / 2;
    }
    return at == size;
}

const nlohmann::json& field(const nlohmann::json& shown, const std::string& name) {
    for (const auto& one : shown["fields"]) {
        if (one["name"] == name)
            return one;
    }
    throw std::runtime_error("no field " + name);
}

}  // namespace

TEST_CASE("hexdump names every byte of every structure", "[forensic]") {
    const StructureKind kind = GENERATE(StructureKind::superblock, StructureKind::table_block,
                                        StructureKind::label, StructureKind::filler);
    const bool large = kind == StructureKind::superblock || kind == StructureKind::table_block;
    const std::size_t size = large ? 4096 : 512;
    // No byte is zero, so that nothing is left out.
    MemoryIo io("noise", std::vector<std::uint8_t>(8192, 0x41));
    HexdumpOptions options;
    options.kind = kind;
    options.sector = 0;
    const Shown shown = hexdump_of(io, options);
    CHECK(covered(shown.json, size));
    CHECK(shown.exit == Exit::damage);
}

TEST_CASE("hexdump finds structures by number and judges them", "[forensic]") {
    SampleSet set;
    HexdumpOptions options;
    options.kind = StructureKind::superblock;
    options.number = 2;
    const Shown superblock = hexdump_of(set.spare, options);
    CHECK(superblock.exit == Exit::ok);
    CHECK(superblock.json["sector"] == set.superblock.sb_sector[2]);
    CHECK(superblock.json["crc_wanted"] == superblock.json["crc_found"]);
    CHECK(field(superblock.json, "set_uuid")["value"] == set.superblock.head.set_uuid.str());
    CHECK(field(superblock.json, "members[1].partuuid")["value"] == "p-1");

    options = {};
    options.kind = StructureKind::label;
    options.number = 1;
    const Shown label = hexdump_of(set.main, options);
    CHECK(label.exit == Exit::ok);
    CHECK(label.json["sector"] == set.superblock.label_sector[1]);

    options = {};
    options.kind = StructureKind::table_block;
    options.copy = 1;
    CHECK(hexdump_of(set.spare, options).exit == Exit::ok);
    const std::uint64_t sector = set.superblock.table_sector(0, 1);
    flip(set.spare, sector, 64 * 8);
    const Shown table = hexdump_of(set.spare, options);
    CHECK(table.exit == Exit::damage);
    CHECK(table.json["verdict"] == "bad-crc");
    CHECK(table.json["crc_wanted"] != table.json["crc_found"]);
    CHECK(field(table.json, "entries[0]")["block"] == (set.entries[0].block() ^ 1));

    // The same by its sector, which the magic tells, and as a copy that lies elsewhere.
    options = {};
    options.sector = sector;
    CHECK(hexdump_of(set.spare, options).json["structure"] == "table block");
    set.spare.write(400, set.spare.read(set.superblock.sb_sector[0], 8));
    options.sector = 400;
    CHECK(hexdump_of(set.spare, options).json["verdict"] == "misplaced");
}

TEST_CASE("hexdump without a superblock, or where nothing is", "[forensic]") {
    SampleSet set;
    HexdumpOptions options;
    const std::uint64_t table = set.superblock.table_sector(0, 0);
    for (const std::uint64_t sector : set.superblock.sb_sector)
        scribble(set.spare, sector, 8);
    options.sector = table;
    const Shown shown = hexdump_of(set.spare, options);
    CHECK(shown.exit == Exit::damage);
    CHECK(shown.json["crc_wanted"] == "not known");
    CHECK(field(shown.json, "entries[0]")["state"] == "mapped");

    options = {};
    options.kind = StructureKind::table_block;
    CHECK_THROWS_AS(hexdump_of(set.spare, options), Error);
    options = {};
    options.sector = 300;
    CHECK_THROWS_WITH(hexdump_of(set.spare, options), Catch::Contains("sector 300"));
    options.sector = set.spare.size() + 1;
    CHECK_THROWS_AS(hexdump_of(set.spare, options), IoError);
}

TEST_CASE("scan shows every structure, also when no superblock is left", "[forensic]") {
    SampleSet set;
    const std::size_t blocks = set.superblock.table_length;
    const Shown sound = scan_of(set.spare);
    CHECK(sound.exit == Exit::ok);
    CHECK(count(sound.json["found"], "superblock") == REMAP_SB_COPIES);
    CHECK(count(sound.json["found"], "table block") == 2 * blocks);
    CHECK(count(scan_of(set.main).json["found"], "label") == set.superblock.label_sector.size());

    for (const std::uint64_t sector : set.superblock.sb_sector)
        scribble(set.spare, sector, 8);
    const Shown lost = scan_of(set.spare);
    CHECK(count(lost.json["found"], "superblock") == 0);
    CHECK(count(lost.json["found"], "table block") == 2 * blocks);

    FaultIo faulty(set.spare);
    faulty.bad_reads.insert(1000);
    const Shown unreadable = scan_of(faulty);
    CHECK(unreadable.exit == Exit::damage);
    CHECK(unreadable.json["unreadable"][0]["sector"] == 1000);

    MemoryIo nothing("nothing", 4096);
    std::ostringstream out;
    JsonEmitter emitter(out);
    CHECK_THROWS_AS(scan_device(nothing, {}, emitter), Error);
    CHECK(out.str().empty());
}
