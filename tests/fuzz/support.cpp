// SPDX-License-Identifier: GPL-2.0-or-later
#include "support.hpp"

#include <dm-remap-format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "libremap/crc.hpp"
#include "libremap/text.hpp"

namespace fuzz {
namespace {

void put_crc(std::span<std::uint8_t> structure, std::size_t at, std::uint32_t crc) {
    for (std::size_t i = 0; i < sizeof(crc); ++i, crc >>= 8) {
        structure[at + i] = static_cast<std::uint8_t>(crc);
    }
}

std::uint64_t little(std::span<const std::uint8_t> bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) {
        value = value << 8 | bytes[i];
    }
    return value;
}

}  // namespace

std::uint8_t Input::byte() {
    return bytes(1).front();
}

std::uint16_t Input::word() {
    return static_cast<std::uint16_t>(little(bytes(2)));
}

std::uint64_t Input::quadword() {
    return little(bytes(8));
}

std::vector<std::uint8_t> Input::bytes(std::size_t count) {
    const std::size_t there = std::min(count, rest_.size());
    std::vector<std::uint8_t> taken(rest_.begin(),
                                    rest_.begin() + static_cast<std::ptrdiff_t>(there));
    taken.resize(count);
    rest_ = rest_.subspan(there);
    return taken;
}

void promise(bool holds, const std::string& what) {
    if (!holds) {
        std::fprintf(stderr, "broken promise: %s\n", what.c_str());
        std::abort();
    }
}

void check_refusal(const remap::Error& error, const std::string& name) {
    constexpr std::size_t longest = 8192;
    const std::string text = error.what();
    const std::string start = name + ": line ";
    promise(error.code() == remap::Exit::unrecognised || error.code() == remap::Exit::operational,
            "the wrong exit code: " + text);
    promise(text.starts_with(start) && text.size() > start.size() && text[start.size()] >= '1' &&
                text[start.size()] <= '9',
            "no line is named: " + text);
    promise(text.size() <= longest, "nobody reads so much: " + text.substr(0, longest));
}

void seal_head(std::span<std::uint8_t> structure) {
    remap::Uuid set;
    std::copy_n(structure.begin() + offsetof(remap_head, set_uuid), set.bytes.size(),
                set.bytes.begin());
    const std::uint64_t nonce = little(structure.subspan(offsetof(remap_head, nonce), 8));
    put_crc(
        structure, offsetof(remap_head, crc),
        remap::crc_structure(remap::crc_seed(set, nonce), structure, offsetof(remap_head, crc)));
}

void seal_table_block(std::span<std::uint8_t> block, std::uint32_t seed) {
    put_crc(block, offsetof(remap_table_block, crc),
            remap::crc_structure(seed, block, offsetof(remap_table_block, crc)));
}

Overlay::Sector Overlay::sector_of(std::uint64_t sector) const {
    const auto found = changed_.find(sector);
    if (found != changed_.end()) {
        return found->second;
    }
    Sector content(remap::sector_size);
    if (sector < base_.size() / remap::sector_size) {
        std::copy_n(base_.begin() + static_cast<std::ptrdiff_t>(sector * remap::sector_size),
                    content.size(), content.begin());
    }
    return content;
}

int Overlay::try_read(std::uint64_t sector, remap::Bytes to) {
    if (sector > sectors_ || to.size() / remap::sector_size > sectors_ - sector) {
        return EIO;
    }
    const std::uint64_t base_sectors = base_.size() / remap::sector_size;
    for (; !to.empty(); to = to.subspan(remap::sector_size), ++sector) {
        const auto found = changed_.find(sector);
        if (found != changed_.end()) {
            std::memcpy(to.data(), found->second.data(), remap::sector_size);
        } else if (sector < base_sectors) {
            std::memcpy(to.data(), base_.data() + sector * remap::sector_size, remap::sector_size);
        } else {
            std::memset(to.data(), 0, remap::sector_size);
        }
    }
    return 0;
}

int Overlay::try_write(std::uint64_t sector, remap::ConstBytes from) {
    if (sector > sectors_ || from.size() / remap::sector_size > sectors_ - sector) {
        return ENOSPC;
    }
    if (sector * remap::sector_size % logical_ != 0 || from.size() % logical_ != 0) {
        return EINVAL;
    }
    if (!frozen_.empty()) {
        promise(false, remap::cat(name_, ": sector ", sector, " is written: ", frozen_));
    }
    for (; !from.empty(); from = from.subspan(remap::sector_size), ++sector) {
        changed_[sector].assign(from.begin(), from.begin() + remap::sector_size);
    }
    return 0;
}

void Overlay::put(std::uint64_t byte, remap::ConstBytes bytes) {
    while (!bytes.empty() && byte / remap::sector_size < sectors_) {
        const std::uint64_t sector = byte / remap::sector_size;
        const std::size_t start = byte % remap::sector_size;
        const std::size_t now = std::min<std::size_t>(bytes.size(), remap::sector_size - start);
        Sector content = sector_of(sector);
        std::copy_n(bytes.begin(), now, content.begin() + static_cast<std::ptrdiff_t>(start));
        changed_[sector] = std::move(content);
        bytes = bytes.subspan(now);
        byte += now;
    }
}

bool Overlay::same_as(const Overlay& other) const {
    const auto covered = [](const Overlay& a, const Overlay& b) {
        return std::all_of(a.changed_.begin(), a.changed_.end(), [&](const auto& entry) {
            return b.sector_of(entry.first) == entry.second;
        });
    };
    return sectors_ == other.sectors_ && covered(*this, other) && covered(other, *this);
}

void check_text(const std::string& text) {
    for (const char byte : text) {
        const auto value = static_cast<unsigned char>(byte);
        promise(byte == '\n' || (value >= 0x20 && value != 0x7f),
                "a control character is shown: " + std::to_string(value));
    }
}

void check_json(const std::string& text) {
    check_text(text);
    promise(nlohmann::json::accept(text), "this is no JSON: " + text);
}

}  // namespace fuzz
