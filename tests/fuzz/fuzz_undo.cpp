// SPDX-License-Identifier: GPL-2.0-or-later
//
// An undo file with the right checksums, and the undo itself on the set that the seeds are of.
// Input: flags, then the file. Promised: what is refused has written nothing; what is done once has
// nothing left to do.
#include <algorithm>
#include <string>

#include "hostile_set.hpp"
#include "libremap/crc.hpp"
#include "libremap/error.hpp"
#include "libremap/undo.hpp"

using namespace remap;

namespace {

constexpr std::size_t header_size = 1024;
constexpr std::size_t id_at = 24;
constexpr std::size_t header_crc = 16;
constexpr std::size_t record_crc = 4;

using File = std::span<std::uint8_t>;

std::uint64_t number(File bytes, std::size_t at, std::size_t size) {
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;) {
        value = value << 8 | bytes[at + i];
    }
    return value;
}

void put(File bytes, std::size_t at, std::size_t size, std::uint64_t value) {
    for (std::size_t i = 0; i < size; ++i, value >>= 8) {
        bytes[at + i] = static_cast<std::uint8_t>(value);
    }
}

/// How long the record says it is; 0 if it is none, or longer than the file.
std::size_t record_size(File record) {
    if (record.size() < 32) {
        return 0;
    }
    const std::string magic(record.begin(), record.begin() + 4);
    std::uint64_t size = 0;
    if (magic == "RANG" && record.size() >= 40) {
        const bool content = (record[29] & 1) == 0;
        size = 40 + 8 * number(record, 32, 4) + (content ? number(record, 24, 4) * 512 : 0);
    } else if (magic == "END ") {
        size = 32;
    } else if (magic == "IMAG") {
        size = 24 + 4 * number(record, 16, 4);
    }
    return size <= record.size() ? size : 0;
}

void seal(File file) {
    if (file.size() < header_size) {
        return;
    }
    const File header = file.first(header_size);
    put(header, header_crc, 4, crc_structure(0, header, header_crc));
    const std::uint32_t seed = crc_of(file.subspan(id_at, 8));
    for (std::size_t at = header_size; at < file.size();) {
        const std::size_t size = record_size(file.subspan(at));
        if (size == 0) {
            return;
        }
        const File record = file.subspan(at, size);
        if (record[0] == 'E') {
            put(record, 16, 8, at + size);
            put(record, 24, 4, crc_of(file.first(at)));
        }
        put(record, record_crc, 4, crc_structure(seed, record, record_crc));
        at += size;
    }
}

void undo(const UndoLog& log) {
    const remap::test::SampleSet& set = fuzz::damaged_set();
    fuzz::Overlay spare("spare.img", set.spare.content(), 512);
    fuzz::Overlay main("main.img", set.main.content(), 512);
    try {
        spare.freeze("verifying writes nothing");
        main.freeze("verifying writes nothing");
        verify_undo(log, spare, &main);
    } catch (const Error&) {
        spare.freeze("a refused undo writes nothing");
        main.freeze("a refused undo writes nothing");
        try {
            undo_repair(log, spare, &main);
        } catch (const Error&) {
            return;
        }
        fuzz::promise(false, "refused, and then done");
    }
    spare.thaw();
    main.thaw();
    const UndoResult once = undo_repair(log, spare, &main);
    if (once.errors.empty()) {
        const UndoResult twice = undo_repair(log, spare, &main);
        fuzz::promise(twice.restored == 0, "a second undo has something to do");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const std::uint8_t flags = input.byte();
    std::vector<std::uint8_t> file(input.rest().begin(), input.rest().end());
    if ((flags & 1) == 0) {
        seal(file);
    }
    UndoLog log;
    try {
        log = parse_undo(file, "undo");
    } catch (const Error& error) {
        // operational: of a version newer than this program
        fuzz::promise(error.code() == Exit::unrecognised || error.code() == Exit::operational,
                      error.what());
        return 0;
    }
    for (const UndoLog::Range& range : log.ranges) {
        fuzz::promise(range.member < log.header.members.size(), "a range of no member");
        fuzz::promise(range.unreadable || range.content.size() == range.count * sector_size,
                      "a range and its content do not fit together");
    }
    undo(log);
    return 0;
}
