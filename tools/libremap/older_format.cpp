// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/older_format.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint32_t dmr4_magic = 0x444d5234;
constexpr std::uint32_t dmr4_version = 4;
constexpr std::size_t dmr4_table = 312;
constexpr std::size_t dmr4_entry = 40;
constexpr std::uint64_t dmr4_capacity = 2048;
constexpr std::uint32_t script_structure_size = 2048;
constexpr std::string_view dmremap3_magic = "DMREMAP3";
constexpr std::size_t dmremap3_table = 4096;
constexpr std::size_t dmremap3_entry = 16;
constexpr std::uint64_t nanoseconds = 1000000000;

/// A little-endian number at an offset that the caller knows to be inside.
template <typename T>
T number_at(ConstBytes bytes, std::size_t offset) {
    T value = 0;

    for (std::size_t i = 0; i < sizeof(T); i++)
        value = static_cast<T>(value | static_cast<T>(static_cast<T>(bytes[offset + i]) << 8 * i));
    return value;
}

std::string hex(std::uint64_t value) {
    return cat("0x", std::hex, value);
}

/// The older project's CRC: zlib's polynomial, but started with zero and not inverted.
std::uint32_t plain_crc(std::uint32_t crc, ConstBytes bytes) {
    return ~static_cast<std::uint32_t>(
        crc32(~crc & 0xffffffffU, bytes.data(), static_cast<uInt>(bytes.size())));
}

OlderCopy refuse(OlderCopy copy, Verdict verdict, FieldProblem problem) {
    copy.verdict = verdict;
    copy.problem = std::move(problem);
    return copy;
}

}  // namespace

const char* older_kind_name(OlderKind kind) {
    switch (kind) {
        case OlderKind::dmr4:
            return "DMR4";
        case OlderKind::script:
            return "DMR4 of the setup script";
        default:
            return "DMREMAP3";
    }
}

OlderCopy decode_dmr4(ConstBytes bytes, std::uint64_t sector) {
    OlderCopy copy;

    copy.kind = OlderKind::dmr4;
    copy.sector = sector;
    if (bytes.size() < dmr4_size || number_at<std::uint32_t>(bytes, 0) != dmr4_magic)
        return copy;
    bytes = bytes.first(dmr4_size);
    const auto size = number_at<std::uint32_t>(bytes, 32);
    // The script's headers have the same magic.
    if (size == script_structure_size)
        return copy;
    const auto found = number_at<std::uint32_t>(bytes, 24);
    const std::uint32_t wanted = plain_crc(plain_crc(0, bytes.first(24)), bytes.subspan(28));
    if (found != wanted)
        return refuse(copy, Verdict::bad_crc, {"crc", hex(wanted), hex(found)});
    if (size != dmr4_size)
        return refuse(copy, Verdict::implausible, {"size", cat(dmr4_size), cat(size)});
    if (const auto version = number_at<std::uint32_t>(bytes, 4); version != dmr4_version)
        return refuse(copy, Verdict::implausible, {"version", cat(dmr4_version), cat(version)});
    copy.sequence = number_at<std::uint64_t>(bytes, 8);
    copy.time = number_at<std::uint64_t>(bytes, 16);
    copy.main_size = number_at<std::uint64_t>(bytes, 120);
    copy.spare_size = number_at<std::uint64_t>(bytes, 128);
    copy.capacity = dmr4_capacity;
    const auto count = number_at<std::uint32_t>(bytes, 296);
    if (count > dmr4_capacity)
        return refuse(copy, Verdict::implausible,
                      {"entries", cat("at most ", dmr4_capacity), cat(count)});
    for (std::size_t i = 0; i < count; i++) {
        const ConstBytes raw = bytes.subspan(dmr4_table + i * dmr4_entry, dmr4_entry);
        copy.entries.push_back({number_at<std::uint64_t>(raw, 0), number_at<std::uint64_t>(raw, 8),
                                number_at<std::uint64_t>(raw, 16) / nanoseconds,
                                number_at<std::uint16_t>(raw, 34)});
    }
    copy.verdict = Verdict::current;
    return copy;
}

OlderCopy decode_script(ConstBytes bytes, std::uint64_t sector) {
    OlderCopy copy;

    copy.kind = OlderKind::script;
    copy.sector = sector;
    if (bytes.size() < script_size || number_at<std::uint32_t>(bytes, 0) != dmr4_magic ||
        number_at<std::uint32_t>(bytes, 32) != script_structure_size)
        return copy;
    copy.sequence = number_at<std::uint64_t>(bytes, 8);
    copy.time = number_at<std::uint64_t>(bytes, 16);
    copy.main_size = number_at<std::uint64_t>(bytes, 114);
    copy.spare_size = number_at<std::uint64_t>(bytes, 122);
    copy.verdict = Verdict::current;
    if (const auto version = number_at<std::uint32_t>(bytes, 4); version != dmr4_version)
        return refuse(copy, Verdict::implausible, {"version", cat(dmr4_version), cat(version)});
    return copy;
}

OlderCopy decode_dmremap3(ConstBytes bytes) {
    OlderCopy copy;

    copy.kind = OlderKind::dmremap3;
    if (bytes.size() < dmremap3_size ||
        !std::equal(dmremap3_magic.begin(), dmremap3_magic.end(), bytes.begin()))
        return copy;
    copy.time = number_at<std::uint64_t>(bytes, 24);
    copy.capacity = (dmremap3_size - dmremap3_table) / dmremap3_entry;
    // The count is not of use: it was written as what fits, not as what is there.
    for (std::size_t i = 0; i < copy.capacity; i++) {
        const ConstBytes raw = bytes.subspan(dmremap3_table + i * dmremap3_entry, dmremap3_entry);
        const OlderEntry entry{number_at<std::uint64_t>(raw, 0), number_at<std::uint64_t>(raw, 8),
                               0, 0};
        if (entry.original != 0 || entry.spare != 0)
            copy.entries.push_back(entry);
    }
    copy.verdict = Verdict::current;
    return copy;
}

namespace {

/// Sectors `from` on, as far as the device goes; zeroes where they cannot be read. The first error.
int read_some(BlockIo& spare, std::uint64_t from, std::vector<std::uint8_t>& bytes) {
    int error = 0;

    if (spare.try_read(from, bytes) == 0)
        return 0;
    for (std::size_t i = 0; i < bytes.size() / sector_size; i++) {
        const Bytes sector = Bytes(bytes).subspan(i * sector_size, sector_size);
        if (const int e = spare.try_read(from + i, sector)) {
            std::fill(sector.begin(), sector.end(), std::uint8_t{0});
            error = error ? error : e;
        }
    }
    return error;
}

bool room_for(const BlockIo& spare, std::uint64_t sector, std::uint64_t sectors) {
    return sector <= spare.size() && spare.size() - sector >= sectors;
}

void add_dmr4(BlockIo& spare, OlderSpare& older) {
    constexpr std::uint64_t sectors = (dmr4_size + sector_size - 1) / sector_size;
    std::vector<std::uint8_t> bytes(sectors * sector_size);

    for (const std::uint64_t place : dmr4_places) {
        if (!room_for(spare, place, sectors))
            continue;
        const int error = read_some(spare, place, bytes);
        OlderCopy copy = decode_dmr4(bytes, place);
        if (error)
            copy = refuse(copy, Verdict::unreadable, {"read", "84288 bytes", std::strerror(error)});
        older.copies.push_back(std::move(copy));
    }
}

void add_script(BlockIo& spare, OlderSpare& older) {
    std::vector<std::uint8_t> bytes(script_size);

    for (const std::uint64_t place : script_places) {
        if (!room_for(spare, place, 1) || spare.try_read(place, bytes) != 0)
            continue;
        OlderCopy copy = decode_script(bytes, place);
        if (copy.verdict != Verdict::absent)
            older.copies.push_back(std::move(copy));
    }
}

void add_dmremap3(BlockIo& spare, OlderSpare& older) {
    std::vector<std::uint8_t> bytes(dmremap3_size);

    if (!room_for(spare, 0, dmremap3_reserved))
        return;
    const int error = read_some(spare, 0, bytes);
    OlderCopy copy = decode_dmremap3(bytes);
    if (copy.verdict == Verdict::absent)
        return;
    if (error)
        copy = refuse(copy, Verdict::unreadable, {"read", "8192 bytes", std::strerror(error)});
    older.copies.push_back(std::move(copy));
}

bool carries_table(const OlderCopy& copy) {
    return copy.kind != OlderKind::script && copy.verdict == Verdict::current;
}

/// Of the valid copies the one with the highest sequence, then the latest, as the older module did.
void choose(OlderSpare& older) {
    for (std::size_t i = 0; i < older.copies.size(); i++) {
        const OlderCopy& copy = older.copies[i];
        const OlderCopy* best = older.best();
        if (!carries_table(copy))
            continue;
        if (!best || copy.sequence > best->sequence ||
            (copy.sequence == best->sequence && copy.time > best->time))
            older.winner = static_cast<int>(i);
    }
    const OlderCopy* best = older.best();
    for (OlderCopy& copy : older.copies) {
        if (!best || !carries_table(copy) || copy.entries == best->entries)
            continue;
        older.disagree = true;
        copy.verdict = copy.sequence < best->sequence ? Verdict::stale : Verdict::conflict;
        copy.problem = {"entries", cat("those of the copy at sector ", best->sector), "others"};
    }
}

}  // namespace

std::optional<OlderSpare> read_older(BlockIo& spare) {
    OlderSpare older;

    add_dmremap3(spare, older);
    const bool is_dmremap3 = !older.copies.empty();
    if (!is_dmremap3) {
        add_dmr4(spare, older);
        add_script(spare, older);
    }
    const auto has = [&older](OlderKind kind) {
        return std::any_of(older.copies.begin(), older.copies.end(), [kind](const OlderCopy& copy) {
            return copy.kind == kind && copy.verdict != Verdict::absent &&
                   copy.verdict != Verdict::unreadable;
        });
    };
    if (is_dmremap3)
        older.kind = OlderKind::dmremap3;
    else if (has(OlderKind::dmr4))
        older.kind = OlderKind::dmr4;
    else if (has(OlderKind::script))
        older.kind = OlderKind::script;
    else
        return std::nullopt;
    choose(older);
    return older;
}

std::optional<OlderKind> recognise_older(BlockIo& spare) {
    std::vector<std::uint8_t> bytes(sector_size);
    std::optional<OlderKind> kind;
    const auto look = [&](std::uint64_t place) {
        if (!room_for(spare, place, 1) || spare.try_read(place, bytes) != 0)
            return;
        if (place == 0 && std::equal(dmremap3_magic.begin(), dmremap3_magic.end(), bytes.begin()))
            kind = OlderKind::dmremap3;
        if (kind == OlderKind::dmr4 || number_at<std::uint32_t>(bytes, 0) != dmr4_magic)
            return;
        // A damaged one is one all the same: nobody is to overwrite it by mistake.
        kind = number_at<std::uint32_t>(bytes, 32) == script_structure_size ? OlderKind::script
                                                                            : OlderKind::dmr4;
    };

    for (const std::uint64_t place : dmr4_places)
        look(place);
    for (const std::uint64_t place : script_places)
        look(place);
    return kind;
}

std::vector<std::string> older_limits(const OlderSpare& older) {
    std::vector<std::string> limits;
    const OlderCopy* best = older.best();

    if (older.kind == OlderKind::script) {
        limits.emplace_back(
            "The setup script writes a header without a table: whether anything was remapped is "
            "not recorded.");
        return limits;
    }
    limits.emplace_back("An entry does not say how many sectors it stands for.");
    limits.emplace_back(
        "An entry does not say whether anything was ever written to its spare sector.");
    if (older.kind == OlderKind::dmr4)
        limits.emplace_back(
            "Remaps of the last 30 seconds before a power cut, and all that did not fit into 2048 "
            "entries, were never written.");
    else
        limits.emplace_back(
            "The checksum can never verify, and the header was written over the main sector of the "
            "first entry.");
    if (best && older.kind == OlderKind::dmr4 && best->entries.size() == best->capacity)
        limits.emplace_back("The table is full: further remaps, if any, were dropped.");
    if (older.disagree)
        limits.emplace_back(
            "Copies hold different entries. Their sequence starts again with every load of the "
            "older module, so the one with the highest need not be the newest.");
    if (std::any_of(older.copies.begin(), older.copies.end(),
                    [](const OlderCopy& c) { return c.kind == OlderKind::script; }) &&
        older.kind == OlderKind::dmr4)
        limits.emplace_back(
            "The setup script was run on this spare afterwards and wrote over five of its "
            "sectors.");
    return limits;
}

Exit show_older(BlockIo& spare, const OlderSpare& older, Emitter& out) {
    const OlderCopy* best = older.best();
    bool damaged = best == nullptr || older.disagree;

    out.text("device", spare.name());
    out.quantity("size", spare.size(), "sectors");
    out.text("role", "spare of the older project");
    out.text("format", older_kind_name(older.kind));
    out.begin_list("copies");
    for (const OlderCopy& copy : older.copies) {
        damaged |= copy.verdict != Verdict::current;
        out.begin_object("");
        out.text("format", older_kind_name(copy.kind));
        out.number("sector", copy.sector);
        out.text("verdict", verdict_name(copy.verdict));
        if (copy.verdict != Verdict::absent && copy.verdict != Verdict::bad_crc) {
            out.number("sequence", copy.sequence);
            out.time("time", copy.time);
            out.number("main_size", copy.main_size);
            out.number("spare_size", copy.spare_size);
            out.number("entries", copy.entries.size());
        }
        if (!copy.problem.field.empty()) {
            out.text("field", copy.problem.field);
            out.text("expected", copy.problem.expected);
            out.text("found", copy.problem.found);
        }
        out.end_object();
    }
    out.end_list();
    out.begin_list("entries");
    for (const OlderEntry& entry : best ? best->entries : std::vector<OlderEntry>{}) {
        out.begin_object("");
        out.number("main_sector", entry.original);
        out.number("spare_sector", entry.spare);
        out.number("flags", entry.flags);
        out.time("time", entry.time);
        out.end_object();
    }
    out.end_list();
    out.begin_list("cannot_tell");
    for (const std::string& limit : older_limits(older))
        out.text("", limit);
    out.end_list();
    out.finish();
    return damaged ? Exit::damage : Exit::ok;
}

}  // namespace remap
