// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a remap device would show of two members as a power cut left them, by libremap's reader of
// the metadata, which shares no code with the kernel's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/metadata.hpp"
#include "pattern.hpp"

namespace crash {

/// A device that is a part of an image in memory. Nobody may write to it.
class ImageIo : public remap::BlockIo {
  public:
    ImageIo(std::string name, remap::ConstBytes bytes) : name_(std::move(name)), bytes_(bytes) {}

    int try_read(std::uint64_t sector, remap::Bytes to) override;
    int try_write(std::uint64_t sector, remap::ConstBytes from) override;
    int try_flush() override { return 0; }
    std::uint64_t size() const override { return bytes_.size() / remap::sector_size; }
    std::uint32_t logical_block_size() const override { return remap::sector_size; }
    std::uint32_t physical_block_size() const override { return remap::sector_size; }
    const std::string& name() const override { return name_; }
    bool is_block_device() const override { return false; }

  private:
    std::string name_;
    remap::ConstBytes bytes_;
};

/// An image: the main, and the spare behind it.
struct Image {
    std::vector<std::uint8_t> bytes;
    std::uint64_t main_size = 0;   ///< sectors
    std::uint64_t spare_size = 0;  ///< sectors

    remap::ConstBytes sectors(std::uint64_t start, std::uint64_t count) const;
    ImageIo main() const { return {"main", sectors(0, main_size)}; }
    ImageIo spare() const { return {"spare", sectors(main_size, spare_size)}; }
};

/// Where each block of a set is, as the kernel is to find it at the next load.
class View {
  public:
    /// Throws remap::Error if the set does not open.
    explicit View(const Image& image);

    const remap::Superblock& superblock() const { return superblock_; }

    /// The sector of the image that a sector of the remap device is read from; nothing if it reads
    /// as an error.
    std::optional<std::uint64_t> place(std::uint64_t sector) const;

    Value read(std::uint64_t sector) const;

    /// Is the sector's block in a slot, or lost?
    bool mapped(std::uint64_t sector) const;

  private:
    const remap::Mapping* find(std::uint64_t sector) const;

    const Image& image_;
    remap::Superblock superblock_;
    std::vector<remap::Mapping> mappings_;  ///< ascending by block
};

/// Which of the set's structures a sector of the image belongs to.
enum class Place { main_data, label, superblock, table, slot };
const char* place_name(Place place);
bool is_metadata(Place place);
Place place_of(const remap::Superblock& superblock, const Image& image, std::uint64_t sector);

}  // namespace crash
