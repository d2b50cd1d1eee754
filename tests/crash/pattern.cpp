// SPDX-License-Identifier: GPL-2.0-or-later
#include "pattern.hpp"

#include <array>
#include <cstring>

namespace crash {
namespace {

using Words = std::array<std::uint64_t, remap::sector_size / 8>;

std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

Words pattern(std::uint64_t seed, std::uint64_t sector) {
    const std::uint64_t state = mix(seed ^ mix(sector));
    Words words{};

    if (seed == 0)
        return words;
    words[0] = sector;
    words[1] = seed;
    for (std::size_t i = 2; i < words.size(); i++)
        words[i] = mix(state + i);
    return words;
}

}  // namespace

void fill_sector(remap::Bytes to, Value seed, std::uint64_t sector) {
    std::memcpy(to.data(), pattern(seed, sector).data(), remap::sector_size);
}

Value identify(remap::ConstBytes bytes, std::uint64_t sector) {
    Words words{};

    std::memcpy(words.data(), bytes.data(), sizeof(words));
    const std::uint64_t seed = words[1];
    if (seed != 0 && (words[0] != sector || seed >= value_unknown))
        return value_unknown;
    return words == pattern(seed, sector) ? static_cast<Value>(seed) : value_unknown;
}

Value identify(remap::ConstBytes bytes) {
    std::uint64_t sector = 0;

    std::memcpy(&sector, bytes.data(), sizeof(sector));
    return identify(bytes, sector);
}

}  // namespace crash
