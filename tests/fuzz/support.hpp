// SPDX-License-Identifier: GPL-2.0-or-later
//
// What all fuzz targets share. Everything that dm-remap reads is under a checksum, which no fuzzer
// guesses: the targets make it right before they hand the bytes on, unless the input says not to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"

namespace fuzz {

/// Takes a fuzzer's bytes apart; zeroes follow when there are no more.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

    bool empty() const { return rest_.empty(); }
    std::uint8_t byte();
    std::uint16_t word();      ///< little-endian
    std::uint64_t quadword();  ///< little-endian
    /// `count` bytes, zeroes where they are missing.
    std::vector<std::uint8_t> bytes(std::size_t count);
    /// All that is left.
    std::span<const std::uint8_t> rest() const { return rest_; }
    std::string text() const { return {rest_.begin(), rest_.end()}; }

  private:
    std::span<const std::uint8_t> rest_;
};

/// Ends the program with a report if `holds` is false: the promise that was broken.
void promise(bool holds, const std::string& what);

/// Ends the program unless the text `name` was refused as unknown or too new, with the line where
/// it goes wrong, and in words that a terminal can show.
void check_refusal(const remap::Error& error, const std::string& name);

/// Puts the right checksum into a superblock, label or filler / a table block.
void seal_head(std::span<std::uint8_t> structure);
void seal_table_block(std::span<std::uint8_t> block, std::uint32_t seed);

/// A device in memory that begins as `base` and keeps only what was written over it: a new one
/// costs nothing.
class Overlay : public remap::BlockIo {
  public:
    Overlay(std::string name, const std::vector<std::uint8_t>& base, std::uint32_t block_size)
        : name_(std::move(name)),
          base_(base),
          sectors_(base.size() / remap::sector_size),
          logical_(block_size) {}

    int try_read(std::uint64_t sector, remap::Bytes to) override;
    int try_write(std::uint64_t sector, remap::ConstBytes from) override;
    int try_flush() override { return 0; }
    std::uint64_t size() const override { return sectors_; }
    std::uint32_t logical_block_size() const override { return logical_; }
    std::uint32_t physical_block_size() const override { return logical_; }
    const std::string& name() const override { return name_; }
    bool is_block_device() const override { return false; }

    /// What damage does, past all checks; nothing beyond the end.
    void put(std::uint64_t byte, remap::ConstBytes bytes);
    /// The device has another size now; what is beyond the base is zero.
    void resize(std::uint64_t sectors) { sectors_ = sectors; }

    /// From now on a write ends the program: `why`.
    void freeze(const std::string& why) { frozen_ = why; }
    void thaw() { frozen_.clear(); }
    /// Has any sector another content than this one had? Sizes are the same.
    bool same_as(const Overlay& other) const;

  private:
    using Sector = std::vector<std::uint8_t>;
    Sector sector_of(std::uint64_t sector) const;

    std::string name_;
    const std::vector<std::uint8_t>& base_;
    std::uint64_t sectors_;
    std::uint32_t logical_;
    std::string frozen_;
    std::unordered_map<std::uint64_t, Sector> changed_;
};

/// Ends the program unless `text` is JSON without a byte that could drive a terminal; the same for
/// text, which need not be JSON.
void check_json(const std::string& text);
void check_text(const std::string& text);

}  // namespace fuzz
