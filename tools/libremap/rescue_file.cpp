// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/rescue_file.hpp"

#include <endian.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "libremap/crc.hpp"
#include "libremap/error.hpp"
#include "libremap/file_util.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::size_t header_size = 4096;
constexpr std::uint32_t rescue_version = 1;
constexpr char rescue_magic[] = "\x8fRemapRsc\r\n\x1a\n\xa7\xd2\x5e";
constexpr mode_t rescue_mode = 0600;

struct Header {
    std::uint8_t magic[REMAP_MAGIC_SIZE];
    std::uint32_t crc;
    std::uint32_t version;
    std::uint64_t block_bytes;
    std::uint64_t nr_blocks;
    std::uint64_t nr_lost;
    std::uint8_t reserved[header_size - 48];
};
static_assert(sizeof(Header) == header_size);
static_assert(offsetof(Header, crc) == 16);

using Buffer = std::vector<std::uint8_t>;

template <typename T>
void append(Buffer& to, const T* from, std::size_t bytes) {
    const auto* start = reinterpret_cast<const std::uint8_t*>(from);
    to.insert(to.end(), start, start + bytes);
}

Buffer encode(const Superblock& superblock, const HiddenContent& content) {
    Header header{};
    std::memcpy(header.magic, rescue_magic, sizeof(header.magic));
    header.version = htole32(rescue_version);
    header.block_bytes = htole64(content.block_bytes);
    header.nr_blocks = htole64(content.blocks.size());
    header.nr_lost = htole64(content.lost.size());
    Buffer file;
    append(file, &header, sizeof(header));
    const SuperblockBytes encoded = encode_superblock(superblock, 0);
    append(file, encoded.data(), encoded.size());
    for (const std::uint64_t block : content.lost) {
        const std::uint64_t little = htole64(block);
        append(file, &little, sizeof(little));
    }
    append(file, content.bytes.data(), content.bytes.size());
    const std::uint32_t crc = htole32(crc_structure(0, file, offsetof(Header, crc)));
    std::memcpy(file.data() + offsetof(Header, crc), &crc, sizeof(crc));
    return file;
}

[[noreturn]] void damaged(const std::string& path, const std::string& why) {
    throw Error(Exit::unrecognised, cat(path, ": not an intact rescue file: ", why));
}

Buffer slurp(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        const int error = errno;
        throw Error(Exit::operational, cat(path, ": cannot open: ", std::strerror(error)));
    }
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

Header checked_header(const std::string& path, const Buffer& file) {
    Header header{};
    if (file.size() < header_size + REMAP_SB_SIZE) {
        damaged(path, cat("expected at least ", header_size + REMAP_SB_SIZE, " bytes, found ",
                          file.size()));
    }
    std::memcpy(&header, file.data(), sizeof(header));
    if (std::memcmp(header.magic, rescue_magic, sizeof(header.magic)) != 0) {
        damaged(path, "it does not begin as one");
    }
    if (le32toh(header.crc) != crc_structure(0, file, offsetof(Header, crc))) {
        damaged(path, "its checksum is wrong");
    }
    if (le32toh(header.version) != rescue_version) {
        damaged(path,
                cat("expected version ", rescue_version, ", found ", le32toh(header.version)));
    }
    return header;
}

}  // namespace

void write_rescue_file(const std::string& path, const Superblock& superblock,
                       const HiddenContent& content) {
    const Buffer file = encode(superblock, content);
    const FileHandle fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, rescue_mode));
    if (fd.get() < 0) {
        const int error = errno;
        throw Error(Exit::operational,
                    cat(path, ": cannot create the rescue file: ", std::strerror(error)));
    }
    try {
        write_all(fd.get(), file.data(), file.size(), path);
        sync_file(fd.get(), path);
        sync_directory_of(path);
    } catch (...) {
        ::unlink(path.c_str());
        throw;
    }
}

RescueFile read_rescue_file(const std::string& path) {
    const Buffer file = slurp(path);
    const Header header = checked_header(path, file);
    const auto decoded = decode_superblock(ConstBytes(file).subspan(header_size, REMAP_SB_SIZE),
                                           remap_sb_place(UINT64_MAX, 0));
    if (!decoded.valid()) {
        damaged(path, cat("its superblock is ", verdict_name(decoded.verdict)));
    }
    RescueFile rescue{decoded.value, {}};
    const auto blocks = hidden_blocks_of(rescue.superblock);
    const std::uint64_t nr_lost = le64toh(header.nr_lost);
    const std::uint64_t bytes = blocks.size() * rescue.superblock.block_size();
    if (le64toh(header.nr_blocks) != blocks.size() || nr_lost > blocks.size() ||
        le64toh(header.block_bytes) != rescue.superblock.block_size() ||
        file.size() != header_size + REMAP_SB_SIZE + nr_lost * sizeof(std::uint64_t) + bytes) {
        damaged(path, "its numbers do not fit together");
    }
    rescue.content.block_bytes = rescue.superblock.block_size();
    rescue.content.blocks.assign(blocks.begin(), blocks.end());
    const std::uint8_t* at = file.data() + header_size + REMAP_SB_SIZE;
    for (std::uint64_t i = 0; i < nr_lost; ++i, at += sizeof(std::uint64_t)) {
        std::uint64_t little = 0;
        std::memcpy(&little, at, sizeof(little));
        const std::uint64_t block = le64toh(little);
        if (blocks.count(block) == 0) {
            damaged(path, cat("lost block ", block, " is none of those that were hidden"));
        }
        rescue.content.lost.insert(block);
    }
    rescue.content.bytes.assign(at, at + bytes);
    return rescue;
}

}  // namespace remap
