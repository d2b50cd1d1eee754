// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

#include "libremap/block_io.hpp"
#include "libremap/check.hpp"

namespace remap {

/// Copies a spare to the new, sparse image `path`, which is durable then. Sectors that cannot be
/// read become zeroes, but not in a slot that is in use: what is lost must not read as zeroes.
/// `progress` gets sectors done and in all, and may throw. Throws Error if the file exists, cannot
/// be written, or would lose data. The file is removed again whatever is thrown.
void copy_spare(BlockIo& spare, const CheckResult& result, const std::string& path,
                const Progress& progress);

}  // namespace remap
