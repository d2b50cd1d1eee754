// SPDX-License-Identifier: GPL-2.0-or-later
//
// A rescue file with the right checksums. Input: flags, then the file.
#include <sys/mman.h>
#include <unistd.h>

#include "libremap/crc.hpp"
#include "libremap/error.hpp"
#include "libremap/rescue_file.hpp"
#include "libremap/text.hpp"
#include "support.hpp"

using namespace remap;

namespace {

constexpr std::size_t header_size = 4096;
constexpr std::size_t crc_at = 16;

void seal(std::vector<std::uint8_t>& file) {
    if (file.size() < header_size + REMAP_SB_SIZE) {
        return;
    }
    fuzz::seal_head(std::span(file).subspan(header_size, REMAP_SB_SIZE));
    std::uint32_t crc = crc_structure(0, file, crc_at);
    for (std::size_t i = 0; i < sizeof(crc); ++i, crc >>= 8) {
        file[crc_at + i] = static_cast<std::uint8_t>(crc);
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
    static const int fd = memfd_create("rescue", MFD_CLOEXEC);
    fuzz::promise(fd >= 0 && ftruncate(fd, 0) == 0 &&
                      pwrite(fd, file.data(), file.size(), 0) == static_cast<ssize_t>(file.size()),
                  "no file in memory");
    try {
        const RescueFile rescue = read_rescue_file(cat("/proc/self/fd/", fd));
        fuzz::promise(rescue.content.bytes.size() ==
                          rescue.content.blocks.size() * rescue.content.block_bytes,
                      "blocks and bytes do not fit together");
        for (std::size_t i = 0; i < rescue.content.blocks.size(); ++i) {
            static_cast<void>(rescue.content.at(i).back());
            fuzz::promise(rescue.superblock.block_hidden(rescue.content.blocks[i]),
                          "a block that is not hidden");
        }
        for (const std::uint64_t block : rescue.content.lost) {
            fuzz::promise(rescue.superblock.block_hidden(block), "a lost block is not hidden");
        }
    } catch (const Error& error) {
        fuzz::promise(error.code() == Exit::unrecognised, error.what());
    }
    return 0;
}
