// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <vector>

#include "libremap/undo.hpp"

namespace remap::test {

/// An undo file in memory.
class MemorySink : public UndoSink {
  public:
    void append(ConstBytes data) override { bytes.insert(bytes.end(), data.begin(), data.end()); }
    void sync() override {}

    std::vector<std::uint8_t> bytes;
};

}  // namespace remap::test
