// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/overlay_io.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libremap/crc.hpp"
#include "libremap/error.hpp"

namespace remap {

void WriteJournal::note(unsigned int member, std::uint64_t sector, ConstBytes bytes) {
    auto& images = images_.at(member);

    for (std::size_t at = 0; at < bytes.size(); at += sector_size, sector++) {
        const std::uint32_t crc = crc_of(bytes.subspan(at, sector_size));
        auto& known = images[sector];
        if (known.empty()) {
            Run* last = runs_.empty() ? nullptr : &runs_.back();
            if (last && last->member == member && last->sector + last->count == sector &&
                last->count < longest)
                last->count++;
            else
                runs_.push_back({member, sector, 1});
        }
        if (std::find(known.begin(), known.end(), crc) == known.end())
            known.push_back(crc);
    }
}

const std::vector<std::uint32_t>* WriteJournal::images(unsigned int member,
                                                       std::uint64_t sector) const {
    const auto& images = images_.at(member);
    const auto found = images.find(sector);

    return found == images.end() ? nullptr : &found->second;
}

bool OverlayIo::holds(std::uint64_t sector) const {
    const auto page = pages_.find(sector / page_sectors);

    return page != pages_.end() && (page->second->held >> sector % page_sectors & 1) != 0;
}

int OverlayIo::try_read(std::uint64_t sector, Bytes to) {
    const std::uint64_t count = to.size() / sector_size;

    if (sector > size() || count > size() - sector)
        return EIO;
    // What is held must be readable also where the device below is not.
    for (std::uint64_t i = 0; i < count;) {
        const bool held = holds(sector + i);
        std::uint64_t end = i + 1;
        while (end < count && holds(sector + end) == held)
            end++;
        if (!held) {
            const Bytes part = to.subspan(i * sector_size, (end - i) * sector_size);
            if (const int error = StackedIo::try_read(sector + i, part))
                return error;
        }
        for (; i < end; i++) {
            if (!held)
                continue;
            const Page& page = *pages_.at((sector + i) / page_sectors);
            std::memcpy(to.data() + i * sector_size,
                        page.bytes.data() + (sector + i) % page_sectors * sector_size, sector_size);
        }
    }
    return 0;
}

int OverlayIo::try_write(std::uint64_t sector, ConstBytes from) {
    const std::uint64_t count = from.size() / sector_size;

    if (sector > size() || count > size() - sector)
        return ENOSPC;
    if (sector * sector_size % logical_block_size() != 0 || from.size() % logical_block_size() != 0)
        return EINVAL;
    for (std::uint64_t i = 0; i < count; i++) {
        auto& page = pages_[(sector + i) / page_sectors];
        if (!page)
            page = std::make_unique<Page>();
        const std::uint64_t part = (sector + i) % page_sectors;
        std::memcpy(page->bytes.data() + part * sector_size, from.data() + i * sector_size,
                    sector_size);
        page->held = static_cast<std::uint8_t>(page->held | 1U << part);
    }
    if (journal_)
        journal_->note(member_, sector, from);
    return 0;
}

int GuardIo::try_write(std::uint64_t sector, ConstBytes from) {
    std::vector<std::uint32_t> crcs;
    bool known = true;

    for (std::uint64_t i = 0; i < from.size() / sector_size; i++) {
        const auto* images = journal_.images(member_, sector + i);
        if (!images) {
            refused_++;
            return EPERM;
        }
        crcs.push_back(crc_of(from.subspan(i * sector_size, sector_size)));
        known = known && std::find(images->begin(), images->end(), crcs.back()) != images->end();
    }
    if (!known) {
        try {
            new_image_(member_, sector, crcs);
        } catch (const Error&) {
            refused_++;
            return EIO;
        }
    }
    return StackedIo::try_write(sector, from);
}

}  // namespace remap
