// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>

namespace fuzz {

/// What was allocated since it was made and not freed. One at a time.
class MemoryUse {
  public:
    MemoryUse();
    ~MemoryUse();
    MemoryUse(const MemoryUse&) = delete;
    MemoryUse& operator=(const MemoryUse&) = delete;

    /// The most at any moment, bytes.
    std::size_t most() const;
};

}  // namespace fuzz
