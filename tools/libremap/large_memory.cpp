// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/large_memory.hpp"

#include <sys/mman.h>

#include <cstdint>

namespace remap {

void expect_large(void* memory, std::size_t size) {
    constexpr std::uintptr_t piece = std::uintptr_t{2} << 20;
    const auto begin = reinterpret_cast<std::uintptr_t>(memory);
    const std::uintptr_t first = (begin + piece - 1) / piece * piece;
    const std::uintptr_t end = (begin + size) / piece * piece;

    // Whole pieces only, so that nothing else becomes larger; without them it is slower, no more.
    if (end > first)
        static_cast<void>(madvise(static_cast<std::uint8_t*>(memory) + (first - begin), end - first,
                                  MADV_HUGEPAGE));
}

}  // namespace remap
