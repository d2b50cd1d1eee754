// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>

namespace remap {

/// Hints that all of this memory is about to be filled: the kernel may then give it in large
/// pieces, which takes a fraction of the time.
void expect_large(void* memory, std::size_t size);

}  // namespace remap
