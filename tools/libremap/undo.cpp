// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/undo.hpp"

#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <limits>
#include <map>

#include "libremap/crc.hpp"
#include "libremap/error.hpp"
#include "libremap/file_util.hpp"
#include "libremap/metadata.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr char undo_magic[] = "\x8fRemapUnd\r\n\x1a\n\xa7\xd2\x5e";
constexpr std::uint32_t undo_version = 1;
constexpr std::size_t most_members = WriteJournal::members;
constexpr std::size_t most_places = 16;
constexpr std::size_t name_size = 256;
constexpr std::size_t tool_size = 40;
constexpr std::uint32_t range_magic = 0x474e4152;  // "RANG"
constexpr std::uint32_t image_magic = 0x47414d49;  // "IMAG"
constexpr std::uint32_t end_magic = 0x20444e45;    // "END "
constexpr std::uint8_t range_unreadable = 1;
constexpr std::uint32_t most_images_per_sector = 1024;
constexpr std::uintmax_t most_bytes = std::uintmax_t{4} << 30;
constexpr mode_t undo_mode = 0600;

struct MemberRecord {
    std::uint8_t uuid[REMAP_UUID_SIZE];
    std::uint64_t size;
    std::uint32_t logical;
    std::uint8_t role;
    std::uint8_t nr_places;
    std::uint16_t reserved;
    std::uint32_t place_sectors;
    std::uint32_t places_crc;
    std::uint64_t place[most_places];
    char name[name_size];
};
static_assert(sizeof(MemberRecord) == 424);

struct HeaderRecord {
    std::uint8_t magic[REMAP_MAGIC_SIZE];
    std::uint32_t crc;
    std::uint32_t version;
    std::uint64_t id;
    std::uint64_t time;
    std::uint8_t set_uuid[REMAP_UUID_SIZE];
    std::uint64_t nonce;
    std::uint64_t generation_limit;
    std::uint32_t epoch_limit;
    std::uint32_t nr_members;
    char tool[tool_size];
    MemberRecord member[most_members];
    std::uint8_t reserved[56];
};
static_assert(offsetof(HeaderRecord, crc) == 16);
static_assert(offsetof(HeaderRecord, member) == 120);
static_assert(sizeof(HeaderRecord) == 1024);

struct RangeRecord {
    std::uint32_t magic;
    std::uint32_t crc;
    std::uint64_t index;
    std::uint64_t sector;
    std::uint32_t count;
    std::uint8_t member;
    std::uint8_t flags;
    std::uint16_t reserved;
    std::uint32_t nr_images;
    std::uint32_t reserved2;
};
static_assert(sizeof(RangeRecord) == 40);

struct ImageInRange {
    std::uint32_t offset;  // sectors from the start of the range
    std::uint32_t crc;
};

struct EndRecord {
    std::uint32_t magic;
    std::uint32_t crc;
    std::uint64_t nr_ranges;
    std::uint64_t length;
    std::uint32_t file_crc;
    std::uint32_t reserved;
};
static_assert(sizeof(EndRecord) == 32);

struct ImageRecord {
    std::uint32_t magic;
    std::uint32_t crc;
    std::uint64_t sector;
    std::uint32_t count;
    std::uint8_t member;
    std::uint8_t reserved[3];
};
static_assert(sizeof(ImageRecord) == 24);

constexpr std::size_t record_crc = 4;
static_assert(offsetof(RangeRecord, crc) == record_crc && offsetof(EndRecord, crc) == record_crc &&
              offsetof(ImageRecord, crc) == record_crc);

template <typename Record>
ConstBytes bytes_of(const Record& record) {
    return {reinterpret_cast<const std::uint8_t*>(&record), sizeof(record)};
}

template <typename Record>
Record record_at(ConstBytes bytes) {
    Record record;
    std::memcpy(&record, bytes.data(), sizeof(record));
    return record;
}

/// Records of another undo file never verify.
std::uint32_t seed_of(std::uint64_t id) {
    const std::uint64_t little = htole64(id);
    return crc_of(bytes_of(little));
}

void set_crc(std::vector<std::uint8_t>& record, std::size_t at, std::uint32_t seed) {
    const std::uint32_t crc = htole32(crc_structure(seed, record, at));
    std::memcpy(record.data() + at, &crc, sizeof(crc));
}

template <std::size_t size>
void put_text(char (&to)[size], const std::string& text) {
    std::memcpy(to, text.data(), std::min(text.size(), size - 1));
}

template <std::size_t size>
std::string get_text(const char (&from)[size]) {
    return {from, strnlen(from, size)};
}

MemberRecord encode_member(const UndoMember& member) {
    MemberRecord record{};

    std::copy(member.uuid.bytes.begin(), member.uuid.bytes.end(), record.uuid);
    record.size = htole64(member.size);
    record.logical = htole32(member.logical);
    record.role = member.role;
    record.nr_places = static_cast<std::uint8_t>(member.places.size());
    record.place_sectors = htole32(member.place_sectors);
    record.places_crc = htole32(member.places_crc);
    for (std::size_t i = 0; i < member.places.size(); i++)
        record.place[i] = htole64(member.places[i]);
    put_text(record.name, member.name);
    return record;
}

std::vector<std::uint8_t> encode_header(const UndoHeader& header) {
    HeaderRecord record{};

    std::memcpy(record.magic, undo_magic, sizeof(record.magic));
    record.version = htole32(undo_version);
    record.id = htole64(header.id);
    record.time = htole64(header.time);
    std::copy(header.set_uuid.bytes.begin(), header.set_uuid.bytes.end(), record.set_uuid);
    record.nonce = htole64(header.nonce);
    record.generation_limit = htole64(header.generation_limit);
    record.epoch_limit = htole32(header.epoch_limit);
    record.nr_members = htole32(static_cast<std::uint32_t>(header.members.size()));
    put_text(record.tool, header.tool);
    for (std::size_t i = 0; i < header.members.size(); i++)
        record.member[i] = encode_member(header.members[i]);
    const ConstBytes bytes = bytes_of(record);
    std::vector<std::uint8_t> encoded(bytes.begin(), bytes.end());
    set_crc(encoded, offsetof(HeaderRecord, crc), 0);
    return encoded;
}

/// Writes ranges one after the other and keeps count for the end record.
class RangeWriter {
  public:
    RangeWriter(UndoSink& sink, std::uint64_t id) : sink_(sink), seed_(seed_of(id)) {}

    void put(std::span<const std::uint8_t> bytes) {
        sink_.append(bytes);
        length_ += bytes.size();
        file_crc_ = crc_of(bytes, file_crc_);
    }

    /// The present content of a run, in pieces that can be read and pieces that cannot.
    void run(const WriteJournal& journal, const WriteJournal::Run& run, BlockIo& io) {
        std::vector<std::uint8_t> content(run.count * sector_size);
        if (io.try_read(run.sector, content) == 0)
            return range(journal, run, content, false);
        const std::uint64_t unit = io.logical_block_size() / sector_size;
        for (std::uint64_t done = 0; done < run.count; done += unit) {
            const WriteJournal::Run one{run.member, run.sector + done,
                                        std::min(unit, run.count - done)};
            const Bytes part = Bytes(content).subspan(done * sector_size, one.count * sector_size);
            const bool unreadable = io.try_read(one.sector, part) != 0;
            range(journal, one, unreadable ? ConstBytes() : ConstBytes(part), unreadable);
        }
    }

    void end() {
        EndRecord record{};
        record.magic = htole32(end_magic);
        record.nr_ranges = htole64(ranges_);
        record.length = htole64(length_ + sizeof(record));
        record.file_crc = htole32(file_crc_);
        const ConstBytes bytes = bytes_of(record);
        std::vector<std::uint8_t> encoded(bytes.begin(), bytes.end());
        set_crc(encoded, record_crc, seed_);
        put(encoded);
    }

  private:
    void range(const WriteJournal& journal, const WriteJournal::Run& run, ConstBytes content,
               bool unreadable) {
        RangeRecord record{};
        std::vector<ImageInRange> images;
        for (std::uint64_t i = 0; i < run.count; i++) {
            for (const std::uint32_t crc : *journal.images(run.member, run.sector + i))
                images.push_back({htole32(static_cast<std::uint32_t>(i)), htole32(crc)});
        }
        record.magic = htole32(range_magic);
        record.index = htole64(ranges_++);
        record.sector = htole64(run.sector);
        record.count = htole32(static_cast<std::uint32_t>(run.count));
        record.member = static_cast<std::uint8_t>(run.member);
        record.flags = unreadable ? range_unreadable : 0;
        record.nr_images = htole32(static_cast<std::uint32_t>(images.size()));

        const ConstBytes head = bytes_of(record);
        std::vector<std::uint8_t> encoded(head.begin(), head.end());
        const auto* start = reinterpret_cast<const std::uint8_t*>(images.data());
        encoded.insert(encoded.end(), start, start + images.size() * sizeof(ImageInRange));
        encoded.insert(encoded.end(), content.begin(), content.end());
        set_crc(encoded, record_crc, seed_);
        put(encoded);
    }

    UndoSink& sink_;
    std::uint32_t seed_;
    std::uint64_t ranges_ = 0;
    std::uint64_t length_ = 0;
    std::uint32_t file_crc_ = 0;
};

// --- reading ----------------------------------------------------------------------------------

class Parser {
  public:
    Parser(const std::vector<std::uint8_t>& bytes, const std::string& name)
        : rest_(bytes), all_(bytes), name_(name) {}

    void parse(UndoLog& log);

  private:
    [[noreturn]] void fail(const std::string& why) const {
        throw Error(Exit::unrecognised,
                    cat(name_, ": offset ", all_.size() - rest_.size(), ": ", why));
    }
    void require(bool good, const char* what) const {
        if (!good)
            fail(cat("undo file: expected ", what, "; nothing was changed"));
    }

    void header(UndoHeader& header);
    UndoMember member(const MemberRecord& record) const;
    void range(UndoLog& log);
    void note_range(const UndoLog::Range& range);
    void end(const UndoLog& log);
    /// False if there is no further whole and valid record: what was being added when the power
    /// went never took effect.
    bool images(UndoLog& log);
    std::uint32_t magic() const {
        return rest_.size() < 4 ? 0 : le32toh(record_at<std::uint32_t>(rest_));
    }
    bool crc_right(ConstBytes record) const {
        return le32toh(record_at<std::uint32_t>(record.subspan(record_crc))) ==
               crc_structure(seed_, record, record_crc);
    }

    ConstBytes rest_;
    ConstBytes all_;
    const std::string& name_;
    std::uint32_t seed_ = 0;
    /// Per member: start to end of what ranges have covered.
    std::map<std::uint64_t, std::uint64_t> covered_[most_members];
};

UndoMember Parser::member(const MemberRecord& record) const {
    UndoMember member;

    std::copy(std::begin(record.uuid), std::end(record.uuid), member.uuid.bytes.begin());
    member.size = le64toh(record.size);
    member.logical = le32toh(record.logical);
    member.role = record.role;
    member.place_sectors = le32toh(record.place_sectors);
    member.places_crc = le32toh(record.places_crc);
    require(record.nr_places <= most_places, "at most 16 places");
    require(member.place_sectors >= 1 && member.place_sectors <= REMAP_SB_SECTORS,
            "places of 1 to 8 sectors");
    require(member.size <= std::numeric_limits<std::uint64_t>::max() / sector_size,
            "a size below 2^64 bytes");
    require(member.logical >= sector_size && member.logical % sector_size == 0 &&
                member.logical <= WriteJournal::longest * sector_size,
            "a logical block size in whole sectors");
    for (std::size_t i = 0; i < record.nr_places; i++)
        member.places.push_back(le64toh(record.place[i]));
    member.name = get_text(record.name);
    return member;
}

void Parser::header(UndoHeader& header) {
    require(rest_.size() >= sizeof(HeaderRecord) &&
                std::memcmp(rest_.data(), undo_magic, REMAP_MAGIC_SIZE) == 0,
            "the header of an undo file");
    const auto record = record_at<HeaderRecord>(rest_);
    if (le32toh(record.version) > undo_version)
        throw Error(Exit::operational,
                    cat(name_, ": undo file of version ", le32toh(record.version),
                        ": expected at most ", undo_version));
    require(le32toh(record.crc) ==
                crc_structure(0, rest_.first(sizeof(HeaderRecord)), offsetof(HeaderRecord, crc)),
            "a header with the right checksum");
    require(le32toh(record.version) == undo_version, "version 1");
    header.id = le64toh(record.id);
    header.time = le64toh(record.time);
    std::copy(std::begin(record.set_uuid), std::end(record.set_uuid),
              header.set_uuid.bytes.begin());
    header.nonce = le64toh(record.nonce);
    header.generation_limit = le64toh(record.generation_limit);
    header.epoch_limit = le32toh(record.epoch_limit);
    header.tool = get_text(record.tool);
    const std::uint32_t nr_members = le32toh(record.nr_members);
    require(nr_members >= 1 && nr_members <= most_members, "one or two members");
    for (std::uint32_t i = 0; i < nr_members; i++) {
        header.members.push_back(member(record.member[i]));
        require(header.members.back().role == (i == 0 ? REMAP_ROLE_SPARE : REMAP_ROLE_MAIN),
                "a spare, then a main");
    }
    seed_ = seed_of(header.id);
    rest_ = rest_.subspan(sizeof(HeaderRecord));
}

void Parser::note_range(const UndoLog::Range& range) {
    auto& covered = covered_[range.member];
    const std::uint64_t end = range.sector + range.count;
    const auto next = covered.lower_bound(range.sector);

    require(next == covered.end() || next->first >= end, "ranges that do not overlap");
    require(next == covered.begin() || std::prev(next)->second <= range.sector,
            "ranges that do not overlap");
    covered[range.sector] = end;
}

void Parser::range(UndoLog& log) {
    require(rest_.size() >= sizeof(RangeRecord), "a whole record");
    const auto record = record_at<RangeRecord>(rest_);
    UndoLog::Range range;

    range.member = record.member;
    range.sector = le64toh(record.sector);
    range.count = le32toh(record.count);
    range.unreadable = (record.flags & range_unreadable) != 0;
    require(range.member < log.header.members.size(), "a member of the file");
    const UndoMember& member = log.header.members[range.member];
    require(range.count >= 1 && range.count <= WriteJournal::longest, "1 to 2048 sectors");
    require(range.sector <= member.size && range.count <= member.size - range.sector,
            "a range on the device");
    require(range.sector * sector_size % member.logical == 0 &&
                range.count * sector_size % member.logical == 0,
            "whole logical blocks");
    const std::uint64_t nr_images = le32toh(record.nr_images);
    require(nr_images <= range.count * most_images_per_sector, "fewer images");
    const std::size_t images_size = nr_images * sizeof(ImageInRange);
    const std::size_t size =
        sizeof(record) + images_size + (range.unreadable ? 0 : range.count * sector_size);
    require(rest_.size() >= size, "a whole record");
    require(crc_right(rest_.first(size)), "a record with the right checksum");
    require(le64toh(record.index) == log.ranges.size(), "records in order");
    note_range(range);

    for (std::uint64_t i = 0; i < nr_images; i++) {
        const auto image = record_at<ImageInRange>(
            rest_.subspan(sizeof(record) + i * sizeof(ImageInRange), sizeof(ImageInRange)));
        require(le32toh(image.offset) < range.count, "an image in its range");
        log.images[range.member][range.sector + le32toh(image.offset)].push_back(
            le32toh(image.crc));
    }
    if (!range.unreadable)
        range.content = rest_.subspan(sizeof(record) + images_size, range.count * sector_size);
    log.ranges.push_back(range);
    rest_ = rest_.subspan(size);
}

void Parser::end(const UndoLog& log) {
    require(rest_.size() >= sizeof(EndRecord) && magic() == end_magic,
            "the end record (the file is not whole)");
    const auto record = record_at<EndRecord>(rest_);
    const std::size_t before = all_.size() - rest_.size();

    require(crc_right(rest_.first(sizeof(record))), "an end record with the right checksum");
    require(le64toh(record.nr_ranges) == log.ranges.size(), "as many ranges as were written");
    require(le64toh(record.length) == before + sizeof(record), "the length that was written");
    require(le32toh(record.file_crc) == crc_of(all_.first(before)),
            "the right checksum over the file");
    rest_ = rest_.subspan(sizeof(record));
}

bool Parser::images(UndoLog& log) {
    if (rest_.size() < sizeof(ImageRecord) || magic() != image_magic)
        return false;
    const auto record = record_at<ImageRecord>(rest_);
    const std::uint64_t sector = le64toh(record.sector);
    const std::uint64_t count = le32toh(record.count);

    if (count > (rest_.size() - sizeof(record)) / sizeof(std::uint32_t))
        return false;
    const std::size_t size = sizeof(record) + count * sizeof(std::uint32_t);
    if (!crc_right(rest_.first(size)) || record.member >= log.header.members.size())
        return false;
    for (std::uint64_t i = 0; i < count; i++)
        log.images[record.member][sector + i].push_back(le32toh(record_at<std::uint32_t>(
            rest_.subspan(sizeof(record) + i * sizeof(std::uint32_t), sizeof(std::uint32_t)))));
    rest_ = rest_.subspan(size);
    return true;
}

void Parser::parse(UndoLog& log) {
    header(log.header);
    log.images.resize(log.header.members.size());
    while (magic() == range_magic)
        range(log);
    end(log);
    while (images(log)) {
    }
}

// --- undoing ----------------------------------------------------------------------------------

/// What one member of an undo file is held against.
class Verifier {
  public:
    Verifier(const UndoLog& log, unsigned int number, BlockIo& io)
        : log_(log), member_(log.header.members[number]), number_(number), io_(io) {}

    void verify() {
        require_device();
        for (const UndoLog::Range& range : log_.ranges) {
            if (range.member == number_ && !range.unreadable)
                require_content(range);
        }
        require_places();
    }

  private:
    [[noreturn]] void refuse(const std::string& why) const {
        throw Error(Exit::unrecognised, cat(io_.name(), ": ", why, "; nothing was changed"));
    }

    void require_device() const {
        if (io_.size() != member_.size)
            refuse(cat("is not the device of the undo file: expected ", member_.size,
                       " sectors, found ", io_.size()));
        if (io_.logical_block_size() > member_.logical)
            refuse(cat("is not the device of the undo file: expected logical blocks of ",
                       member_.logical, " bytes, found ", io_.logical_block_size()));
    }

    void require_content(const UndoLog::Range& range) const {
        std::vector<std::uint8_t> now(range.count * sector_size);
        if (const int error = io_.try_read(range.sector, now))
            throw IoError(io_.name(), "read", range.sector, range.count, error);
        for (std::uint64_t i = 0; i < range.count; i++) {
            const ConstBytes found = ConstBytes(now).subspan(i * sector_size, sector_size);
            const ConstBytes old = range.content.subspan(i * sector_size, sector_size);
            if (std::equal(found.begin(), found.end(), old.begin()))
                continue;
            const auto& images = log_.images[number_];
            const auto known = images.find(range.sector + i);
            if (known == images.end() || std::find(known->second.begin(), known->second.end(),
                                                   crc_of(found)) == known->second.end())
                refuse(cat("sector ", range.sector + i,
                           ": expected what the repair left there or found there, found "
                           "something else: it was changed since"));
        }
    }

    void require_places() const {
        const auto skip = [this](std::uint64_t sector) {
            return log_.images[number_].count(sector) != 0;
        };
        if (places_checksum(io_, member_, skip) != member_.places_crc)
            refuse(cat("its ", member_.role == REMAP_ROLE_SPARE ? "superblocks" : "labels",
                       " are not those of the undo file: it was changed since, or is of another "
                       "set"));
    }

    const UndoLog& log_;
    const UndoMember& member_;
    unsigned int number_;
    BlockIo& io_;
};

/// Does that lie in a range of the file, and is it what is given back?
bool given_back(const UndoLog& log, unsigned int member, std::uint64_t sector, ConstBytes now) {
    const std::uint64_t count = now.size() / sector_size;

    return std::any_of(log.ranges.begin(), log.ranges.end(), [&](const UndoLog::Range& range) {
        if (range.member != member || range.unreadable || sector < range.sector ||
            sector + count > range.sector + range.count)
            return false;
        const ConstBytes old =
            range.content.subspan((sector - range.sector) * sector_size, now.size());
        return std::equal(now.begin(), now.end(), old.begin());
    });
}

/// The plain words for what would show as a wrong checksum otherwise; and what no superblock shows.
void require_not_used(const UndoLog& log, BlockIo& spare) {
    const UndoHeader& header = log.header;
    const auto refuse = [&](const std::string& what, const std::string& expected,
                            const std::string& found) {
        throw Error(Exit::unrecognised, cat(spare.name(), ": ", what, ": expected ", expected,
                                            ", found ", found, "; nothing was changed"));
    };
    const SuperblockScan scan = scan_superblocks(spare);
    const bool ours = scan.winner && scan.winner->head.set_uuid == header.set_uuid &&
                      scan.winner->head.nonce == header.nonce &&
                      scan.winner->head.member_uuid == header.members[0].uuid;

    // An undo that was interrupted may have given back another set already.
    if (scan.winner && !ours &&
        !given_back(log, 0, scan.copies[static_cast<std::size_t>(scan.winner_index)].sector,
                    scan.copies[static_cast<std::size_t>(scan.winner_index)].bytes))
        refuse("is not the spare of the undo file",
               cat("set ", header.set_uuid, ", member ", header.members[0].uuid),
               cat("set ", scan.winner->head.set_uuid, ", member ", scan.winner->head.member_uuid));
    for (const SuperblockCopy& copy : scan.copies) {
        if (!copy.value || copy.value->head.set_uuid != header.set_uuid ||
            copy.value->head.nonce != header.nonce)
            continue;
        if (copy.value->epoch > header.epoch_limit)
            refuse("the set was used since: epoch", cat("at most ", header.epoch_limit),
                   cat(copy.value->epoch));
        if (copy.value->head.generation > header.generation_limit)
            refuse("the set was changed since: generation",
                   cat("at most ", header.generation_limit), cat(copy.value->head.generation));
    }
    if (!ours || check_geometry(*scan.winner, spare.size()))
        return;
    const std::uint64_t newest = load_table(spare, *scan.winner).highest_generation;
    if (newest > header.generation_limit)
        refuse("the table was changed since: generation", cat("at most ", header.generation_limit),
               cat(newest));
}

/// Writes one range if it is not as it was. 0 or an errno value.
int restore(const UndoLog::Range& range, BlockIo& io, UndoResult& result) {
    std::vector<std::uint8_t> now(range.count * sector_size);

    if (io.try_read(range.sector, now) == 0 &&
        std::equal(now.begin(), now.end(), range.content.begin())) {
        result.same += range.count;
        return 0;
    }
    if (const int error = io.try_write(range.sector, range.content))
        return error;
    if (const int error = io.try_flush())
        return error;
    result.restored += range.count;
    return 0;
}

/// Was that place wiped by the job, all of it, and is it in one range of the file?
bool was_wiped(const UndoLog& log, std::uint64_t place, std::uint64_t sectors) {
    static const std::vector<std::uint8_t> zero(sector_size);
    static const std::uint32_t zero_crc = crc_of(zero);
    const auto& images = log.images[0];

    for (std::uint64_t i = 0; i < sectors; i++) {
        const auto known = images.find(place + i);
        if (known == images.end() ||
            std::find(known->second.begin(), known->second.end(), zero_crc) == known->second.end())
            return false;
    }
    return true;
}

/// A job that replaces a set wipes the superblocks, writes the table, and then the superblocks. The
/// ranges are in the order of the first write, so going backwards would bring the old table back
/// under the new superblocks: these are wiped again first. What is given back already stays.
bool wipe_again(const UndoLog& log, BlockIo& spare, UndoResult& result) {
    const UndoMember& member = log.header.members[0];
    const std::vector<std::uint8_t> zero(member.place_sectors * sector_size);
    std::vector<std::uint8_t> now(zero.size());
    bool wiped = false;

    for (const std::uint64_t place : member.places) {
        if (!was_wiped(log, place, member.place_sectors) ||
            (spare.try_read(place, now) == 0 && (now == zero || given_back(log, 0, place, now))))
            continue;
        if (const int error = spare.try_write(place, zero)) {
            result.errors.push_back(
                IoError(spare.name(), "write", place, member.place_sectors, error).what());
            return false;
        }
        wiped = true;
    }
    if (const int error = wiped ? spare.try_flush() : 0) {
        result.errors.push_back(IoError(spare.name(), "flush", 0, 0, error).what());
        return false;
    }
    return true;
}

}  // namespace

UndoFileSink::UndoFileSink(const std::string& path) : path_(path) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, undo_mode);
    if (fd_ < 0)
        throw Error(Exit::operational,
                    cat(path, ": cannot make the undo file: ", std::strerror(errno)));
}

UndoFileSink::~UndoFileSink() {
    ::close(fd_);
}

void UndoFileSink::append(ConstBytes bytes) {
    write_all(fd_, bytes.data(), bytes.size(), path_);
}

void UndoFileSink::sync() {
    sync_file(fd_, path_);
    if (!named_)
        sync_directory_of(path_);
    named_ = true;
}

void UndoFileSink::discard() {
    ::unlink(path_.c_str());
}

std::uint32_t places_checksum(BlockIo& io, const UndoMember& member,
                              const std::function<bool(std::uint64_t)>& skip) {
    static constexpr std::array<std::uint8_t, 1> unreadable = {0xee};
    std::vector<std::uint8_t> bytes(sector_size);
    std::uint32_t crc = 0;

    for (const std::uint64_t place : member.places) {
        for (std::uint64_t i = 0; i < member.place_sectors; i++) {
            if (skip(place + i))
                continue;
            crc = io.try_read(place + i, bytes) != 0 ? crc_of(unreadable, crc) : crc_of(bytes, crc);
        }
    }
    return crc;
}

std::uint64_t undo_size(const WriteJournal& journal) {
    std::uint64_t bytes = sizeof(HeaderRecord) + sizeof(EndRecord);

    for (const WriteJournal::Run& run : journal.runs())
        bytes += sizeof(RangeRecord) + run.count * (sector_size + sizeof(ImageInRange));
    return bytes;
}

void write_undo(UndoSink& sink, UndoHeader header, const WriteJournal& journal, BlockIo& spare,
                BlockIo* main) {
    const auto device = [&](unsigned int member) -> BlockIo& {
        return member == 0 || !main ? spare : *main;
    };
    RangeWriter writer(sink, header.id);

    for (unsigned int i = 0; i < header.members.size(); i++) {
        UndoMember& member = header.members[i];
        member.size = device(i).size();
        member.logical = device(i).logical_block_size();
        member.name = device(i).name();
        member.places_crc = places_checksum(device(i), member, [&](std::uint64_t sector) {
            return journal.images(i, sector) != nullptr;
        });
    }
    writer.put(encode_header(header));
    for (const WriteJournal::Run& run : journal.runs())
        writer.run(journal, run, device(run.member));
    writer.end();
    sink.sync();
}

void add_undo_images(UndoSink& sink, std::uint64_t id, unsigned int member, std::uint64_t sector,
                     std::span<const std::uint32_t> crcs) {
    ImageRecord record{};

    record.magic = htole32(image_magic);
    record.sector = htole64(sector);
    record.count = htole32(static_cast<std::uint32_t>(crcs.size()));
    record.member = static_cast<std::uint8_t>(member);
    const ConstBytes head = bytes_of(record);
    std::vector<std::uint8_t> encoded(head.begin(), head.end());
    for (const std::uint32_t crc : crcs) {
        const std::uint32_t little = htole32(crc);
        const ConstBytes bytes = bytes_of(little);
        encoded.insert(encoded.end(), bytes.begin(), bytes.end());
    }
    set_crc(encoded, record_crc, seed_of(id));
    sink.append(encoded);
    sink.sync();
}

std::uint64_t UndoLog::sectors() const {
    std::uint64_t sum = 0;

    for (const Range& range : ranges)
        sum += range.unreadable ? 0 : range.count;
    return sum;
}

std::uint64_t UndoLog::unreadable_sectors() const {
    std::uint64_t sum = 0;

    for (const Range& range : ranges)
        sum += range.unreadable ? range.count : 0;
    return sum;
}

bool UndoLog::writes(unsigned int member) const {
    return std::any_of(ranges.begin(), ranges.end(), [member](const Range& range) {
        return range.member == member && !range.unreadable;
    });
}

UndoLog parse_undo(std::vector<std::uint8_t> bytes, const std::string& name) {
    UndoLog log;

    log.bytes = std::move(bytes);
    Parser(log.bytes, name).parse(log);
    return log;
}

UndoLog read_undo(const std::string& path) {
    const auto fail = [&path](int error) {
        return Error(Exit::operational, cat(path, ": cannot read: ", std::strerror(error)));
    };
    const FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status {};

    if (file.get() < 0 || fstat(file.get(), &status) != 0)
        throw fail(errno);
    if (!S_ISREG(status.st_mode))
        throw Error(Exit::operational, cat(path, ": expected an undo file, found ",
                                           S_ISDIR(status.st_mode) ? "a directory" : "no file"));
    const auto size = static_cast<std::uintmax_t>(status.st_size);
    if (size > most_bytes)
        throw Error(Exit::unrecognised, cat(path, ": expected an undo file of at most ", most_bytes,
                                            " bytes, found ", size));
    std::vector<std::uint8_t> bytes(size);
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t n = ::read(file.get(), bytes.data() + done, bytes.size() - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            throw fail(n < 0 ? errno : EIO);
        done += static_cast<std::size_t>(n);
    }
    return parse_undo(std::move(bytes), path);
}

void verify_undo(const UndoLog& log, BlockIo& spare, BlockIo* main) {
    if (log.header.members.size() > 1 && !main)
        throw Error(Exit::usage, cat(spare.name(), ": the repair wrote to the main as well (",
                                     log.header.members[1].name, "): give it with --main"));
    require_not_used(log, spare);
    Verifier(log, 0, spare).verify();
    if (log.header.members.size() > 1)
        Verifier(log, 1, *main).verify();
}

UndoResult undo_repair(const UndoLog& log, BlockIo& spare, BlockIo* main) {
    UndoResult result;

    verify_undo(log, spare, main);
    if (!wipe_again(log, spare, result))
        return result;
    // Backwards: each state on the way is one that the repair went through.
    for (auto range = log.ranges.rbegin(); range != log.ranges.rend(); ++range) {
        BlockIo& io = range->member == 0 ? spare : *main;
        if (range->unreadable)
            continue;
        if (const int error = restore(*range, io, result))
            result.errors.push_back(
                IoError(io.name(), "write", range->sector, range->count, error).what());
    }
    return result;
}

}  // namespace remap
