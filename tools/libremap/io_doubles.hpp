// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"

namespace remap {

/// A device in memory.
class MemoryIo : public BlockIo {
  public:
    MemoryIo(std::string name, std::uint64_t sectors, std::uint32_t logical_block_size = 512);
    MemoryIo(std::string name, std::vector<std::uint8_t> content,
             std::uint32_t logical_block_size = 512);

    int try_read(std::uint64_t sector, Bytes to) override;
    int try_write(std::uint64_t sector, ConstBytes from) override;
    int try_flush() override { return 0; }
    std::uint64_t size() const override { return content_.size() / sector_size; }
    std::uint32_t logical_block_size() const override { return logical_; }
    std::uint32_t physical_block_size() const override { return logical_; }
    const std::string& name() const override { return name_; }
    bool is_block_device() const override { return false; }

    std::vector<std::uint8_t>& content() { return content_; }
    const std::vector<std::uint8_t>& content() const { return content_; }

  private:
    std::string name_;
    std::vector<std::uint8_t> content_;
    std::uint32_t logical_;
};

/// Passes everything on to another BlockIo, which must outlive it.
class StackedIo : public BlockIo {
  public:
    explicit StackedIo(BlockIo& below) : below_(below) {}

    int try_read(std::uint64_t sector, Bytes to) override { return below_.try_read(sector, to); }
    int try_write(std::uint64_t sector, ConstBytes from) override {
        return below_.try_write(sector, from);
    }
    int try_flush() override { return below_.try_flush(); }
    std::uint64_t size() const override { return below_.size(); }
    std::uint32_t logical_block_size() const override { return below_.logical_block_size(); }
    std::uint32_t physical_block_size() const override { return below_.physical_block_size(); }
    const std::string& name() const override { return below_.name(); }
    bool is_block_device() const override { return below_.is_block_device(); }
    int fd() const override { return below_.fd(); }

  protected:
    BlockIo& below() { return below_; }

  private:
    BlockIo& below_;
};

/// Records every write and flush that reached the device below.
class RecordingIo : public StackedIo {
  public:
    struct Event {
        bool flush = false;
        std::uint64_t sector = 0;
        std::vector<std::uint8_t> data;
    };

    explicit RecordingIo(BlockIo& below) : StackedIo(below) {}

    int try_write(std::uint64_t sector, ConstBytes from) override;
    int try_flush() override;

    const std::vector<Event>& events() const { return events_; }
    /// Number of writes, flushes not counted.
    std::size_t writes() const;

    /// Applies the first `count` events to `content`; of the write after them, if `torn` is not
    /// zero, the first `torn` sectors: what a power cut leaves.
    void replay(std::vector<std::uint8_t>& content, std::size_t count,
                std::uint64_t torn = 0) const;

  private:
    std::vector<Event> events_;
};

/// Fails I/O: at chosen sectors, or from a chosen write on, as a power cut does.
class FaultIo : public StackedIo {
  public:
    explicit FaultIo(BlockIo& below) : StackedIo(below) {}

    int try_read(std::uint64_t sector, Bytes to) override;
    int try_write(std::uint64_t sector, ConstBytes from) override;
    int try_flush() override;

    /// Reads that touch one of these sectors fail with EIO.
    std::set<std::uint64_t> bad_reads;
    /// Writes that touch one of these sectors fail with EIO; sectors before it are written.
    std::set<std::uint64_t> bad_writes;
    bool fail_flush = false;
    /// After this many writes the power is off: the next write puts down only its first
    /// `torn_sectors` sectors, and it and everything else throws PowerCut. Negative: never.
    std::int64_t power_cut_after = -1;
    std::uint64_t torn_sectors = 0;

    /// Thrown when the power is off. Not an Error: no code under test may catch and report it.
    struct PowerCut {};

  private:
    bool off_ = false;
};

}  // namespace remap
