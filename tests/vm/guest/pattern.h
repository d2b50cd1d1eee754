// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A sector's content is made from a seed and its own number, so that each sector on a disk tells
 * who wrote it and for where: bytes 0-7 its number, 8-15 the seed, the rest a pseudo-random
 * sequence of both. Seed 0 means all zeroes.
 */
#ifndef GUEST_PATTERN_H
#define GUEST_PATTERN_H

#include <stdint.h>
#include <string.h>

#define SECTOR 512u

static inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline void fill_sector(uint64_t* words, uint64_t seed, uint64_t sector) {
    uint64_t state = mix(seed ^ mix(sector));

    if (seed == 0) {
        memset(words, 0, SECTOR);
        return;
    }
    words[0] = sector;
    words[1] = seed;
    for (unsigned int i = 2; i < SECTOR / 8; i++)
        words[i] = mix(state + i);
}

#endif
