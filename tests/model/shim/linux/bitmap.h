/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_BITMAP_H
#define MODEL_LINUX_BITMAP_H

#include <linux/kernel.h>

static inline void bitmap_zero(unsigned long *map, unsigned int bits)
{
	memset(map, 0, BITS_TO_LONGS(bits) * sizeof(long));
}

static inline unsigned long find_next_bit(const unsigned long *map, unsigned long end,
					  unsigned long from)
{
	while (from < end && !test_bit(from, map))
		from++;
	return min(from, end);
}

#define for_each_set_bit(bit, map, end) \
	for ((bit) = find_next_bit(map, end, 0); (bit) < (end); \
	     (bit) = find_next_bit(map, end, (bit) + 1))

#endif
