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

/// CRC-32 is linear: the register (a checksum before its last inversion) after any data is the
/// register before it, shifted by the data's length, xor what each piece of the data contributes.
/// So the checksums of many combinations of pieces cost one xor each.
///
/// The register `reg` after `bytes` zero bytes.
std::uint32_t crc_shift(std::uint32_t reg, std::size_t bytes);

/// The register before `bytes` zero bytes that led to `reg`.
std::uint32_t crc_unshift(std::uint32_t reg, std::size_t bytes);

/// What `piece` contributes to the register at the end of data that goes on for `after` bytes
/// behind it.
std::uint32_t crc_contribution(std::span<const std::uint8_t> piece, std::size_t after);

}  // namespace remap
