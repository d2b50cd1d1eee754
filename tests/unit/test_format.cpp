// SPDX-License-Identifier: GPL-2.0-or-later
//
// The codecs, and docs/format.md, which has to say the same.
#include <cstddef>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "libremap/crc.hpp"
#include "libremap/error.hpp"
#include "libremap/format.hpp"
#include "sample_set.hpp"

using namespace remap;
using remap::test::SampleSet;

namespace {

struct Place {
    std::size_t offset;
    std::size_t size;
    bool operator==(const Place&) const = default;
};

using Fields = std::map<std::string, Place>;

// NOLINTBEGIN(bugprone-macro-parentheses): the name of a member cannot have any
#define FIELD(type, member)                                                     \
    {                                                                           \
#member, {                                                              \
            offsetof(type, member), sizeof(static_cast<type*>(nullptr)->member) \
        }                                                                       \
    }
// NOLINTEND(bugprone-macro-parentheses)

const std::map<std::string, Fields> structures = {
    {"remap_head",
     {FIELD(remap_head, magic), FIELD(remap_head, crc), FIELD(remap_head, version),
      FIELD(remap_head, role), FIELD(remap_head, copy), FIELD(remap_head, state),
      FIELD(remap_head, block_shift), FIELD(remap_head, flags), FIELD(remap_head, compat),
      FIELD(remap_head, ro_compat), FIELD(remap_head, incompat), FIELD(remap_head, generation),
      FIELD(remap_head, set_uuid), FIELD(remap_head, nonce), FIELD(remap_head, position),
      FIELD(remap_head, member_uuid), FIELD(remap_head, partner_uuid)}},
    {"remap_superblock",
     {FIELD(remap_superblock, head),         FIELD(remap_superblock, epoch),
      FIELD(remap_superblock, label_epoch),  FIELD(remap_superblock, nr_members),
      FIELD(remap_superblock, nr_segments),  FIELD(remap_superblock, nr_hidden),
      FIELD(remap_superblock, nr_labels),    FIELD(remap_superblock, live_copies),
      FIELD(remap_superblock, reserved0),    FIELD(remap_superblock, main_size),
      FIELD(remap_superblock, spare_size),   FIELD(remap_superblock, table_length),
      FIELD(remap_superblock, sb_sector),    FIELD(remap_superblock, created),
      FIELD(remap_superblock, updated),      FIELD(remap_superblock, deciding_sector),
      FIELD(remap_superblock, label_sector), FIELD(remap_superblock, label),
      FIELD(remap_superblock, tool),         FIELD(remap_superblock, reserved1),
      FIELD(remap_superblock, hidden),       FIELD(remap_superblock, segments),
      FIELD(remap_superblock, members),      FIELD(remap_superblock, reserved2)}},
    {"remap_hidden",
     {FIELD(remap_hidden, start), FIELD(remap_hidden, count), FIELD(remap_hidden, flags),
      FIELD(remap_hidden, reserved)}},
    {"remap_segment",
     {FIELD(remap_segment, member), FIELD(remap_segment, nr_copies), FIELD(remap_segment, reserved),
      FIELD(remap_segment, table_start), FIELD(remap_segment, first_slot),
      FIELD(remap_segment, nr_slots), FIELD(remap_segment, data_start)}},
    {"remap_member",
     {FIELD(remap_member, uuid), FIELD(remap_member, role), FIELD(remap_member, state),
      FIELD(remap_member, reserved0), FIELD(remap_member, size), FIELD(remap_member, wwn),
      FIELD(remap_member, serial), FIELD(remap_member, partuuid), FIELD(remap_member, reserved1)}},
    {"remap_label",
     {FIELD(remap_label, head), FIELD(remap_label, epoch), FIELD(remap_label, reserved0),
      FIELD(remap_label, main_size), FIELD(remap_label, reserved1)}},
    {"remap_filler", {FIELD(remap_filler, head), FIELD(remap_filler, reserved)}},
    {"remap_table_block",
     {FIELD(remap_table_block, magic), FIELD(remap_table_block, crc),
      FIELD(remap_table_block, copy), FIELD(remap_table_block, segment),
      FIELD(remap_table_block, in_use), FIELD(remap_table_block, index),
      FIELD(remap_table_block, generation), FIELD(remap_table_block, position),
      FIELD(remap_table_block, reserved), FIELD(remap_table_block, entries)}},
};

#undef FIELD

std::vector<std::string> document() {
    std::ifstream file(REMAP_SOURCE_DIR "/docs/format.md");
    std::vector<std::string> lines;

    for (std::string line; std::getline(file, line);)
        lines.push_back(line);
    return lines;
}

/// One ```vector example: its properties, and its bytes if it has any.
struct Vector {
    std::map<std::string, std::string> properties;
    std::vector<std::uint8_t> bytes;

    std::uint64_t number(const std::string& name) const {
        return std::stoull(properties.at(name), nullptr, 0);
    }
};

void read_row(Vector& vector, const std::string& line) {
    std::istringstream row(line.substr(5));
    std::size_t at = std::stoul(line.substr(0, 4), nullptr, 16);

    if (vector.bytes.empty())
        vector.bytes.resize(vector.number("size"));
    for (std::string byte; row >> byte;)
        vector.bytes.at(at++) = static_cast<std::uint8_t>(std::stoul(byte, nullptr, 16));
}

std::map<std::string, Vector> vectors() {
    std::map<std::string, Vector> found;
    Vector vector;
    bool inside = false;

    for (const std::string& line : document()) {
        if (line == "```vector") {
            inside = true;
            vector = {};
        } else if (line == "```" && inside) {
            inside = false;
            found[vector.properties.at("name")] = vector;
        } else if (inside && line.size() > 5 && line[4] == ':') {
            read_row(vector, line);
        } else if (inside) {
            const auto space = line.find(' ');
            vector.properties[line.substr(0, space)] = line.substr(space + 1);
        }
    }
    return found;
}

std::uint32_t stored_crc(const std::vector<std::uint8_t>& bytes, std::size_t offset) {
    std::uint32_t crc = 0;
    for (std::size_t i = 4; i-- > 0;)
        crc = crc << 8 | bytes.at(offset + i);
    return crc;
}

template <typename Bytes>
std::vector<std::uint8_t> as_vector(const Bytes& bytes) {
    return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("every offset in docs/format.md is that of the header") {
    std::set<std::string> seen;
    std::string name;
    Fields fields;

    for (const std::string& line : document()) {
        std::size_t size = 0;
        if (line.rfind("<!-- struct ", 0) == 0) {
            std::istringstream(line.substr(12)) >> name >> size;
            REQUIRE(structures.count(name) == 1);
            fields = structures.at(name);
            std::size_t sum = 0;
            for (const auto& [field, place] : fields)
                sum += place.size;
            CHECK(sum == size);
            seen.insert(name);
        }
        if (name.empty() || line.size() < 3 || line[0] != '|' || std::isdigit(line[2]) == 0)
            continue;
        std::string bar;
        std::string field;
        Place place{};
        std::istringstream(line) >> bar >> place.offset >> bar >> place.size >> bar >> field;
        INFO(name << "." << field);
        REQUIRE(fields.count(field) == 1);
        CHECK(fields.at(field) == place);
        fields.erase(field);
        if (fields.empty())
            name.clear();
    }
    CHECK(name.empty());
    CHECK(seen.size() == structures.size());
}

TEST_CASE("the example of the seed in docs/format.md") {
    const auto seed = vectors().at("seed");
    const auto uuid = Uuid::parse(seed.properties.at("set_uuid"));

    REQUIRE(uuid);
    CHECK(crc_seed(*uuid, seed.number("nonce")) == seed.number("crc"));
}

TEST_CASE("the example of a superblock in docs/format.md") {
    const auto example = vectors().at("superblock");
    const auto copy = static_cast<unsigned int>(example.number("copy"));
    const auto decoded = decode_superblock(example.bytes, example.number("sector"));

    INFO(decoded.problem.field << " " << decoded.problem.found);
    REQUIRE(decoded.valid());
    CHECK(stored_crc(example.bytes, 16) == example.number("crc"));
    CHECK(as_vector(encode_superblock(decoded.value, copy)) == example.bytes);

    const Superblock& sb = decoded.value;
    CHECK(sb.head.generation == ((3ULL << 32) | 7));
    CHECK(sb.epoch == 3);
    CHECK(sb.label_epoch == 3);
    CHECK(sb.hidden == std::vector<Hidden>{{0, 8, 0}, {4088, 8, 0}});
    CHECK(sb.label_sector == std::vector<std::uint64_t>{0, 2, 4095});
    CHECK(sb.segment().nr_slots == 3816);
    CHECK(sb.segment().data_start == 144);
    CHECK(sb.segment().table_start[1] == 3960);
    CHECK(sb.member(REMAP_ROLE_MAIN)->serial == "WD-EXAMPLE1");
    CHECK(sb.member(REMAP_ROLE_SPARE)->partuuid == "6f1d7a10-01");
    CHECK(sb.label == "example");
}

TEST_CASE("the examples of label and filler in docs/format.md") {
    const auto label = vectors().at("label");
    const auto filler = vectors().at("filler");
    const auto decoded = decode_label(label.bytes, label.number("sector"));
    const auto filled = decode_filler(filler.bytes, filler.number("sector"));

    REQUIRE(decoded.valid());
    CHECK(stored_crc(label.bytes, 16) == label.number("crc"));
    CHECK(as_vector(encode_label(decoded.value, static_cast<unsigned int>(label.number("copy")),
                                 label.number("sector"))) == label.bytes);
    REQUIRE(filled.valid());
    CHECK(stored_crc(filler.bytes, 16) == filler.number("crc"));
    CHECK(as_vector(encode_filler(filled.value, filler.number("sector"))) == filler.bytes);

    const auto sb = decode_superblock(vectors().at("superblock").bytes, 2048).value;
    CHECK(as_vector(encode_label(make_label(sb), 1, 2)) == label.bytes);
    CHECK(as_vector(encode_filler(make_filler(sb), 5)) == filler.bytes);
}

TEST_CASE("the example of a table block in docs/format.md") {
    const auto example = vectors().at("table");
    const auto seed = static_cast<std::uint32_t>(vectors().at("seed").number("crc"));
    const auto decoded = decode_table_header(example.bytes, seed, 0, 1, example.number("sector"));
    std::vector<Entry> entries(REMAP_ENTRIES_PER_BLOCK);

    INFO(decoded.problem.field << " " << decoded.problem.found);
    REQUIRE(decoded.valid());
    CHECK(stored_crc(example.bytes, 8) == example.number("crc"));
    CHECK(decoded.value.in_use == 5);
    table_entries(example.bytes, std::span<Entry, REMAP_ENTRIES_PER_BLOCK>(
                                     entries.data(), REMAP_ENTRIES_PER_BLOCK));
    CHECK(as_vector(encode_table_block(seed, decoded.value, entries)) == example.bytes);
    CHECK(entries[2] == Entry{});
    CHECK(entries[3] == Entry::make(REMAP_ENTRY_MAPPED, 1234, REMAP_CAUSE_WRITE, 5, 3, 1700001111));
    CHECK(entries[3] == table_entry(example.bytes, 3));
    CHECK(entries[4].state() == REMAP_ENTRY_LOST);
    CHECK(entries[4].block() == 77);
    CHECK(entries[5].state() == REMAP_ENTRY_BAD);
    CHECK(entries[5].cause() == REMAP_CAUSE_SLOT);
    CHECK(entries[5].error() == 5);
    CHECK(entries[5].sequence() == 2);
    CHECK(entries[5].time() == 1700001000);
}

TEST_CASE("what was encoded is decoded alike") {
    const SampleSet set;
    const Superblock& sb = set.superblock;

    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++) {
        const auto bytes = encode_superblock(sb, copy);
        auto decoded = decode_superblock(bytes, sb.sb_sector[copy]);
        REQUIRE(decoded.valid());
        CHECK(decoded.value.head.copy == copy);
        decoded.value.head.copy = sb.head.copy;
        decoded.value.head.position = sb.head.position;
        CHECK(decoded.value == sb);

        auto moved = encode_superblock(sb, 0);
        relocate_superblock(moved, copy, sb.sb_sector[copy]);
        CHECK(moved == bytes);
    }
}

TEST_CASE("a structure in the wrong place is seen") {
    const SampleSet set;
    const Superblock& sb = set.superblock;

    CHECK(decode_superblock(encode_superblock(sb, 1), sb.sb_sector[2]).verdict ==
          Verdict::misplaced);
    CHECK(decode_label(encode_label(make_label(sb), 0, 0), 2).verdict == Verdict::misplaced);
    CHECK(decode_filler(encode_filler(make_filler(sb), 4), 5).verdict == Verdict::misplaced);

    const TableHeader header{0, 0, 0, 3, 7, 40};
    const auto bytes = encode_table_block(sb.seed(), header, {});
    CHECK(decode_table_header(bytes, sb.seed(), 3, 0, 40).verdict == Verdict::current);
    CHECK(decode_table_header(bytes, sb.seed(), 2, 0, 40).verdict == Verdict::misplaced);
    CHECK(decode_table_header(bytes, sb.seed(), 3, 1, 40).verdict == Verdict::misplaced);
    CHECK(decode_table_header(bytes, sb.seed(), 3, 0, 48).verdict == Verdict::misplaced);
    CHECK(decode_table_header(bytes, sb.seed() + 1, 3, 0, 40).verdict == Verdict::bad_crc);
}

TEST_CASE("superblock and label are not taken for each other") {
    const SampleSet set;
    SuperblockBytes block{};
    const auto label = encode_label(make_label(set.superblock), 0, 8);

    std::copy(label.begin(), label.end(), block.begin());
    CHECK(decode_superblock(block, 8).verdict == Verdict::wrong_role);
    const auto superblock = encode_superblock(set.superblock, 0);
    CHECK(decode_label(superblock, 8).verdict == Verdict::wrong_role);
}

TEST_CASE("a newer version and unknown features are named as such") {
    SampleSet set;

    set.superblock.head.version = 2;
    auto decoded = decode_superblock(encode_superblock(set.superblock, 0), 8);
    CHECK(decoded.verdict == Verdict::newer_version);
    CHECK(decoded.problem.found == "2");
    set.superblock.head.version = 1;
    set.superblock.head.incompat = 4;
    CHECK(decode_superblock(encode_superblock(set.superblock, 0), 8).verdict ==
          Verdict::newer_version);
    set.superblock.head.incompat = 0;
    set.superblock.head.compat = 1;
    CHECK(decode_superblock(encode_superblock(set.superblock, 0), 8).valid());
}

TEST_CASE("every number of a superblock is held against its bounds") {
    const SampleSet set;
    const Superblock& good = set.superblock;
    const std::uint64_t huge = ~0ULL;
    using Change = void (*)(Superblock&);
    const std::map<std::string, Change> changes = {
        {"state 0", [](Superblock& s) { s.head.state = 0; }},
        {"state 9", [](Superblock& s) { s.head.state = 9; }},
        {"block shift", [](Superblock& s) { s.head.block_shift = 10; }},
        {"block shift 200", [](Superblock& s) { s.head.block_shift = 200; }},
        {"flags", [](Superblock& s) { s.head.flags = 0x100; }},
        {"no set", [](Superblock& s) { s.head.set_uuid = {}; }},
        {"main size 0", [](Superblock& s) { s.main_size = 0; }},
        {"main size huge", [](Superblock& s) { s.main_size = ~0ULL; }},
        {"spare size small", [](Superblock& s) { s.spare_size = 1000; }},
        {"spare size huge", [](Superblock& s) { s.spare_size = ~0ULL; }},
        {"label epoch", [](Superblock& s) { s.label_epoch = s.epoch + 1; }},
        {"no live copy", [](Superblock& s) { s.live_copies = 0; }},
        {"live copy 7", [](Superblock& s) { s.live_copies = 0x80; }},
        {"table length 0", [](Superblock& s) { s.table_length = 0; }},
        {"table length", [](Superblock& s) { s.table_length = ~0ULL; }},
        {"one table copy", [](Superblock& s) { s.segments[0].nr_copies = 1; }},
        {"nine table copies", [](Superblock& s) { s.segments[0].nr_copies = 9; }},
        {"first slot", [](Superblock& s) { s.segments[0].first_slot = 1; }},
        {"no slots", [](Superblock& s) { s.segments[0].nr_slots = 0; }},
        {"slots", [](Superblock& s) { s.segments[0].nr_slots = ~0ULL; }},
        {"slots beyond end", [](Superblock& s) { s.segments[0].nr_slots = 1ULL << 31; }},
        {"table start", [](Superblock& s) { s.segments[0].table_start[1] = ~0ULL - 7; }},
        {"table odd", [](Superblock& s) { s.segments[0].table_start[1] -= 1; }},
        {"tables overlap", [](Superblock& s) { s.segments[0].table_start[1] = 24; }},
        {"table over superblock", [](Superblock& s) { s.segments[0].table_start[0] = 8; }},
        {"data start", [](Superblock& s) { s.segments[0].data_start = ~0ULL - 7; }},
        {"data over table", [](Superblock& s) { s.segments[0].data_start = 16; }},
        {"segment member", [](Superblock& s) { s.segments[0].member = 0; }},
        {"segment member 200", [](Superblock& s) { s.segments[0].member = 200; }},
        {"superblock place", [](Superblock& s) { s.sb_sector[3] = ~0ULL - 7; }},
        {"superblocks overlap", [](Superblock& s) { s.sb_sector[3] = s.sb_sector[2]; }},
        {"hidden order", [](Superblock& s) { std::swap(s.hidden[0], s.hidden[1]); }},
        {"hidden overlap", [](Superblock& s) { s.hidden[1].start = 4; }},
        {"hidden empty", [](Superblock& s) { s.hidden[0].count = 0; }},
        {"hidden end", [](Superblock& s) { s.hidden[1].count = 0xffffffff; }},
        {"hidden start", [](Superblock& s) { s.hidden[1].start = ~0ULL; }},
        {"label not hidden", [](Superblock& s) { s.label_sector[1] = 100; }},
        {"labels order", [](Superblock& s) { s.label_sector[1] = 0; }},
        {"no labels", [](Superblock& s) { s.label_sector.clear(); }},
        {"deciding sector", [](Superblock& s) { s.deciding_sector = 999; }},
        {"bare with labels", [](Superblock& s) { s.head.flags = REMAP_FLAG_BARE; }},
        {"no main", [](Superblock& s) { s.members[0].role = REMAP_ROLE_SPARE; }},
        {"member uuid", [](Superblock& s) { s.head.member_uuid.bytes[0] ^= 1; }},
        {"partner uuid", [](Superblock& s) { s.head.partner_uuid.bytes[0] ^= 1; }},
    };

    REQUIRE_FALSE(check_superblock(good));
    CHECK(huge > 0);
    for (const auto& [name, change] : changes) {
        Superblock bad = good;
        change(bad);
        INFO(name);
        const auto problem = check_superblock(bad);
        REQUIRE(problem);
        CHECK_FALSE(problem->field.empty());
        CHECK_FALSE(problem->expected.empty());
        const auto decoded = decode_superblock(encode_superblock(bad, 0), bad.sb_sector[0]);
        CHECK(decoded.verdict == Verdict::implausible);
    }
}

TEST_CASE("counts that exceed their lists are seen before the lists are read") {
    const SampleSet set;

    for (const std::size_t offset : {136U, 137U, 138U, 139U}) {
        auto bytes = encode_superblock(set.superblock, 0);
        bytes.at(offset) = 255;
        // Sealed anew, so that the checksum is right.
        relocate_superblock(bytes, 0, 8);
        CHECK(decode_superblock(bytes, 8).verdict == Verdict::implausible);
    }
}

TEST_CASE("lists and texts that do not fit are refused, not cut") {
    SampleSet set;

    SECTION("hidden") {
        set.superblock.hidden.resize(65);
    }
    SECTION("labels") {
        set.superblock.label_sector.resize(17);
    }
    SECTION("members") {
        set.superblock.members.resize(9);
    }
    SECTION("segments") {
        set.superblock.segments.resize(9);
    }
    SECTION("label") {
        set.superblock.label = std::string(65, 'x');
    }
    SECTION("serial") {
        set.superblock.members[0].serial = std::string(57, 'x');
    }
    CHECK_THROWS_AS(encode_superblock(set.superblock, 0), Error);
}

TEST_CASE("a text as long as its field comes back whole") {
    SampleSet set;

    set.superblock.label = std::string(64, 'x');
    const auto decoded = decode_superblock(encode_superblock(set.superblock, 0), 8);
    REQUIRE(decoded.valid());
    CHECK(decoded.value.label == std::string(64, 'x'));
}

TEST_CASE("impossible entries are named") {
    const SampleSet set;
    const Superblock& sb = set.superblock;
    const auto mapped = [](std::uint64_t block) {
        return Entry::make(REMAP_ENTRY_MAPPED, block, REMAP_CAUSE_WRITE, 5, 1, 1);
    };
    const auto field = [&](std::uint64_t slot, const Entry& entry) {
        const auto problem = check_entry(sb, slot, entry);
        return problem ? problem->field : std::string();
    };
    const std::uint64_t reserved = sb.sb_sector[1] - sb.segment().data_start;

    CHECK(field(5, Entry{}).empty());
    CHECK(field(5, mapped(4095)).empty());
    CHECK(field(5, mapped(4096)) == "main block");
    CHECK(field(5, Entry{0, 1}) == "free entry");
    CHECK(field(5, Entry{1ULL << 56, 0}) == "free entry");
    CHECK(field(5, Entry{4ULL << 48, 0}) == "state");
    CHECK(field(reserved, mapped(1)) == "slot under a superblock");
    CHECK(field(reserved + 7, mapped(1)) == "slot under a superblock");
    CHECK(field(reserved + 8, mapped(1)).empty());
    CHECK(field(reserved, Entry::make(REMAP_ENTRY_BAD, 1, REMAP_CAUSE_SLOT, 5, 1, 1)).empty());
    CHECK(field(sb.segment().nr_slots, mapped(1)) == "entry beyond the last slot");
}

TEST_CASE("sequences are compared as serial numbers") {
    CHECK(remap_seq_newer(2, 1) != 0);
    CHECK(remap_seq_newer(1, 2) == 0);
    CHECK(remap_seq_newer(0, 0xffffff) != 0);
    CHECK(remap_seq_newer(5, 5) == 0);
    CHECK(remap_seq_newer(0x800000, 0) == 0);
    CHECK(remap_seq_newer(0, 0x800000) == 0);
}

TEST_CASE("UUIDs") {
    const std::string text = "5f0c3a52-9d1e-4b7a-8c65-0a1b2c3d4e5f";

    REQUIRE(Uuid::parse(text));
    CHECK(Uuid::parse(text)->str() == text);
    CHECK(Uuid::parse("5F0C3A52-9D1E-4B7A-8C65-0A1B2C3D4E5F") == Uuid::parse(text));
    CHECK_FALSE(Uuid::parse(""));
    CHECK_FALSE(Uuid::parse(text + "0"));
    CHECK_FALSE(Uuid::parse("5f0c3a52x9d1e-4b7a-8c65-0a1b2c3d4e5f"));
    CHECK_FALSE(Uuid::parse("5g0c3a52-9d1e-4b7a-8c65-0a1b2c3d4e5f"));
    CHECK(Uuid::random() != Uuid::random());
    CHECK((Uuid::random().bytes[6] >> 4) == 4);
    CHECK((Uuid::random().bytes[8] >> 6) == 2);
    CHECK(Uuid{}.is_null());
}
