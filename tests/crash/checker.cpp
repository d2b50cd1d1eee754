// SPDX-License-Identifier: GPL-2.0-or-later
#include "checker.hpp"

#include <algorithm>
#include <cerrno>

#include "libremap/pair.hpp"

namespace crash {

int ImageIo::try_read(std::uint64_t sector, remap::Bytes to) {
    const std::uint64_t at = sector * remap::sector_size;

    if (at > bytes_.size() || to.size() > bytes_.size() - at)
        return EIO;
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at), to.size(), to.begin());
    return 0;
}

int ImageIo::try_write(std::uint64_t /*sector*/, remap::ConstBytes /*from*/) {
    return EROFS;
}

remap::ConstBytes Image::sectors(std::uint64_t start, std::uint64_t count) const {
    return remap::ConstBytes(bytes).subspan(start * remap::sector_size, count * remap::sector_size);
}

View::View(const Image& image) : image_(image) {
    ImageIo main = image.main();
    ImageIo spare = image.spare();

    superblock_ = remap::require_openable(spare, false);
    remap::require_pair(main, "spare", superblock_, {});
    mappings_ = remap::live_mappings(remap::load_intact_table(spare, superblock_));
}

const remap::Mapping* View::find(std::uint64_t sector) const {
    const std::uint64_t block = sector / superblock_.block_sectors();
    const auto found =
        std::lower_bound(mappings_.begin(), mappings_.end(), block,
                         [](const remap::Mapping& m, std::uint64_t b) { return m.block < b; });

    return found != mappings_.end() && found->block == block ? &*found : nullptr;
}

bool View::mapped(std::uint64_t sector) const {
    return find(sector) != nullptr;
}

std::optional<std::uint64_t> View::place(std::uint64_t sector) const {
    const remap::Mapping* mapping = find(sector);

    if (!mapping) {
        if (superblock_.block_hidden(sector / superblock_.block_sectors()))
            return std::nullopt;
        return sector;
    }
    if (mapping->undecidable || mapping->entry.state() != REMAP_ENTRY_MAPPED)
        return std::nullopt;
    return image_.main_size + superblock_.slot_sector(mapping->slot) +
           sector % superblock_.block_sectors();
}

Value View::read(std::uint64_t sector) const {
    const auto at = place(sector);

    return at ? identify(image_.sectors(*at, 1), sector) : value_error;
}

const char* place_name(Place place) {
    switch (place) {
        case Place::main_data:
            return "main";
        case Place::label:
            return "label";
        case Place::superblock:
            return "superblock";
        case Place::table:
            return "table";
        case Place::slot:
            return "slot";
    }
    return "?";
}

bool is_metadata(Place place) {
    return place == Place::label || place == Place::superblock || place == Place::table;
}

Place place_of(const remap::Superblock& sb, const Image& image, std::uint64_t sector) {
    if (sector < image.main_size)
        return sb.block_hidden(sector / sb.block_sectors()) ? Place::label : Place::main_data;
    sector -= image.main_size;
    for (const std::uint64_t at : sb.sb_sector) {
        if (sector - at < REMAP_SB_SECTORS)
            return Place::superblock;
    }
    const remap::Segment& segment = sb.segment();
    for (unsigned int copy = 0; copy < segment.nr_copies; copy++) {
        const std::uint64_t start = segment.table_start.at(copy);
        if (sector - start < segment.table_blocks() * REMAP_TABLE_BLOCK_SECTORS)
            return Place::table;
    }
    return Place::slot;
}

}  // namespace crash
