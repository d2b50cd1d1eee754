// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/crc.hpp"

#include <zlib.h>

#include <array>

namespace remap {

std::uint32_t crc_of(std::span<const std::uint8_t> bytes, std::uint32_t crc) {
    // zlib takes a null pointer for a request to begin anew.
    return bytes.empty() ? crc
                         : static_cast<std::uint32_t>(crc32_z(crc, bytes.data(), bytes.size()));
}

std::uint32_t crc_seed(const Uuid& set_uuid, std::uint64_t nonce) {
    std::array<std::uint8_t, 8> little{};

    for (auto& byte : little) {
        byte = static_cast<std::uint8_t>(nonce);
        nonce >>= 8;
    }
    return crc_of(little, crc_of(set_uuid.bytes));
}

std::uint32_t crc_structure(std::uint32_t seed, std::span<const std::uint8_t> bytes,
                            std::size_t crc_offset) {
    static constexpr std::array<std::uint8_t, 4> zero{};

    const std::uint32_t before = crc_of(bytes.first(crc_offset), seed);
    return crc_of(bytes.subspan(crc_offset + zero.size()), crc_of(zero, before));
}

}  // namespace remap
