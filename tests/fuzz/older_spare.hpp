// SPDX-License-Identifier: GPL-2.0-or-later
//
// Spares of the older project that somebody laid hands on. An input says what lies on one, step by
// step: DMR4's copies with their entries, the setup script's headers, DMREMAP3, data, bytes
// overwritten with the checksum made right again or not, sectors that cannot be read.
#pragma once

#include <cstdint>
#include <vector>

#include "libremap/io_doubles.hpp"
#include "support.hpp"

namespace fuzz {

/// First byte of a step.
enum class OlderStep : std::uint8_t {
    dmr4,      ///< mask of copies, sequence, entries; for each 2 bytes: main and spare sector
    script,    ///< number of its place
    dmremap3,  ///< entries, as above
    patch,     ///< place (bit 15: no new checksum), offset, length - 1, bytes
    data,      ///< sector of the spare, value
    bad_read,  ///< sector of the spare
    count,
};

class OlderSpareImage {
  public:
    static constexpr std::uint64_t sectors = 12288;
    static constexpr std::uint64_t main_sectors = 2048;

    /// Takes all of `input` for the steps.
    explicit OlderSpareImage(Input& input);

    Overlay main;
    Overlay below;
    remap::FaultIo spare;

  private:
    void step(Input& input);
    void put_dmr4(Input& input);
    void put_script(Input& input);
    void put_dmremap3(Input& input);
    void patch(Input& input);
};

}  // namespace fuzz
