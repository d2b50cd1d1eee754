// SPDX-License-Identifier: GPL-2.0-only
/*
 * In-memory map of dm-remap, see dm-remap-map.h.
 *
 * The main is cut into chunks of REMAP_CHUNK_BLOCKS blocks.  A chunk with
 * mapped blocks has a sorted array of runs, which is never changed: a writer
 * expands it, applies its changes, packs a new array and swaps the pointer.
 * In front of that stands a bitmap with a bit for each granule of the main,
 * so that the common lookup touches one word.
 */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "dm-remap-map.h"

#define REMAP_CHUNK_SHIFT	11
#define REMAP_CHUNK_BLOCKS	BIT(REMAP_CHUNK_SHIFT)
#define REMAP_CHUNK_MASK	(REMAP_CHUNK_BLOCKS - 1)

/* The filter takes 4 MiB at most: its granules grow with the main. */
#define REMAP_FILTER_MAX_BITS	BIT_ULL(25)
#define REMAP_GRANULE_BYTES	65536

struct remap_packed {
	u32 start : 11;
	u32 last : 11;		/* inclusive */
	u32 where : 2;
	u32 slot;
};

struct remap_chunk {
	struct rcu_head rcu;
	struct remap_chunk *next;	/* in the chain of prepared chunks */
	unsigned long index;
	u32 nr;
	struct remap_packed runs[];
};

/* In the scratch array a block takes two words: where, slot. */
#define REMAP_SCRATCH_WORDS	(2 * REMAP_CHUNK_BLOCKS)

int remap_map_init(struct remap_map *map, u64 nr_blocks, unsigned int block_shift)
{
	u64 bits;

	memset(map, 0, sizeof(*map));
	if ((nr_blocks >> REMAP_CHUNK_SHIFT) > ULONG_MAX)
		return -EFBIG;

	xa_init(&map->chunks);
	map->nr_blocks = nr_blocks;
	map->granule_shift = ilog2(REMAP_GRANULE_BYTES) - block_shift;
	while ((bits = (nr_blocks >> map->granule_shift) + 1) > REMAP_FILTER_MAX_BITS)
		map->granule_shift++;

	map->filter = kvcalloc(BITS_TO_LONGS(bits), sizeof(long), GFP_KERNEL);
	map->scratch = kvmalloc_array(REMAP_SCRATCH_WORDS, sizeof(u32), GFP_KERNEL);
	if (!map->filter || !map->scratch) {
		remap_map_exit(map);
		return -ENOMEM;
	}
	return 0;
}

void remap_map_clear(struct remap_map *map)
{
	struct remap_chunk *chunk;
	unsigned long index;

	remap_map_abandon(map);
	xa_for_each(&map->chunks, index, chunk)
		kvfree(chunk);
	xa_destroy(&map->chunks);
	if (map->filter)
		bitmap_zero(map->filter, (map->nr_blocks >> map->granule_shift) + 1);
	map->used = false;
}

void remap_map_exit(struct remap_map *map)
{
	remap_map_clear(map);
	kvfree(map->filter);
	kvfree(map->scratch);
	map->filter = NULL;
	map->scratch = NULL;
}

bool __remap_map_filter(struct remap_map *map, u64 block, u32 nr)
{
	unsigned long first = block >> map->granule_shift;
	unsigned long last = (block + nr - 1) >> map->granule_shift;

	if (likely(first == last))
		return !test_bit(first, map->filter);
	return find_next_bit(map->filter, last + 1, first) > last;
}

/* Index of the first run of @chunk that ends at or after @offset. */
static u32 remap_chunk_find(const struct remap_chunk *chunk, u32 offset)
{
	u32 lo = 0, hi = chunk->nr;

	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (chunk->runs[mid].last < offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The run at @offset within one chunk; @chunk may be NULL. */
static void remap_chunk_lookup(const struct remap_chunk *chunk, u32 offset,
			       struct remap_run *run)
{
	u32 i = chunk ? remap_chunk_find(chunk, offset) : 0;

	run->where = REMAP_AT_MAIN;
	run->slot = REMAP_NO_SLOT;
	if (!chunk || i == chunk->nr) {
		run->count = REMAP_CHUNK_BLOCKS - offset;
	} else if (chunk->runs[i].start > offset) {
		run->count = chunk->runs[i].start - offset;
	} else {
		run->where = chunk->runs[i].where;
		if (chunk->runs[i].slot != REMAP_NO_SLOT)
			run->slot = chunk->runs[i].slot + (offset - chunk->runs[i].start);
		run->count = chunk->runs[i].last - offset + 1;
	}
}

static bool remap_run_continues(const struct remap_run *run, const struct remap_run *next)
{
	if (run->where != next->where)
		return false;
	if (run->slot == REMAP_NO_SLOT || next->slot == REMAP_NO_SLOT)
		return run->slot == next->slot;
	return run->slot + run->count == next->slot;
}

void __remap_map_lookup(struct remap_map *map, u64 block, u32 nr,
			struct remap_run *run)
{
	struct remap_run next;

	rcu_read_lock();
	remap_chunk_lookup(xa_load(&map->chunks, block >> REMAP_CHUNK_SHIFT),
			   block & REMAP_CHUNK_MASK, run);
	/* A run that reaches the end of its chunk may go on in the next one. */
	while (run->count < nr && !((block + run->count) & REMAP_CHUNK_MASK)) {
		remap_chunk_lookup(xa_load(&map->chunks,
					   (block + run->count) >> REMAP_CHUNK_SHIFT),
				   0, &next);
		if (!remap_run_continues(run, &next))
			break;
		run->count += next.count;
	}
	rcu_read_unlock();

	run->count = min(run->count, nr);
}

static void remap_chunk_expand(const struct remap_chunk *chunk, u32 *scratch)
{
	u32 i, b;

	memset(scratch, 0, REMAP_SCRATCH_WORDS * sizeof(u32));
	if (!chunk)
		return;

	for (i = 0; i < chunk->nr; i++) {
		const struct remap_packed *p = &chunk->runs[i];

		for (b = p->start; b <= p->last; b++) {
			scratch[2 * b] = p->where;
			scratch[2 * b + 1] = p->slot == REMAP_NO_SLOT ?
				REMAP_NO_SLOT : p->slot + (b - p->start);
		}
	}
}

/* Pack the runs of @scratch into @runs, or just count them if it is NULL. */
static u32 remap_chunk_pack(const u32 *scratch, struct remap_packed *runs)
{
	struct remap_run run = { .where = REMAP_AT_MAIN }, cur;
	u32 b, nr = 0;

	for (b = 0; b < REMAP_CHUNK_BLOCKS; b++) {
		cur.where = scratch[2 * b];
		cur.slot = scratch[2 * b + 1];
		cur.count = 1;

		if (cur.where == REMAP_AT_MAIN) {
			run.where = REMAP_AT_MAIN;
			continue;
		}
		if (run.where != REMAP_AT_MAIN && remap_run_continues(&run, &cur)) {
			run.count++;
			if (runs)
				runs[nr - 1].last = b;
			continue;
		}
		if (runs)
			runs[nr] = (struct remap_packed) {
				.start = b, .last = b, .where = cur.where, .slot = cur.slot,
			};
		run = cur;
		nr++;
	}
	return nr;
}

int remap_map_prepare(struct remap_map *map, const struct remap_change *changes,
		      size_t nr, gfp_t gfp)
{
	struct remap_chunk *chunk, **tail = &map->prepared;
	unsigned long index;
	size_t i = 0;
	u32 runs;

	WARN_ON_ONCE(map->prepared);

	while (i < nr) {
		cond_resched();
		index = changes[i].block >> REMAP_CHUNK_SHIFT;
		/* The writer's own view: nobody else stores. */
		remap_chunk_expand(xa_load(&map->chunks, index), map->scratch);
		for (; i < nr && changes[i].block >> REMAP_CHUNK_SHIFT == index; i++) {
			u32 b = changes[i].block & REMAP_CHUNK_MASK;

			map->scratch[2 * b] = changes[i].where;
			map->scratch[2 * b + 1] = changes[i].slot;
		}

		runs = remap_chunk_pack(map->scratch, NULL);
		chunk = kvmalloc(struct_size(chunk, runs, runs), gfp);
		if (!chunk)
			goto no_memory;
		chunk->next = NULL;
		chunk->index = index;
		chunk->nr = remap_chunk_pack(map->scratch, chunk->runs);
		*tail = chunk;
		tail = &chunk->next;

		if (!xa_load(&map->chunks, index) &&
		    xa_reserve(&map->chunks, index, gfp))
			goto no_memory;
	}
	return 0;

no_memory:
	remap_map_abandon(map);
	return -ENOMEM;
}

void remap_map_abandon(struct remap_map *map)
{
	struct remap_chunk *chunk;

	while ((chunk = map->prepared)) {
		map->prepared = chunk->next;
		xa_release(&map->chunks, chunk->index);
		kvfree(chunk);
	}
}

void remap_map_publish(struct remap_map *map)
{
	struct remap_chunk *chunk, *old;
	u32 i;

	while ((chunk = map->prepared)) {
		u64 base = (u64)chunk->index << REMAP_CHUNK_SHIFT;

		map->prepared = chunk->next;
		for (i = 0; i < chunk->nr; i++) {
			unsigned long bit = (base + chunk->runs[i].start) >> map->granule_shift;
			unsigned long last = (base + chunk->runs[i].last) >> map->granule_shift;

			for (; bit <= last; bit++)
				set_bit(bit, map->filter);
		}
		/* The place was reserved: storing takes no memory and cannot fail. */
		old = xa_store(&map->chunks, chunk->index, chunk, GFP_NOWAIT);
		if (WARN_ON_ONCE(xa_is_err(old)))
			continue;
		if (old)
			kvfree_rcu(old, rcu);
	}
	/* Readers that see the flag must see the filter and the chunks. */
	smp_store_release(&map->used, true);
}
