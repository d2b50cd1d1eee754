// SPDX-License-Identifier: GPL-2.0-or-later
//
// A repair is first carried out in memory, over the devices, to learn what it will write; then for
// real, through a guard that lets nothing else through.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "libremap/io_doubles.hpp"

namespace remap {

/// What was written to the members of a set: where, in which order, and what.
class WriteJournal {
  public:
    /// Neighbouring sectors of one member that were written one after the other.
    struct Run {
        unsigned int member = 0;
        std::uint64_t sector = 0;
        std::uint64_t count = 0;  ///< sectors, at most `longest`
    };
    static constexpr std::uint64_t longest = 2048;
    static constexpr unsigned int members = 2;

    /// Notes a write of whole sectors.
    void note(unsigned int member, std::uint64_t sector, ConstBytes bytes);

    /// Every sector that was written once, in the order of its first write.
    const std::vector<Run>& runs() const { return runs_; }

    /// CRCs of everything that a sector was made to hold, or nullptr if it was not written.
    const std::vector<std::uint32_t>* images(unsigned int member, std::uint64_t sector) const;

    bool writes(unsigned int member) const { return !images_.at(member).empty(); }
    bool empty() const { return runs_.empty(); }

  private:
    std::vector<Run> runs_;
    std::array<std::unordered_map<std::uint64_t, std::vector<std::uint32_t>>, members> images_;
};

/// Shows the device below with everything written over it; what is written stays in memory, in
/// pieces of 4 KiB. Writes that the device would refuse for their place are refused.
class OverlayIo : public StackedIo {
  public:
    /// Notes writes in `journal`, if there is one, as those of `member`.
    OverlayIo(BlockIo& below, WriteJournal* journal, unsigned int member)
        : StackedIo(below), journal_(journal), member_(member) {}

    int try_read(std::uint64_t sector, Bytes to) override;
    int try_write(std::uint64_t sector, ConstBytes from) override;
    int try_flush() override { return 0; }
    /// None: nobody gets past the overlay.
    int fd() const override { return -1; }

    /// Does the sector's content come from memory?
    bool holds(std::uint64_t sector) const;

  private:
    static constexpr std::uint64_t page_sectors = 8;
    struct Page {
        std::array<std::uint8_t, page_sectors * sector_size> bytes{};
        std::uint8_t held = 0;  ///< bit n: sector n
    };

    std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
    WriteJournal* journal_;
    unsigned int member_;
};

/// Lets only those sectors be written that a journal has. A write elsewhere fails with EPERM and
/// reaches nothing. Content that the journal does not have (a repair takes another way after an I/O
/// error) is told first.
class GuardIo : public StackedIo {
  public:
    /// Called with member, sector and the CRC of each sector that is going to be written. If it
    /// throws an Error, the write fails with EIO and reaches nothing.
    using NewImage =
        std::function<void(unsigned int, std::uint64_t, const std::vector<std::uint32_t>&)>;

    GuardIo(BlockIo& below, const WriteJournal& journal, unsigned int member, NewImage new_image)
        : StackedIo(below), journal_(journal), member_(member), new_image_(std::move(new_image)) {}

    int try_write(std::uint64_t sector, ConstBytes from) override;

    /// Number of writes that were refused.
    unsigned int refused() const { return refused_; }

  private:
    const WriteJournal& journal_;
    unsigned int member_;
    NewImage new_image_;
    unsigned int refused_ = 0;
};

}  // namespace remap
