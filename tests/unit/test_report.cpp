// SPDX-License-Identifier: GPL-2.0-or-later
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "catch.hpp"
#include "libremap/dump.hpp"
#include "libremap/error.hpp"
#include "libremap/report.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;
using nlohmann::json;

namespace {

json dump_json(BlockIo& io, Exit expected) {
    std::ostringstream out;
    JsonEmitter emitter(out);

    CHECK(dump_device(io, emitter) == expected);
    return json::parse(out.str());
}

std::string dump_text(BlockIo& io, Exit expected) {
    std::ostringstream out;
    TextEmitter emitter(out);

    CHECK(dump_device(io, emitter) == expected);
    return out.str();
}

Exit dump_failure(BlockIo& io) {
    std::ostringstream out;
    JsonEmitter emitter(out);

    try {
        dump_device(io, emitter);
    } catch (const Error& error) {
        return error.code();
    }
    return Exit::ok;
}

void show(Emitter& out) {
    out.text("name", "a \"b\" \\ \n\x1b[31m \xc3\xa4 \xff");
    out.quantity("size", 12, "sectors");
    out.boolean("yes", true);
    out.begin_object("inner");
    out.number("a_b", 1);
    out.end_object();
    out.begin_list("numbers");
    out.number("", 1);
    out.number("", 2);
    out.end_list();
    out.begin_list("rows");
    for (int i = 0; i < 2; i++) {
        out.begin_object("");
        out.number("i", static_cast<std::uint64_t>(i));
        out.begin_list("l");
        out.number("", 7);
        out.end_list();
        out.end_object();
    }
    out.end_list();
    out.begin_list("none");
    out.end_list();
    out.time("when", 1700000000);
    out.finish();
}

}  // namespace

TEST_CASE("JSON is well formed whatever the texts hold") {
    std::ostringstream out;
    JsonEmitter emitter(out);

    show(emitter);
    const json parsed = json::parse(out.str());
    CHECK(parsed["name"] == "a \"b\" \\ \n\x1b[31m \xc3\xa4 \xef\xbf\xbd");
    CHECK(parsed["inner"]["a_b"] == 1);
    CHECK(parsed["numbers"] == json::array({1, 2}));
    CHECK(parsed["rows"][1]["i"] == 1);
    CHECK(parsed["none"].empty());
    CHECK(parsed["when"] == 1700000000);
    for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"})
        CHECK_NOTHROW(json::parse(json_string(bad)));
}

TEST_CASE("text shows no control characters") {
    std::ostringstream out;
    TextEmitter emitter(out);

    show(emitter);
    CHECK(out.str().find('\x1b') == std::string::npos);
    CHECK(out.str().find("size: 12 sectors\n") != std::string::npos);
    CHECK(out.str().find("2023-11-14 22:13:20 UTC") != std::string::npos);
}

TEST_CASE("a spare is shown with every copy and every entry") {
    SampleSet set;
    const json shown = dump_json(set.spare, Exit::ok);

    CHECK(shown["role"] == "spare");
    CHECK(shown["superblock_copies"].size() == 5);
    CHECK(shown["superblock"]["set_uuid"] == set.superblock.head.set_uuid.str());
    CHECK(shown["table_blocks"].size() == 2 * set.superblock.table_length);
    REQUIRE(shown["entries"].size() == 36);
    CHECK(shown["entries"][0]["cause"] == "hidden");
    CHECK(shown["slots_used"] == 36);
    const std::string text = dump_text(set.spare, Exit::ok);
    CHECK(text.find(set.superblock.head.set_uuid.str()) != std::string::npos);
    CHECK(text.find("slot 35") != std::string::npos);
}

TEST_CASE("a damaged spare is shown, and the damage with it") {
    SampleSet set;

    flip(set.spare, set.superblock.sb_sector[2], 5000);
    scribble(set.spare, set.superblock.table_sector(0, 1), 8);
    set.superblock.head.generation += 5;
    set.superblock.label = "other";
    write_superblock_copy(set.spare, set.superblock, 4);
    const json shown = dump_json(set.spare, Exit::damage);
    CHECK(shown["superblock_copies"][2]["verdict"] == "bad-crc");
    CHECK(shown["superblock_copies"][0]["verdict"] == "stale");
    CHECK(shown["superblock"]["label"] == "other");
    CHECK(shown["superblock_at_sector_8"]["label"] == "sample");
    CHECK(shown["table_blocks"][1]["verdict"] == "absent");
    CHECK(shown["entries"].size() == 36);
    CHECK(shown["findings"].size() >= 2);
}

TEST_CASE("entries of copies that say something else are shown as theirs") {
    SampleSet set;
    auto other = set.entries;

    other[0] = Entry::make(REMAP_ENTRY_LOST, 1, REMAP_CAUSE_MESSAGE, 0, 77, 1);
    write_table_copy(set.spare, set.superblock, 1, 0, set.generation,
                     std::span(other).first(REMAP_ENTRIES_PER_BLOCK));
    const json shown = dump_json(set.spare, Exit::damage);
    REQUIRE(shown["entries"].size() == 72);
    CHECK(shown["entries"][0]["copy"] == 0);
    CHECK(shown["entries"][0]["verdict"] == "conflict");
    CHECK(shown["entries"][36]["copy"] == 1);
    CHECK(shown["entries"][36]["state"] == "lost");
}

TEST_CASE("a main is shown with its labels") {
    SampleSet set;
    json shown = dump_json(set.main, Exit::ok);

    CHECK(shown["role"] == "main");
    REQUIRE(shown["labels"].size() == 3);
    CHECK(shown["labels"][2]["set_uuid"] == set.superblock.head.set_uuid.str());
    CHECK(shown["filler"] == 13);
    flip(set.main, 2, 1500);
    shown = dump_json(set.main, Exit::damage);
    CHECK(shown["labels"][1]["verdict"] == "bad-crc");
}

TEST_CASE("what is not ours cannot be dumped") {
    MemoryIo zeroes("zeroes", 4096);
    MemoryIo empty("empty", 0);
    MemoryIo one("one", 1);
    SampleSet newer;

    CHECK(dump_failure(zeroes) == Exit::unrecognised);
    CHECK(dump_failure(empty) == Exit::unrecognised);
    CHECK(dump_failure(one) == Exit::unrecognised);
    newer.superblock.head.version = 2;
    write_superblock(newer.spare, newer.superblock);
    CHECK(dump_failure(newer.spare) == Exit::operational);
}

TEST_CASE("a superblock without any valid copy is still shown as damage") {
    SampleSet set;

    for (const std::uint64_t sector : set.superblock.sb_sector)
        flip(set.spare, sector, 5000);
    const json shown = dump_json(set.spare, Exit::damage);
    CHECK(shown["superblock_copies"].size() == 5);
    CHECK(shown["superblock_copies"][0]["field"] == "crc");
}

TEST_CASE("showing reads only") {
    SampleSet set;
    RecordingIo log(set.spare);
    std::ostringstream out;
    JsonEmitter emitter(out);

    dump_device(log, emitter);
    CHECK(log.events().empty());
}
