// SPDX-License-Identifier: GPL-2.0-or-later
//
// The contents that tests/vm/guest/blkio.c gives a sector, and what is read back as a number.
#pragma once

#include <cstdint>

#include "libremap/block_io.hpp"

namespace crash {

/// What a sector holds: the seed of its pattern (0: zeroes), or one of the two below.
using Value = std::uint32_t;
constexpr Value value_error = 0xffffffff;    ///< cannot be read
constexpr Value value_unknown = 0xfffffffe;  ///< nobody's pattern, or that of another sector

/// The pattern of `seed` for `sector` of the remap device, 512 bytes.
void fill_sector(remap::Bytes to, Value seed, std::uint64_t sector);

/// Whose pattern the 512 bytes are, if it is one for `sector`.
Value identify(remap::ConstBytes bytes, std::uint64_t sector);

/// The same for the sector that the bytes themselves name.
Value identify(remap::ConstBytes bytes);

}  // namespace crash
