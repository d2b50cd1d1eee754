// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/crc.hpp"

#include <zlib.h>

#include <array>

namespace remap {
namespace {

std::uint32_t continue_crc(std::uint32_t crc, std::span<const std::uint8_t> bytes) {
    return static_cast<std::uint32_t>(
        crc32(crc, bytes.data(), static_cast<unsigned int>(bytes.size())));
}

}  // namespace

std::uint32_t crc_seed(const Uuid& set_uuid, std::uint64_t nonce) {
    std::array<std::uint8_t, 8> little{};

    for (auto& byte : little) {
        byte = static_cast<std::uint8_t>(nonce);
        nonce >>= 8;
    }
    return continue_crc(continue_crc(0, set_uuid.bytes), little);
}

std::uint32_t crc_structure(std::uint32_t seed, std::span<const std::uint8_t> bytes,
                            std::size_t crc_offset) {
    static constexpr std::array<std::uint8_t, 4> zero{};

    const std::uint32_t before = continue_crc(seed, bytes.first(crc_offset));
    return continue_crc(continue_crc(before, zero), bytes.subspan(crc_offset + zero.size()));
}

}  // namespace remap
