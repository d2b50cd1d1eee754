// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "libremap/uuid.hpp"

namespace remap {

/// CRC-32 (zlib's) of `bytes`, continued from `crc`.
std::uint32_t crc_of(std::span<const std::uint8_t> bytes, std::uint32_t crc = 0);

/// The CRC from which every checksum of a set is continued: set UUID and format nonce.
std::uint32_t crc_seed(const Uuid& set_uuid, std::uint64_t nonce);

/// CRC-32 (zlib's) of `bytes`, continued from `seed`, with the four bytes at `crc_offset` taken
/// as zero.
std::uint32_t crc_structure(std::uint32_t seed, std::span<const std::uint8_t> bytes,
                            std::size_t crc_offset);

}  // namespace remap
