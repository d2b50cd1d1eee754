// SPDX-License-Identifier: GPL-2.0-or-later
//
// Headers of the layers whose tools want a kernel, on images.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "set_fixture.hpp"

namespace payloads {

using fixture::Image;

template <typename T>
void put(Image& image, std::size_t at, T value) {
    std::memcpy(image.data() + at, &value, sizeof(value));
}

inline void put_text(Image& image, std::size_t at, const std::string& text) {
    std::copy(text.begin(), text.end(), image.begin() + static_cast<std::ptrdiff_t>(at));
}

/// A physical volume's label in sector 1.
inline void make_lvm(Image& image) {
    constexpr std::size_t label = 512;
    constexpr std::size_t crc_from = 20;
    constexpr uLong initial = 0xf597a6cf;
    put_text(image, label, "LABELONE");
    put(image, label + 8, std::uint64_t{1});
    put(image, label + 20, std::uint32_t{32});
    put_text(image, label + 24, "LVM2 001");
    put_text(image, label + 32, "abcdefghijklmnopqrstuvwxyz012345");
    // LVM's CRC is zlib's without the inversions at both ends.
    const uLong crc = crc32(initial ^ 0xffffffffU, image.data() + label + crc_from, 512 - crc_from);
    put(image, label + 16, static_cast<std::uint32_t>(crc ^ 0xffffffffU));
}

/// The superblock of an MD member, format 1, at `sector`.
inline void make_md(Image& image, std::uint64_t sector) {
    const std::size_t at = sector * 512;
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(at), 512, std::uint8_t{0});
    put(image, at, std::uint32_t{0xa92b4efc});
    put(image, at + 4, std::uint32_t{1});
    put_text(image, at + 16, "0123456789abcdef");
    put_text(image, at + 32, "host:0");
    put(image, at + 144, sector);
}

/// A header of LUKS2 with its second one, without anything behind them.
inline void make_luks2(Image& image, std::uint64_t header_bytes) {
    for (const bool second : {false, true}) {
        const std::size_t at = second ? header_bytes : 0;
        put_text(image, at, second ? "SKUL\xba\xbe" : "LUKS\xba\xbe");
        image[at + 6] = 0;
        image[at + 7] = 2;
        for (std::size_t i = 0; i < 8; i++) {
            image[at + 8 + i] = static_cast<std::uint8_t>(header_bytes >> (56 - 8 * i));
            image[at + 256 + i] = second ? image[at + 8 + i] : std::uint8_t{0};
        }
        put_text(image, at + 72, "sha256");
        put_text(image, at + 168, "11111111-2222-3333-4444-555555555555");
    }
}

inline void make_luks1(Image& image) {
    put_text(image, 0, std::string("LUKS\xba\xbe\0\1", 8));
    put_text(image, 8, "aes");
    put_text(image, 168, "11111111-2222-3333-4444-555555555555");
}

/// Uberblocks in all four labels.
inline void make_zfs(Image& image) {
    constexpr std::size_t label = 256U << 10;
    const std::size_t end = image.size() / label * label;
    for (const std::size_t start : {std::size_t{0}, label, end - 2 * label, end - label}) {
        std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(start), label, std::uint8_t{0});
        for (std::size_t at = label / 2; at < label; at += 1024) {
            put(image, start + at, std::uint64_t{0x00bab10c});
            put(image, start + at + 8, std::uint64_t{5000});
            put(image, start + at + 16, std::uint64_t{at});
        }
    }
}

}  // namespace payloads
