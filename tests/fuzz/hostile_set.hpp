// SPDX-License-Identifier: GPL-2.0-or-later
//
// A set that somebody laid hands on. A fuzzer's input says which set, and then what is done to it,
// step by step: bytes of one structure in some of its copies with the checksum made right again,
// or not; sectors overwritten, unreadable, unwritable; structures copied elsewhere; another size.
#pragma once

#include <cstdint>
#include <vector>

#include "libremap/io_doubles.hpp"
#include "sample_set.hpp"
#include "support.hpp"

namespace fuzz {

/// The sets that inputs begin with; the first byte chooses.
const std::vector<remap::test::SampleSet>& sample_sets();

/// One of them with one copy of a superblock and of a table block overwritten: the set that the
/// undo files of the seed corpus belong to.
const remap::test::SampleSet& damaged_set();

/// First byte of a step.
enum class Step : std::uint8_t {
    superblock,  ///< mask of copies (bit 7: not sealed), offset, length - 1, bytes
    table,       ///< table block, mask of copies (bit 7: not sealed), offset, length - 1, bytes
    label,       ///< hidden block, 0x80: not sealed, offset, length - 1, bytes
    scribble,    ///< place, value
    bad_read,    ///< place
    bad_write,   ///< place
    copy,        ///< place to read 8 sectors at, place to write them to
    resize,      ///< sectors
    bad_main,    ///< hidden block: neither read nor written
    count,
};

class HostileSet {
  public:
    /// Takes from `input` one byte for the set and then all of it for the steps.
    explicit HostileSet(Input& input);

    const remap::test::SampleSet& sample;
    Overlay main_below;
    Overlay spare_below;
    remap::FaultIo main;
    remap::FaultIo spare;

    /// Nothing may be written from now on, as `why` says; thaw ends that.
    void freeze(const std::string& why);
    void thaw();

  private:
    void step(Input& input);
    void patch_superblocks(Input& input);
    void patch_table(Input& input);
    void patch_label(Input& input);
    std::uint64_t place(Input& input) const;
    std::uint64_t hidden_place(Input& input) const;
};

}  // namespace fuzz
