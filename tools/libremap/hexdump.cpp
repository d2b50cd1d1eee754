// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/hexdump.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "libremap/crc.hpp"
#include "libremap/metadata.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

enum class Shown { bytes, number, hex, generation, uuid, text, time };

struct Field {
    const char* name;
    std::size_t offset;
    std::size_t size;
    Shown shown;
};

#define REMAP_FIELD(structure, member, shown)                                         \
    Field {                                                                           \
#member, offsetof(structure, member), sizeof(structure::member), Shown::shown \
    }

constexpr std::array head_fields = {
    REMAP_FIELD(remap_head, magic, text),         REMAP_FIELD(remap_head, crc, hex),
    REMAP_FIELD(remap_head, version, number),     REMAP_FIELD(remap_head, role, number),
    REMAP_FIELD(remap_head, copy, number),        REMAP_FIELD(remap_head, state, number),
    REMAP_FIELD(remap_head, block_shift, number), REMAP_FIELD(remap_head, flags, hex),
    REMAP_FIELD(remap_head, compat, hex),         REMAP_FIELD(remap_head, ro_compat, hex),
    REMAP_FIELD(remap_head, incompat, hex),       REMAP_FIELD(remap_head, generation, generation),
    REMAP_FIELD(remap_head, set_uuid, uuid),      REMAP_FIELD(remap_head, nonce, hex),
    REMAP_FIELD(remap_head, position, number),    REMAP_FIELD(remap_head, member_uuid, uuid),
    REMAP_FIELD(remap_head, partner_uuid, uuid),
};

constexpr std::array label_fields = {
    REMAP_FIELD(remap_label, epoch, number),
    REMAP_FIELD(remap_label, reserved0, bytes),
    REMAP_FIELD(remap_label, main_size, number),
    REMAP_FIELD(remap_label, reserved1, bytes),
};

constexpr std::array filler_fields = {
    REMAP_FIELD(remap_filler, reserved, bytes),
};

constexpr std::array superblock_fields = {
    REMAP_FIELD(remap_superblock, epoch, number),
    REMAP_FIELD(remap_superblock, label_epoch, number),
    REMAP_FIELD(remap_superblock, nr_members, number),
    REMAP_FIELD(remap_superblock, nr_segments, number),
    REMAP_FIELD(remap_superblock, nr_hidden, number),
    REMAP_FIELD(remap_superblock, nr_labels, number),
    REMAP_FIELD(remap_superblock, live_copies, hex),
    REMAP_FIELD(remap_superblock, reserved0, bytes),
    REMAP_FIELD(remap_superblock, main_size, number),
    REMAP_FIELD(remap_superblock, spare_size, number),
    REMAP_FIELD(remap_superblock, table_length, number),
};

constexpr std::array after_places = {
    REMAP_FIELD(remap_superblock, created, time),
    REMAP_FIELD(remap_superblock, updated, time),
    REMAP_FIELD(remap_superblock, deciding_sector, number),
};

constexpr std::array after_labels = {
    REMAP_FIELD(remap_superblock, label, text),
    REMAP_FIELD(remap_superblock, tool, text),
    REMAP_FIELD(remap_superblock, reserved1, bytes),
};

constexpr std::array hidden_fields = {
    REMAP_FIELD(remap_hidden, start, number),
    REMAP_FIELD(remap_hidden, count, number),
    REMAP_FIELD(remap_hidden, flags, hex),
    REMAP_FIELD(remap_hidden, reserved, bytes),
};

constexpr std::array segment_fields = {
    REMAP_FIELD(remap_segment, member, number),
    REMAP_FIELD(remap_segment, nr_copies, number),
    REMAP_FIELD(remap_segment, reserved, bytes),
    Field{"table_start[0]", offsetof(remap_segment, table_start), 8, Shown::number},
    Field{"table_start[1]", offsetof(remap_segment, table_start) + 8, 8, Shown::number},
    Field{"table_start[2]", offsetof(remap_segment, table_start) + 16, 8, Shown::number},
    Field{"table_start[3]", offsetof(remap_segment, table_start) + 24, 8, Shown::number},
    REMAP_FIELD(remap_segment, first_slot, number),
    REMAP_FIELD(remap_segment, nr_slots, number),
    REMAP_FIELD(remap_segment, data_start, number),
};

constexpr std::array member_fields = {
    REMAP_FIELD(remap_member, uuid, uuid),       REMAP_FIELD(remap_member, role, number),
    REMAP_FIELD(remap_member, state, number),    REMAP_FIELD(remap_member, reserved0, bytes),
    REMAP_FIELD(remap_member, size, number),     REMAP_FIELD(remap_member, wwn, text),
    REMAP_FIELD(remap_member, serial, text),     REMAP_FIELD(remap_member, partuuid, text),
    REMAP_FIELD(remap_member, reserved1, bytes),
};

constexpr std::array last_field = {
    REMAP_FIELD(remap_superblock, reserved2, bytes),
};

constexpr std::array table_fields = {
    REMAP_FIELD(remap_table_block, magic, text),
    REMAP_FIELD(remap_table_block, crc, hex),
    REMAP_FIELD(remap_table_block, copy, number),
    REMAP_FIELD(remap_table_block, segment, number),
    REMAP_FIELD(remap_table_block, in_use, number),
    REMAP_FIELD(remap_table_block, index, number),
    REMAP_FIELD(remap_table_block, generation, generation),
    REMAP_FIELD(remap_table_block, position, number),
    REMAP_FIELD(remap_table_block, reserved, bytes),
};

#undef REMAP_FIELD

std::uint64_t little(ConstBytes bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = bytes.size(); i-- > 0;)
        value = value << 8 | bytes[i];
    return value;
}

std::string hex_bytes(ConstBytes bytes) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : bytes) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

bool all_zero(ConstBytes bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

class Hexdump {
  public:
    Hexdump(ConstBytes bytes, Emitter& out) : bytes_(bytes), out_(out) {}

    void head() { fields(head_fields); }
    void superblock();
    void table_block();
    void fields(std::span<const Field> list, const std::string& prefix = {}, std::size_t base = 0);

  private:
    void field(const Field& field, const std::string& name, std::size_t base);
    void begin(const std::string& name, std::size_t offset, ConstBytes bytes);
    template <std::size_t count>
    void array(const char* name, std::size_t offset, std::size_t size,
               const std::array<Field, count>& list);
    void numbers(const char* name, std::size_t offset, unsigned int count);

    ConstBytes bytes_;
    Emitter& out_;
};

void Hexdump::begin(const std::string& name, std::size_t offset, ConstBytes bytes) {
    out_.begin_object("");
    out_.number("offset", offset);
    out_.text("name", name);
    out_.text("bytes", hex_bytes(bytes));
}

void Hexdump::field(const Field& field, const std::string& name, std::size_t base) {
    const ConstBytes bytes = bytes_.subspan(base + field.offset, field.size);
    // Whatever is in reserved bytes is worth a line only if it should not be there.
    if (field.shown == Shown::bytes && all_zero(bytes))
        return;
    begin(name, base + field.offset, bytes);
    switch (field.shown) {
        case Shown::bytes:
            break;
        case Shown::number:
            out_.number("value", little(bytes));
            break;
        case Shown::hex:
            out_.text("value", cat("0x", std::hex, little(bytes)));
            break;
        case Shown::generation:
            out_.text("value", cat(little(bytes) >> 32, ".", little(bytes) & 0xffffffffU));
            break;
        case Shown::uuid: {
            Uuid uuid;
            std::copy(bytes.begin(), bytes.end(), uuid.bytes.begin());
            out_.text("value", uuid.str());
            break;
        }
        case Shown::text: {
            const auto end = std::find(bytes.begin(), bytes.end(), 0);
            out_.text("value", printable(std::string(bytes.begin(), end)));
            break;
        }
        case Shown::time:
            out_.time("value", little(bytes));
            break;
    }
    out_.end_object();
}

void Hexdump::fields(std::span<const Field> list, const std::string& prefix, std::size_t base) {
    for (const Field& one : list)
        field(one, prefix + one.name, base);
}

/// The elements of an array that are not zero.
template <std::size_t count>
void Hexdump::array(const char* name, std::size_t offset, std::size_t size,
                    const std::array<Field, count>& list) {
    const std::size_t elements = size / (list.back().offset + list.back().size);
    for (std::size_t i = 0; i < elements; i++) {
        const std::size_t base = offset + i * (size / elements);
        if (!all_zero(bytes_.subspan(base, size / elements)))
            fields(list, cat(name, "[", i, "]."), base);
    }
}

void Hexdump::numbers(const char* name, std::size_t offset, unsigned int count) {
    for (unsigned int i = 0; i < count; i++)
        field({name, offset + i * sizeof(std::uint64_t), 8, Shown::number}, cat(name, "[", i, "]"),
              0);
}

void Hexdump::superblock() {
    head();
    fields(superblock_fields);
    numbers("sb_sector", offsetof(remap_superblock, sb_sector), REMAP_SB_COPIES);
    fields(after_places);
    numbers("label_sector", offsetof(remap_superblock, label_sector), REMAP_MAX_LABELS);
    fields(after_labels);
    array("hidden", offsetof(remap_superblock, hidden), sizeof(remap_superblock::hidden),
          hidden_fields);
    array("segments", offsetof(remap_superblock, segments), sizeof(remap_superblock::segments),
          segment_fields);
    array("members", offsetof(remap_superblock, members), sizeof(remap_superblock::members),
          member_fields);
    fields(last_field);
}

void Hexdump::table_block() {
    fields(table_fields);
    for (unsigned int i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++) {
        const std::size_t offset = REMAP_TABLE_HEADER_SIZE + i * sizeof(remap_entry);
        const ConstBytes bytes = bytes_.subspan(offset, sizeof(remap_entry));
        if (all_zero(bytes))
            continue;
        const Entry entry = table_entry(bytes_, i);
        begin(cat("entries[", i, "]"), offset, bytes);
        out_.text("state", entry_state_name(entry.state()));
        out_.number("block", entry.block());
        out_.text("cause", entry_cause_name(entry.cause()));
        out_.number("errno", entry.error());
        out_.number("sequence", entry.sequence());
        out_.time("time", entry.time());
        out_.end_object();
    }
}

// --- which structure, and what is wrong with it
// ---------------------------------------------------

struct Judgement {
    Verdict verdict = Verdict::absent;
    FieldProblem problem;
    std::optional<std::uint32_t> crc_wanted;  ///< none if the seed is not known
    std::uint32_t crc_found = 0;
};

template <typename T>
Judgement judgement_of(const Decoded<T>& decoded, ConstBytes bytes, std::uint32_t seed,
                       std::size_t crc_offset) {
    return {decoded.verdict, decoded.problem, crc_structure(seed, bytes, crc_offset),
            static_cast<std::uint32_t>(little(bytes.subspan(crc_offset, 4)))};
}

std::uint32_t head_seed(ConstBytes bytes) {
    Uuid set;
    std::copy_n(bytes.begin() + offsetof(remap_head, set_uuid), set.bytes.size(),
                set.bytes.begin());
    return crc_seed(set, little(bytes.subspan(offsetof(remap_head, nonce), 8)));
}

struct Place {
    StructureKind kind = StructureKind::superblock;
    std::uint64_t sector = 0;
};

std::size_t size_of(StructureKind kind) {
    const bool large = kind == StructureKind::superblock || kind == StructureKind::table_block;
    return large ? REMAP_SB_SIZE : REMAP_LABEL_SIZE;
}

/// Superblock and label have one magic; the role tells.
std::optional<StructureKind> kind_of(ConstBytes sector) {
    if (std::memcmp(sector.data(), REMAP_TABLE_MAGIC, REMAP_TABLE_MAGIC_SIZE) == 0)
        return StructureKind::table_block;
    if (std::memcmp(sector.data(), REMAP_FILLER_MAGIC, REMAP_MAGIC_SIZE) == 0)
        return StructureKind::filler;
    if (std::memcmp(sector.data(), REMAP_MAGIC, REMAP_MAGIC_SIZE) != 0)
        return std::nullopt;
    return sector[offsetof(remap_head, role)] == REMAP_ROLE_MAIN ? StructureKind::label
                                                                 : StructureKind::superblock;
}

std::optional<Superblock> known_superblock(BlockIo& device) {
    const SuperblockScan scan = scan_superblocks(device);
    return scan.winner ? scan.winner : scan.majority;
}

std::uint64_t superblock_sector(BlockIo& device, std::uint64_t copy) {
    if (copy >= REMAP_SB_COPIES)
        throw Error(Exit::usage, cat(device.name(), ": superblock ", copy,
                                     ": expected a copy from 0 to ", REMAP_SB_COPIES - 1));
    for (const SuperblockCopy& found : scan_superblocks(device).copies) {
        if (found.copy == copy)
            return found.sector;
    }
    throw Error(Exit::unrecognised, cat(device.name(), ": expected room for superblocks, found ",
                                        device.size(), " sectors"));
}

std::uint64_t table_sector(BlockIo& device, const HexdumpOptions& options) {
    const auto sb = known_superblock(device);
    if (!sb)
        throw Error(Exit::unrecognised,
                    cat(device.name(),
                        ": no superblock says where the table lies; \"remap-dump "
                        "scan\" finds its blocks, --sector shows one"));
    if (options.number >= sb->segment().table_blocks() || options.copy >= sb->segment().nr_copies)
        throw Error(Exit::usage,
                    cat(device.name(), ": table block ", options.number, " copy ", options.copy,
                        ": expected a block below ", sb->segment().table_blocks(),
                        " and a copy below ", static_cast<unsigned int>(sb->segment().nr_copies)));
    return sb->table_sector(options.number, options.copy);
}

/// Labels lie in hidden blocks, most of them near the ends.
std::uint64_t label_sector(BlockIo& device, std::uint64_t copy) {
    constexpr std::uint64_t front = 8192 + 256;
    constexpr std::uint64_t back = 2048;
    const std::uint64_t size = device.size();
    std::vector<SearchOptions> areas(1);
    areas[0].end = std::min(front, size);
    if (size > front) {
        areas.emplace_back();
        areas[1].first = std::max(front, size - std::min(size, back)) & ~std::uint64_t{7};
    }
    for (const SearchOptions& area : areas) {
        for (const FoundRun& run : search_device(device, area).found) {
            if (run.kind == StructureKind::label && run.copy == copy)
                return run.sector;
        }
    }
    throw Error(Exit::unrecognised, cat(device.name(), ": label ", copy,
                                        " is not near the ends; \"remap-dump scan\" looks "
                                        "everywhere, --sector shows one"));
}

Place find_place(BlockIo& device, const HexdumpOptions& options) {
    if (options.sector) {
        if (options.kind)
            return {*options.kind, *options.sector};
        const auto kind = kind_of(device.read(*options.sector, 1));
        if (!kind)
            throw Error(Exit::unrecognised,
                        cat(device.name(), ": sector ", *options.sector,
                            ": no structure of ours begins here; say what to take it for"));
        return {*kind, *options.sector};
    }
    switch (options.kind.value_or(StructureKind::superblock)) {
        case StructureKind::superblock:
            return {StructureKind::superblock, superblock_sector(device, options.number)};
        case StructureKind::table_block:
            return {StructureKind::table_block, table_sector(device, options)};
        case StructureKind::label:
            return {StructureKind::label, label_sector(device, options.number)};
        case StructureKind::filler:
            break;
    }
    throw Error(Exit::usage, cat(device.name(), ": filler is found by --sector only"));
}

Judgement judge_table_block(BlockIo& device, ConstBytes bytes, std::uint64_t sector) {
    Judgement judgement;
    const auto sb = known_superblock(device);
    judgement.crc_found = static_cast<std::uint32_t>(
        little(bytes.subspan(offsetof(remap_table_block, crc), sizeof(std::uint32_t))));
    if (!sb) {
        judgement.problem = {"crc", "the checksum seed of a superblock", "none"};
        return judgement;
    }
    judgement.crc_wanted = crc_structure(sb->seed(), bytes, offsetof(remap_table_block, crc));
    // As what the superblock expects at this sector, if it expects a table block there at all.
    std::uint64_t index = little(bytes.subspan(offsetof(remap_table_block, index), 8));
    unsigned int copy = bytes[offsetof(remap_table_block, copy)];
    for (unsigned int c = 0; c < sb->segment().nr_copies; c++) {
        const std::uint64_t start = sb->segment().table_start.at(c);
        if (sector >= start && (sector - start) / 8 < sb->segment().table_blocks()) {
            index = (sector - start) / 8;
            copy = c;
        }
    }
    const auto decoded = decode_table_header(bytes, sb->seed(), index, copy, sector);
    judgement.verdict = decoded.verdict;
    judgement.problem = decoded.problem;
    return judgement;
}

Judgement judge(BlockIo& device, ConstBytes bytes, const Place& place) {
    constexpr std::size_t crc = offsetof(remap_head, crc);
    switch (place.kind) {
        case StructureKind::superblock:
            return judgement_of(decode_superblock(bytes, place.sector), bytes, head_seed(bytes),
                                crc);
        case StructureKind::label:
            return judgement_of(decode_label(bytes, place.sector), bytes, head_seed(bytes), crc);
        case StructureKind::filler:
            return judgement_of(decode_filler(bytes, place.sector), bytes, head_seed(bytes), crc);
        case StructureKind::table_block:
            break;
    }
    return judge_table_block(device, bytes, place.sector);
}

void show_judgement(const Judgement& judgement, Emitter& out) {
    const auto hex = [](std::uint32_t value) { return cat("0x", std::hex, value); };
    out.text("verdict", verdict_name(judgement.verdict));
    if (!judgement.problem.field.empty()) {
        out.text("field", judgement.problem.field);
        out.text("expected", judgement.problem.expected);
        out.text("found", judgement.problem.found);
    }
    out.text("crc_wanted", judgement.crc_wanted ? hex(*judgement.crc_wanted) : "not known");
    out.text("crc_found", hex(judgement.crc_found));
}

}  // namespace

Exit hexdump(BlockIo& device, const HexdumpOptions& options, Emitter& out) {
    const Place place = find_place(device, options);
    const std::vector<std::uint8_t> bytes =
        device.read(place.sector, size_of(place.kind) / sector_size);
    const Judgement judgement = judge(device, bytes, place);

    out.text("device", device.name());
    out.text("structure", structure_name(place.kind));
    out.number("sector", place.sector);
    show_judgement(judgement, out);
    out.begin_list("fields");
    Hexdump dump(bytes, out);
    switch (place.kind) {
        case StructureKind::superblock:
            dump.superblock();
            break;
        case StructureKind::table_block:
            dump.table_block();
            break;
        case StructureKind::label:
            dump.head();
            dump.fields(label_fields);
            break;
        case StructureKind::filler:
            dump.head();
            dump.fields(filler_fields);
            break;
    }
    out.end_list();
    out.finish();
    return judgement.verdict == Verdict::current ? Exit::ok : Exit::damage;
}

}  // namespace remap
