// SPDX-License-Identifier: GPL-2.0-or-later
//
// The rescue file: hidden blocks and geometry of one set, kept away from both members, as a LUKS
// header backup is. With it the main can be made readable again when the spare is lost.
//
// 4 KiB header, then the superblock (4 KiB), then the numbers of the blocks that were lost (8 bytes
// each), then the contents of all hidden blocks in ascending order. Little-endian. The CRC-32 in
// the header covers everything, itself taken as zero.
#pragma once

#include <string>

#include "libremap/format.hpp"
#include "libremap/places.hpp"

namespace remap {

struct RescueFile {
    Superblock superblock;
    HiddenContent content;
};

/// Creates the file, which must not exist, readable by its owner only, and makes it and its name
/// durable. Throws Error; nothing is left behind then.
void write_rescue_file(const std::string& path, const Superblock& superblock,
                       const HiddenContent& content);

/// Reads and verifies a file. Throws Error (unrecognised) if it is not a rescue file or damaged.
RescueFile read_rescue_file(const std::string& path);

}  // namespace remap
