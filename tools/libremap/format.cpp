// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/format.hpp"

#include <endian.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <ios>
#include <limits>

#include "libremap/crc.hpp"
#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::size_t head_crc_offset = offsetof(remap_head, crc);
constexpr std::size_t table_crc_offset = offsetof(remap_table_block, crc);

template <typename Raw>
Raw raw_from(ConstBytes bytes) {
    Raw raw;
    std::memcpy(&raw, bytes.data(), sizeof(raw));
    return raw;
}

Uuid uuid_from(const std::uint8_t (&bytes)[REMAP_UUID_SIZE]) {
    Uuid uuid;
    std::memcpy(uuid.bytes.data(), bytes, sizeof(bytes));
    return uuid;
}

void put_uuid(std::uint8_t (&bytes)[REMAP_UUID_SIZE], const Uuid& uuid) {
    std::memcpy(bytes, uuid.bytes.data(), sizeof(bytes));
}

template <std::size_t size>
std::string text_from(const char (&field)[size]) {
    return {field, strnlen(field, size)};
}

template <std::size_t size>
void put_text(char (&field)[size], const std::string& text, const char* name) {
    if (text.size() > size)
        throw Error(Exit::usage, cat(name, ": longer than ", size, " bytes: ", text));
    std::memcpy(field, text.data(), text.size());
}

std::string hex(std::uint64_t value) {
    return cat("0x", std::hex, value);
}

Head head_from(const remap_head& raw) {
    Head head;

    head.version = le32toh(raw.version);
    head.role = raw.role;
    head.copy = raw.copy;
    head.state = raw.state;
    head.block_shift = raw.block_shift;
    head.flags = le32toh(raw.flags);
    head.compat = le64toh(raw.compat);
    head.ro_compat = le64toh(raw.ro_compat);
    head.incompat = le64toh(raw.incompat);
    head.generation = le64toh(raw.generation);
    head.set_uuid = uuid_from(raw.set_uuid);
    head.nonce = le64toh(raw.nonce);
    head.position = le64toh(raw.position);
    head.member_uuid = uuid_from(raw.member_uuid);
    head.partner_uuid = uuid_from(raw.partner_uuid);
    return head;
}

void put_head(remap_head& raw, const Head& head, const char* magic) {
    std::memcpy(raw.magic, magic, REMAP_MAGIC_SIZE);
    raw.version = htole32(head.version);
    raw.role = head.role;
    raw.copy = head.copy;
    raw.state = head.state;
    raw.block_shift = head.block_shift;
    raw.flags = htole32(head.flags);
    raw.compat = htole64(head.compat);
    raw.ro_compat = htole64(head.ro_compat);
    raw.incompat = htole64(head.incompat);
    raw.generation = htole64(head.generation);
    put_uuid(raw.set_uuid, head.set_uuid);
    raw.nonce = htole64(head.nonce);
    raw.position = htole64(head.position);
    put_uuid(raw.member_uuid, head.member_uuid);
    put_uuid(raw.partner_uuid, head.partner_uuid);
}

std::uint32_t head_seed(const Head& head) {
    return crc_seed(head.set_uuid, head.nonce);
}

/// Writes the checksum into bytes that begin with a remap_head.
void seal(Bytes bytes, std::uint32_t seed) {
    const std::uint32_t crc = htole32(crc_structure(seed, bytes, head_crc_offset));
    std::memcpy(bytes.data() + head_crc_offset, &crc, sizeof(crc));
}

bool magic_is(ConstBytes bytes, const char* magic, std::size_t size) {
    return std::memcmp(bytes.data(), magic, size) == 0;
}

template <typename T>
Decoded<T> reject(Verdict verdict, std::string field, std::string expected, std::string found) {
    Decoded<T> result;
    result.verdict = verdict;
    result.problem = {std::move(field), std::move(expected), std::move(found)};
    return result;
}

/// The first bytes of what lies where a magic was expected.
std::string show_bytes(ConstBytes bytes) {
    static const char digits[] = "0123456789abcdef";
    std::string text;

    if (std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; }))
        return "zeroes";
    for (const std::uint8_t byte : bytes.first(8)) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

struct HeadRules {
    const char* magic;
    remap_role role;
    std::uint64_t sector;
};

/// Is this a valid label or filler, only not what was expected here?
bool is_label(ConstBytes bytes) {
    const auto head = head_from(raw_from<remap_head>(bytes));
    const auto raw = raw_from<remap_head>(bytes);
    return head.role == REMAP_ROLE_MAIN &&
           crc_structure(head_seed(head), bytes.first(REMAP_LABEL_SIZE), head_crc_offset) ==
               le32toh(raw.crc);
}

/// What is common to everything that begins with a remap_head, in the order in which trust grows.
template <typename T>
Decoded<T> check_head(ConstBytes bytes, const HeadRules& rules) {
    if (!magic_is(bytes, rules.magic, REMAP_MAGIC_SIZE))
        return reject<T>(
            Verdict::absent, "magic",
            show_bytes({reinterpret_cast<const std::uint8_t*>(rules.magic), REMAP_MAGIC_SIZE}),
            show_bytes(bytes.first(REMAP_MAGIC_SIZE)));

    const auto raw = raw_from<remap_head>(bytes);
    const Head head = head_from(raw);
    const std::uint32_t wanted = crc_structure(head_seed(head), bytes, head_crc_offset);
    Decoded<T> result;

    if (wanted != le32toh(raw.crc)) {
        if (rules.role == REMAP_ROLE_SPARE && is_label(bytes))
            result =
                reject<T>(Verdict::wrong_role, "role", role_name(rules.role), role_name(head.role));
        else
            result = reject<T>(Verdict::bad_crc, "crc", hex(wanted), hex(le32toh(raw.crc)));
    } else if (head.version > REMAP_VERSION) {
        result =
            reject<T>(Verdict::newer_version, "version", cat(REMAP_VERSION), cat(head.version));
    } else if (head.version != REMAP_VERSION) {
        result = reject<T>(Verdict::implausible, "version", cat(REMAP_VERSION), cat(head.version));
    } else if ((head.incompat & ~REMAP_INCOMPAT_KNOWN) != 0) {
        result = reject<T>(Verdict::newer_version, "incompat features", hex(REMAP_INCOMPAT_KNOWN),
                           hex(head.incompat));
    } else if (head.role != rules.role) {
        result =
            reject<T>(Verdict::wrong_role, "role", role_name(rules.role), role_name(head.role));
    } else if (head.position != rules.sector) {
        result = reject<T>(Verdict::misplaced, "position", cat("sector ", rules.sector),
                           cat("sector ", head.position));
    } else {
        result.verdict = Verdict::current;
    }
    result.value.head = head;
    return result;
}

std::optional<FieldProblem> problem(std::string field, std::string expected, std::string found) {
    return FieldProblem{std::move(field), std::move(expected), std::move(found)};
}

std::optional<FieldProblem> check_range(const char* field, std::uint64_t value, std::uint64_t least,
                                        std::uint64_t most) {
    if (value >= least && value <= most)
        return std::nullopt;
    return problem(field, least == most ? cat(least) : cat(least, " to ", most), cat(value));
}

/// A run of sectors of the spare, for the check that nothing overlaps.
struct Extent {
    std::string name;
    std::uint64_t start = 0;
    std::uint64_t length = 0;
    bool superblock = false;
    bool data = false;
};

std::optional<FieldProblem> check_extents(std::vector<Extent> extents, std::uint64_t size) {
    for (const Extent& e : extents) {
        if (e.start % REMAP_SB_SECTORS != 0)
            return problem(e.name, "a multiple of 8 sectors", cat("sector ", e.start));
        if (e.start < REMAP_SB_SECTORS || e.start > size || e.length > size - e.start)
            return problem(e.name, cat("inside sectors 8 to ", size),
                           cat("sector ", e.start, ", ", e.length, " long"));
    }
    std::sort(extents.begin(), extents.end(),
              [](const Extent& a, const Extent& b) { return a.start < b.start; });
    for (std::size_t i = 0; i < extents.size(); i++) {
        for (std::size_t j = i + 1; j < extents.size(); j++) {
            const Extent& a = extents[i];
            const Extent& b = extents[j];
            if (a.start + a.length <= b.start)
                break;
            // Slots under a superblock are reserved, so these may overlap.
            if ((a.superblock && b.data) || (a.data && b.superblock))
                continue;
            return problem(b.name, cat("beyond the end of ", a.name, " at ", a.start + a.length),
                           cat("sector ", b.start));
        }
    }
    return std::nullopt;
}

std::optional<FieldProblem> check_segment(const Superblock& sb) {
    const Segment& s = sb.segment();

    if (s.member >= sb.members.size() || sb.members[s.member].uuid != sb.head.member_uuid)
        return problem("segment member", "the number of this spare", cat(+s.member));
    if (auto p = check_range("table copies", s.nr_copies, REMAP_MIN_TABLE_COPIES,
                             REMAP_MAX_TABLE_COPIES))
        return p;
    if (auto p = check_range("first slot", s.first_slot, 0, 0))
        return p;
    if (auto p = check_range("slots", s.nr_slots, 1, REMAP_MAX_SLOTS))
        return p;
    if (auto p = check_range("table length", sb.table_length, 1, s.table_blocks()))
        return p;
    const unsigned int mask = (1U << s.nr_copies) - 1;
    if (sb.live_copies == 0 || (sb.live_copies & ~mask) != 0)
        return problem("live copies", cat("some of ", hex(mask)), hex(sb.live_copies));

    std::vector<Extent> extents;
    for (unsigned int i = 0; i < REMAP_SB_COPIES; i++)
        extents.push_back({cat("superblock ", i), sb.sb_sector[i], REMAP_SB_SECTORS, true, false});
    for (unsigned int i = 0; i < s.nr_copies; i++)
        extents.push_back({cat("table copy ", i), s.table_start[i],
                           s.table_blocks() * REMAP_TABLE_BLOCK_SECTORS, false, false});
    extents.push_back({"data", s.data_start, s.nr_slots * sb.block_sectors(), false, true});
    return check_extents(std::move(extents), sb.spare_size);
}

std::optional<FieldProblem> check_hidden(const Superblock& sb) {
    std::uint64_t next = 0;

    for (const Hidden& h : sb.hidden) {
        if (h.start < next)
            return problem("hidden extent", cat("at block ", next, " or above"), cat(h.start));
        if (h.count == 0 || h.start >= sb.main_blocks() || h.count > sb.main_blocks() - h.start)
            return problem("hidden extent", cat("inside blocks 0 to ", sb.main_blocks()),
                           cat("block ", h.start, ", ", h.count, " long"));
        next = h.start + h.count;
    }
    // The kernel's bound: more than this is not hidden by any adoption, and would only cost memory.
    constexpr std::uint64_t most = 0x100000;
    return check_range("hidden blocks", sb.hidden_blocks(), 0,
                       std::min(most, sb.segment().nr_slots));
}

std::optional<FieldProblem> check_labels(const Superblock& sb) {
    std::uint64_t next = 0;

    if (sb.is_bare()) {
        if (!sb.label_sector.empty() || !sb.hidden.empty() || sb.deciding_sector != 0)
            return problem("labels and hidden blocks of a bare set", "none", "some");
        return std::nullopt;
    }
    if (sb.label_sector.empty())
        return problem("labels", "at least one", "none");
    for (const std::uint64_t sector : sb.label_sector) {
        if (sector < next)
            return problem("label place", cat("sector ", next, " or above"), cat(sector));
        if (sector % sb.block_sectors() != 0 || !sb.block_hidden(sector / sb.block_sectors()))
            return problem("label place", "the start of a hidden block", cat("sector ", sector));
        next = sector + 1;
    }
    if (!sb.block_hidden(sb.deciding_sector / sb.block_sectors()))
        return problem("deciding sector", "in a hidden block", cat("sector ", sb.deciding_sector));
    return std::nullopt;
}

std::optional<FieldProblem> check_members(const Superblock& sb) {
    const Member* spare = sb.member(REMAP_ROLE_SPARE);
    const Member* main = sb.member(REMAP_ROLE_MAIN);

    if (!spare || !main)
        return problem("members", "a main and a spare", !main ? "no main" : "no spare");
    if (spare->uuid != sb.head.member_uuid)
        return problem("member UUID", spare->uuid.str(), sb.head.member_uuid.str());
    if (main->uuid != sb.head.partner_uuid)
        return problem("partner UUID", main->uuid.str(), sb.head.partner_uuid.str());
    if (main->uuid == spare->uuid || main->uuid.is_null() || spare->uuid.is_null())
        return problem("member UUIDs", "two different ones", main->uuid.str());
    return std::nullopt;
}

std::optional<FieldProblem> check_numbers(const Superblock& sb) {
    if (sb.head.set_uuid.is_null())
        return problem("set UUID", "one", "none");
    if (sb.head.block_shift != 9 && sb.head.block_shift != 12)
        return problem("block shift", "9 or 12", cat(+sb.head.block_shift));
    if (auto p = check_range("state", sb.head.state, REMAP_STATE_COMPLETE, REMAP_STATE_MIGRATING))
        return p;
    if ((sb.head.flags & ~REMAP_FLAGS_KNOWN) != 0)
        return problem("flags", cat("some of ", hex(REMAP_FLAGS_KNOWN)), hex(sb.head.flags));
    if (auto p = check_range("copy", sb.head.copy, 0, REMAP_SB_COPIES - 1))
        return p;
    if (sb.main_size % sb.block_sectors() != 0)
        return problem("main size", cat("a multiple of ", sb.block_sectors()), cat(sb.main_size));
    if (auto p = check_range("main blocks", sb.main_blocks(), 1, REMAP_MAX_MAIN_BLOCKS))
        return p;
    if (auto p = check_range("spare size", sb.spare_size, REMAP_MIN_SPARE_SECTORS,
                             std::numeric_limits<std::int64_t>::max() / sector_size))
        return p;
    if (auto p = check_range("label epoch", sb.label_epoch, 0, sb.epoch))
        return p;
    return std::nullopt;
}

/// The four counts, which decide how much of the lists may be looked at.
std::optional<FieldProblem> check_counts(const remap_superblock& raw) {
    if (auto p = check_range("members", raw.nr_members, 2, REMAP_MAX_MEMBERS))
        return p;
    if (auto p = check_range("segments", raw.nr_segments, 1, 1))
        return p;
    if (auto p = check_range("hidden extents", raw.nr_hidden, 0, REMAP_MAX_HIDDEN))
        return p;
    return check_range("labels", raw.nr_labels, 0, REMAP_MAX_LABELS);
}

Segment segment_from(const remap_segment& raw) {
    Segment segment;

    segment.member = raw.member;
    segment.nr_copies = raw.nr_copies;
    for (std::size_t i = 0; i < REMAP_MAX_TABLE_COPIES; i++)
        segment.table_start[i] = le64toh(raw.table_start[i]);
    segment.first_slot = le64toh(raw.first_slot);
    segment.nr_slots = le64toh(raw.nr_slots);
    segment.data_start = le64toh(raw.data_start);
    return segment;
}

Member member_from(const remap_member& raw) {
    Member member;

    member.uuid = uuid_from(raw.uuid);
    member.role = raw.role;
    member.state = raw.state;
    member.size = le64toh(raw.size);
    member.wwn = text_from(raw.wwn);
    member.serial = text_from(raw.serial);
    member.partuuid = text_from(raw.partuuid);
    return member;
}

void fields_from(Superblock& sb, const remap_superblock& raw) {
    sb.epoch = le32toh(raw.epoch);
    sb.label_epoch = le32toh(raw.label_epoch);
    sb.live_copies = raw.live_copies;
    sb.main_size = le64toh(raw.main_size);
    sb.spare_size = le64toh(raw.spare_size);
    sb.table_length = le64toh(raw.table_length);
    for (std::size_t i = 0; i < REMAP_SB_COPIES; i++)
        sb.sb_sector[i] = le64toh(raw.sb_sector[i]);
    sb.created = le64toh(raw.created);
    sb.updated = le64toh(raw.updated);
    sb.deciding_sector = le64toh(raw.deciding_sector);
    for (std::size_t i = 0; i < raw.nr_labels; i++)
        sb.label_sector.push_back(le64toh(raw.label_sector[i]));
    sb.label = text_from(raw.label);
    sb.tool = text_from(raw.tool);
    for (std::size_t i = 0; i < raw.nr_hidden; i++)
        sb.hidden.push_back(
            {le64toh(raw.hidden[i].start), le32toh(raw.hidden[i].count), raw.hidden[i].flags});
    for (std::size_t i = 0; i < raw.nr_segments; i++)
        sb.segments.push_back(segment_from(raw.segments[i]));
    for (std::size_t i = 0; i < raw.nr_members; i++)
        sb.members.push_back(member_from(raw.members[i]));
}

void require_at_most(const char* what, std::size_t count, std::size_t most) {
    if (count > most)
        throw Error(Exit::usage, cat("superblock: ", count, " ", what, ", at most ", most, " fit"));
}

void put_lists(remap_superblock& raw, const Superblock& sb) {
    for (std::size_t i = 0; i < sb.label_sector.size(); i++)
        raw.label_sector[i] = htole64(sb.label_sector[i]);
    for (std::size_t i = 0; i < sb.hidden.size(); i++) {
        raw.hidden[i].start = htole64(sb.hidden[i].start);
        raw.hidden[i].count = htole32(sb.hidden[i].count);
        raw.hidden[i].flags = sb.hidden[i].flags;
    }
    for (std::size_t i = 0; i < sb.segments.size(); i++) {
        const Segment& from = sb.segments[i];
        remap_segment& to = raw.segments[i];
        to.member = from.member;
        to.nr_copies = from.nr_copies;
        for (std::size_t c = 0; c < REMAP_MAX_TABLE_COPIES; c++)
            to.table_start[c] = htole64(from.table_start[c]);
        to.first_slot = htole64(from.first_slot);
        to.nr_slots = htole64(from.nr_slots);
        to.data_start = htole64(from.data_start);
    }
    for (std::size_t i = 0; i < sb.members.size(); i++) {
        const Member& from = sb.members[i];
        remap_member& to = raw.members[i];
        put_uuid(to.uuid, from.uuid);
        to.role = from.role;
        to.state = from.state;
        to.size = htole64(from.size);
        put_text(to.wwn, from.wwn, "WWN");
        put_text(to.serial, from.serial, "serial number");
        put_text(to.partuuid, from.partuuid, "PARTUUID");
    }
}

LabelBytes seal_label(const remap_label& raw, const Head& head) {
    LabelBytes bytes;

    std::memcpy(bytes.data(), &raw, sizeof(raw));
    seal(bytes, head_seed(head));
    return bytes;
}

}  // namespace

const char* verdict_name(Verdict verdict) {
    switch (verdict) {
        case Verdict::current:
            return "current";
        case Verdict::stale:
            return "stale";
        case Verdict::dead:
            return "dead";
        case Verdict::conflict:
            return "conflict";
        case Verdict::bad_crc:
            return "bad-crc";
        case Verdict::torn:
            return "torn";
        case Verdict::implausible:
            return "implausible";
        case Verdict::misplaced:
            return "misplaced";
        case Verdict::foreign:
            return "foreign";
        case Verdict::wrong_role:
            return "wrong-role";
        case Verdict::newer_version:
            return "newer-version";
        case Verdict::absent:
            return "absent";
        case Verdict::unreadable:
            return "unreadable";
    }
    return "unknown";
}

std::uint64_t Superblock::hidden_blocks() const {
    std::uint64_t blocks = 0;

    for (const Hidden& h : hidden)
        blocks += h.count;
    return blocks;
}

std::uint32_t Superblock::seed() const {
    return head_seed(head);
}

const Member* Superblock::member(remap_role role) const {
    for (const Member& m : members) {
        if (m.role == role)
            return &m;
    }
    return nullptr;
}

std::uint64_t Superblock::slot_sector(std::uint64_t slot) const {
    return segment().data_start + (slot - segment().first_slot) * block_sectors();
}

bool Superblock::slot_reserved(std::uint64_t slot) const {
    const std::uint64_t start = slot_sector(slot);
    const std::uint64_t end = start + block_sectors();

    return std::any_of(sb_sector.begin(), sb_sector.end(), [&](std::uint64_t place) {
        return start < place + REMAP_SB_SECTORS && place < end;
    });
}

std::uint64_t Superblock::table_sector(std::uint64_t index, unsigned int copy) const {
    return segment().table_start.at(copy) + index * REMAP_TABLE_BLOCK_SECTORS;
}

bool Superblock::block_hidden(std::uint64_t block) const {
    return std::any_of(hidden.begin(), hidden.end(), [block](const Hidden& h) {
        return block >= h.start && block - h.start < h.count;
    });
}

Entry Entry::make(remap_entry_state state, std::uint64_t block, remap_entry_cause cause,
                  std::uint8_t error, std::uint32_t sequence, std::uint32_t time) {
    Entry entry;

    entry.lo = (block & REMAP_ENTRY_BLOCK_MASK) |
               static_cast<std::uint64_t>(state) << REMAP_ENTRY_STATE_SHIFT |
               static_cast<std::uint64_t>(cause) << REMAP_ENTRY_CAUSE_SHIFT;
    entry.hi = (sequence & REMAP_ENTRY_SEQ_MASK) |
               static_cast<std::uint64_t>(error) << REMAP_ENTRY_ERRNO_SHIFT |
               static_cast<std::uint64_t>(time) << REMAP_ENTRY_TIME_SHIFT;
    return entry;
}

SuperblockBytes encode_superblock(const Superblock& sb, unsigned int copy) {
    remap_superblock raw{};
    SuperblockBytes bytes;
    Head head = sb.head;

    require_at_most("members", sb.members.size(), REMAP_MAX_MEMBERS);
    require_at_most("segments", sb.segments.size(), REMAP_MAX_SEGMENTS);
    require_at_most("hidden extents", sb.hidden.size(), REMAP_MAX_HIDDEN);
    require_at_most("labels", sb.label_sector.size(), REMAP_MAX_LABELS);
    head.copy = static_cast<std::uint8_t>(copy);
    head.position = sb.sb_sector.at(copy);
    put_head(raw.head, head, REMAP_MAGIC);
    raw.epoch = htole32(sb.epoch);
    raw.label_epoch = htole32(sb.label_epoch);
    raw.nr_members = static_cast<std::uint8_t>(sb.members.size());
    raw.nr_segments = static_cast<std::uint8_t>(sb.segments.size());
    raw.nr_hidden = static_cast<std::uint8_t>(sb.hidden.size());
    raw.nr_labels = static_cast<std::uint8_t>(sb.label_sector.size());
    raw.live_copies = sb.live_copies;
    raw.main_size = htole64(sb.main_size);
    raw.spare_size = htole64(sb.spare_size);
    raw.table_length = htole64(sb.table_length);
    for (std::size_t i = 0; i < REMAP_SB_COPIES; i++)
        raw.sb_sector[i] = htole64(sb.sb_sector[i]);
    raw.created = htole64(sb.created);
    raw.updated = htole64(sb.updated);
    raw.deciding_sector = htole64(sb.deciding_sector);
    put_text(raw.label, sb.label, "label");
    put_text(raw.tool, sb.tool, "tool version");
    put_lists(raw, sb);
    std::memcpy(bytes.data(), &raw, sizeof(raw));
    seal(bytes, head_seed(head));
    return bytes;
}

void relocate_superblock(SuperblockBytes& bytes, unsigned int copy, std::uint64_t sector) {
    auto raw = raw_from<remap_head>(bytes);

    raw.copy = static_cast<std::uint8_t>(copy);
    raw.position = htole64(sector);
    std::memcpy(bytes.data(), &raw, sizeof(raw));
    seal(bytes, head_seed(head_from(raw)));
}

Decoded<Superblock> decode_superblock(ConstBytes bytes, std::uint64_t sector) {
    auto result = check_head<Superblock>(bytes, {REMAP_MAGIC, REMAP_ROLE_SPARE, sector});

    if (result.verdict != Verdict::current && result.verdict != Verdict::misplaced)
        return result;
    const auto raw = raw_from<remap_superblock>(bytes);
    auto bad = check_counts(raw);
    if (!bad) {
        fields_from(result.value, raw);
        bad = check_superblock(result.value);
    }
    if (bad) {
        result.verdict = Verdict::implausible;
        result.problem = *bad;
    } else if (result.valid() && result.value.sb_sector[result.value.head.copy] != sector) {
        result.verdict = Verdict::misplaced;
        result.problem = {"place of this copy",
                          cat("sector ", result.value.sb_sector[result.value.head.copy]),
                          cat("sector ", sector)};
    }
    return result;
}

std::optional<FieldProblem> check_superblock(const Superblock& sb) {
    if (sb.segments.size() != 1)
        return problem("segments", "1", cat(sb.segments.size()));
    for (auto* check : {check_numbers, check_members, check_segment, check_hidden, check_labels}) {
        if (auto bad = check(sb))
            return bad;
    }
    return std::nullopt;
}

LabelBytes encode_label(const Label& label, unsigned int copy, std::uint64_t sector) {
    remap_label raw{};
    Head head = label.head;

    head.copy = static_cast<std::uint8_t>(copy);
    head.position = sector;
    put_head(raw.head, head, REMAP_MAGIC);
    raw.epoch = htole32(label.epoch);
    raw.main_size = htole64(label.main_size);
    return seal_label(raw, head);
}

Decoded<Label> decode_label(ConstBytes bytes, std::uint64_t sector) {
    bytes = bytes.first(REMAP_LABEL_SIZE);
    auto result = check_head<Label>(bytes, {REMAP_MAGIC, REMAP_ROLE_MAIN, sector});
    const Head& head = result.value.head;

    if (result.verdict == Verdict::bad_crc && head.role == REMAP_ROLE_SPARE) {
        // A superblock's checksum covers more than was given here, so it cannot be verified.
        result.problem = {"role", role_name(REMAP_ROLE_MAIN), role_name(head.role)};
        result.verdict = Verdict::wrong_role;
    }
    if (result.verdict != Verdict::current && result.verdict != Verdict::misplaced)
        return result;
    const auto raw = raw_from<remap_label>(bytes);
    result.value.epoch = le32toh(raw.epoch);
    result.value.main_size = le64toh(raw.main_size);
    auto bad = check_range("state", head.state, REMAP_STATE_COMPLETE, REMAP_STATE_MIGRATING);
    if (!bad && head.block_shift != 9 && head.block_shift != 12)
        bad = problem("block shift", "9 or 12", cat(+head.block_shift));
    if (!bad)
        bad = check_range("copy", head.copy, 0, REMAP_MAX_LABELS - 1);
    if (bad) {
        result.verdict = Verdict::implausible;
        result.problem = *bad;
    }
    return result;
}

LabelBytes encode_filler(const Filler& filler, std::uint64_t sector) {
    remap_label raw{};
    Head head = filler.head;

    head.position = sector;
    put_head(raw.head, head, REMAP_FILLER_MAGIC);
    return seal_label(raw, head);
}

Decoded<Filler> decode_filler(ConstBytes bytes, std::uint64_t sector) {
    return check_head<Filler>(bytes.first(REMAP_LABEL_SIZE),
                              {REMAP_FILLER_MAGIC, REMAP_ROLE_MAIN, sector});
}

Label make_label(const Superblock& sb) {
    const Member* main = sb.member(REMAP_ROLE_MAIN);
    Label label;

    if (!main)
        throw Error(Exit::unrecognised, "superblock: names no main");
    label.head = sb.head;
    label.head.role = REMAP_ROLE_MAIN;
    label.head.flags = 0;
    label.head.copy = 0;
    label.head.position = 0;
    label.head.member_uuid = main->uuid;
    label.head.partner_uuid = sb.head.member_uuid;
    label.epoch = sb.epoch;
    label.main_size = sb.main_size;
    return label;
}

Filler make_filler(const Superblock& sb) {
    Filler filler;

    filler.head = make_label(sb).head;
    filler.head.state = 0;
    filler.head.generation = 0;
    return filler;
}

TableBlockBytes encode_table_block(std::uint32_t seed, const TableHeader& header,
                                   std::span<const Entry> entries) {
    remap_table_block raw{};
    TableBlockBytes bytes;
    std::uint16_t in_use = 0;

    require_at_most("entries in a table block", entries.size(), REMAP_ENTRIES_PER_BLOCK);
    std::memcpy(raw.magic, REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE);
    raw.copy = header.copy;
    raw.segment = header.segment;
    raw.index = htole64(header.index);
    raw.generation = htole64(header.generation);
    raw.position = htole64(header.position);
    for (std::size_t i = 0; i < entries.size(); i++) {
        raw.entries[i].lo = htole64(entries[i].lo);
        raw.entries[i].hi = htole64(entries[i].hi);
        if (!entries[i].is_free())
            in_use++;
    }
    raw.in_use = htole16(in_use);
    std::memcpy(bytes.data(), &raw, sizeof(raw));
    const std::uint32_t crc = htole32(crc_structure(seed, bytes, table_crc_offset));
    std::memcpy(bytes.data() + table_crc_offset, &crc, sizeof(crc));
    return bytes;
}

Decoded<TableHeader> decode_table_header(ConstBytes bytes, std::uint32_t seed, std::uint64_t index,
                                         unsigned int copy, std::uint64_t sector) {
    remap_table_block raw;
    Decoded<TableHeader> result;

    if (!magic_is(bytes, REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE))
        return reject<TableHeader>(
            Verdict::absent, "magic",
            show_bytes(
                {reinterpret_cast<const std::uint8_t*>(REMAP_TABLE_MAGIC), REMAP_TABLE_MAGIC_SIZE}),
            show_bytes(bytes.first(REMAP_TABLE_MAGIC_SIZE)));
    std::memcpy(&raw, bytes.data(), REMAP_TABLE_HEADER_SIZE);
    const std::uint32_t wanted = crc_structure(seed, bytes, table_crc_offset);
    if (wanted != le32toh(raw.crc))
        return reject<TableHeader>(Verdict::bad_crc, "crc", hex(wanted), hex(le32toh(raw.crc)));

    TableHeader& header = result.value;
    header.copy = raw.copy;
    header.segment = raw.segment;
    header.in_use = le16toh(raw.in_use);
    header.index = le64toh(raw.index);
    header.generation = le64toh(raw.generation);
    header.position = le64toh(raw.position);
    result.verdict = Verdict::misplaced;
    if (header.position != sector)
        result.problem = {"position", cat("sector ", sector), cat("sector ", header.position)};
    else if (header.index != index)
        result.problem = {"index", cat(index), cat(header.index)};
    else if (header.copy != copy || header.segment != 0)
        result.problem = {"copy and segment", cat(copy, " and 0"),
                          cat(+header.copy, " and ", +header.segment)};
    else
        result.verdict = Verdict::current;
    return result;
}

void table_entries(ConstBytes bytes, std::span<Entry, REMAP_ENTRIES_PER_BLOCK> to) {
    std::memcpy(to.data(), bytes.data() + REMAP_TABLE_HEADER_SIZE, to.size_bytes());
    if constexpr (std::endian::native != std::endian::little) {
        for (Entry& entry : to) {
            entry.lo = le64toh(entry.lo);
            entry.hi = le64toh(entry.hi);
        }
    }
}

Entry table_entry(ConstBytes bytes, unsigned int i) {
    const auto raw =
        raw_from<remap_entry>(bytes.subspan(REMAP_TABLE_HEADER_SIZE + i * sizeof(remap_entry)));
    return {le64toh(raw.lo), le64toh(raw.hi)};
}

std::optional<FieldProblem> check_entry(const Superblock& sb, std::uint64_t slot,
                                        const Entry& entry) {
    if (entry == Entry{})
        return std::nullopt;
    if (entry.is_free())
        return problem("free entry", "all bits zero", cat(hex(entry.lo), " ", hex(entry.hi)));
    if (slot >= sb.segment().nr_slots)
        return problem("entry beyond the last slot", "all bits zero",
                       cat(hex(entry.lo), " ", hex(entry.hi)));
    if (entry.state() > REMAP_ENTRY_BAD)
        return problem("state", "0 to 3", cat(+entry.state()));
    if (entry.block() >= sb.main_blocks())
        return problem("main block", cat("below ", sb.main_blocks()), cat(entry.block()));
    if (entry.is_live() && sb.slot_reserved(slot))
        return problem("slot under a superblock", "free or bad", entry_state_name(entry.state()));
    return std::nullopt;
}

const char* set_state_name(std::uint8_t state) {
    switch (state) {
        case REMAP_STATE_COMPLETE:
            return "complete";
        case REMAP_STATE_ADOPTING:
            return "adopting";
        case REMAP_STATE_RELEASING:
            return "releasing";
        case REMAP_STATE_MIGRATING:
            return "migrating";
        default:
            return "unknown";
    }
}

const char* entry_state_name(std::uint8_t state) {
    switch (state) {
        case REMAP_ENTRY_FREE:
            return "free";
        case REMAP_ENTRY_MAPPED:
            return "mapped";
        case REMAP_ENTRY_LOST:
            return "lost";
        case REMAP_ENTRY_BAD:
            return "bad";
        default:
            return "unknown";
    }
}

const char* entry_cause_name(std::uint8_t cause) {
    switch (cause) {
        case REMAP_CAUSE_NONE:
            return "none";
        case REMAP_CAUSE_WRITE:
            return "write-error";
        case REMAP_CAUSE_MESSAGE:
            return "message";
        case REMAP_CAUSE_IMPORT:
            return "import";
        case REMAP_CAUSE_MIGRATION:
            return "migration";
        case REMAP_CAUSE_HIDDEN:
            return "hidden";
        case REMAP_CAUSE_SLOT:
            return "slot-failed";
        case REMAP_CAUSE_UNTESTED:
            return "untested";
        default:
            return "unknown";
    }
}

const char* role_name(std::uint8_t role) {
    switch (role) {
        case REMAP_ROLE_SPARE:
            return "spare";
        case REMAP_ROLE_MAIN:
            return "main";
        default:
            return "unknown";
    }
}

}  // namespace remap
