// SPDX-License-Identifier: GPL-2.0-only
/*
 * In-memory map of dm-remap, see dm-remap-map.h.
 *
 * The main is cut into chunks of REMAP_CHUNK_BLOCKS blocks.  A chunk with
 * mapped blocks has a sorted array of runs, which is never changed: a writer
 * merges it with its changes into a new array and swaps the pointer.
 * In front of that stands a bitmap with a bit for each granule of the main,
 * so that the common lookup touches one word.
 */
#include <linux/bitmap.h>
#include <linux/blk_types.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "dm-remap-map.h"

/*
 * Large chunks keep what a chunk costs beside its runs small where entries
 * are scattered: two offsets and the state just fit into 32 bits.
 */
#define REMAP_CHUNK_SHIFT	15
#define REMAP_CHUNK_BLOCKS	BIT(REMAP_CHUNK_SHIFT)
#define REMAP_CHUNK_MASK	(REMAP_CHUNK_BLOCKS - 1)

/* The filter takes 4 MiB at most: its granules grow with the main. */
#define REMAP_FILTER_MAX_BITS	BIT_ULL(25)
#define REMAP_GRANULE_BYTES	65536

struct remap_packed {
	u32 start : REMAP_CHUNK_SHIFT;
	u32 last : REMAP_CHUNK_SHIFT;	/* inclusive */
	u32 where : 2;
	u32 slot;
};

struct remap_chunk {
	union {
		struct rcu_head rcu;	/* once it was replaced */
		struct {		/* until it is published */
			struct remap_chunk *next;
			unsigned long index;
		};
	};
	u32 nr;
	struct remap_packed runs[];
};

int remap_map_init(struct remap_map *map, u64 nr_blocks, unsigned int block_shift)
{
	u64 bits, chunks = DIV_ROUND_UP_ULL(nr_blocks, REMAP_CHUNK_BLOCKS);

	memset(map, 0, sizeof(*map));
	if (chunks > ULONG_MAX)
		return -EFBIG;

	map->nr_blocks = nr_blocks;
	map->nr_chunks = chunks;
	map->granule_shift = ilog2(REMAP_GRANULE_BYTES) - block_shift;
	while ((bits = ((nr_blocks - 1) >> map->granule_shift) + 1) > REMAP_FILTER_MAX_BITS)
		map->granule_shift++;
	map->filter_shift = map->granule_shift + block_shift - SECTOR_SHIFT;

	map->filter = kvcalloc(BITS_TO_LONGS(bits), sizeof(long), GFP_KERNEL);
	map->chunks = kvcalloc(map->nr_chunks, sizeof(*map->chunks), GFP_KERNEL | __GFP_NOWARN);
	map->scratch = kvmalloc_array(REMAP_CHUNK_BLOCKS, sizeof(*map->scratch), GFP_KERNEL);
	if (!map->filter || !map->chunks || !map->scratch) {
		remap_map_exit(map);
		return -ENOMEM;
	}
	return 0;
}

/* The writer's own view: nobody else stores. */
static struct remap_chunk *remap_chunk_of(const struct remap_map *map, unsigned long index)
{
	return rcu_dereference_protected(map->chunks[index], true);
}

void remap_map_clear(struct remap_map *map)
{
	unsigned long index;

	remap_map_abandon(map);
	for (index = 0; map->chunks && index < map->nr_chunks; index++) {
		kvfree(remap_chunk_of(map, index));
		RCU_INIT_POINTER(map->chunks[index], NULL);
		cond_resched();
	}
	if (map->filter)
		bitmap_zero(map->filter, ((map->nr_blocks - 1) >> map->granule_shift) + 1);
	map->used = false;
}

void remap_map_exit(struct remap_map *map)
{
	remap_map_clear(map);
	kvfree(map->filter);
	kvfree(map->chunks);
	kvfree(map->scratch);
	map->filter = NULL;
	map->chunks = NULL;
	map->scratch = NULL;
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

static const struct remap_chunk *remap_chunk_rcu(const struct remap_map *map, u64 block)
{
	return rcu_dereference(map->chunks[block >> REMAP_CHUNK_SHIFT]);
}

/* A run that reaches the end of its chunk may go on in the next one. */
static void remap_run_extend(const struct remap_map *map, u64 block, u32 nr,
			     struct remap_run *run)
{
	struct remap_run next;

	while (run->count < nr && !((block + run->count) & REMAP_CHUNK_MASK) &&
	       block + run->count < map->nr_blocks) {
		remap_chunk_lookup(remap_chunk_rcu(map, block + run->count), 0, &next);
		if (!remap_run_continues(run, &next))
			break;
		run->count += next.count;
	}
}

void remap_map_lookup_rcu(const struct remap_map *map, u64 block, u32 nr,
			  struct remap_run *run)
{
	remap_chunk_lookup(remap_chunk_rcu(map, block), block & REMAP_CHUNK_MASK, run);
	if (unlikely(run->count < nr))
		remap_run_extend(map, block, nr, run);
	run->count = min(run->count, nr);
}

void remap_map_lookup(const struct remap_map *map, u64 block, u32 nr, struct remap_run *run)
{
	rcu_read_lock();
	remap_map_lookup_rcu(map, block, nr, run);
	rcu_read_unlock();
}

/* The first run in the chunk of @block, from @block on. */
static bool remap_chunk_next(const struct remap_map *map, u64 block, u64 *at,
			     struct remap_run *run)
{
	const struct remap_chunk *chunk = remap_chunk_rcu(map, block);
	u32 offset = block & REMAP_CHUNK_MASK, i;

	if (!chunk)
		return false;
	i = remap_chunk_find(chunk, offset);
	if (i == chunk->nr)
		return false;
	offset = max_t(u32, offset, chunk->runs[i].start);
	*at = (block & ~(u64)REMAP_CHUNK_MASK) + offset;
	remap_chunk_lookup(chunk, offset, run);
	remap_run_extend(map, *at, U32_MAX, run);
	return true;
}

bool remap_map_next(const struct remap_map *map, u64 block, u64 *at, struct remap_run *run)
{
	bool found = false;

	while (block < map->nr_blocks && !found) {
		rcu_read_lock();
		found = remap_chunk_next(map, block, at, run);
		rcu_read_unlock();
		block = (block | REMAP_CHUNK_MASK) + 1;
		cond_resched();
	}
	return found;
}

/* ---- Changes ---- */

/* Old runs and changes of one chunk on their way into a new array. */
struct remap_merge {
	const struct remap_packed *old, *old_end;	/* not yet passed */
	struct remap_packed *end;			/* of the new runs */
	u32 next;					/* block after the last of them */
};

/* Does a run @p go on as @where, @slot in block @start, right after its last? */
static bool remap_packed_continues(const struct remap_packed *p, u32 start, u32 where, u32 slot)
{
	if (p->where != where)
		return false;
	if (p->slot == REMAP_NO_SLOT || slot == REMAP_NO_SLOT)
		return p->slot == slot;
	return p->slot + (start - p->start) == slot;
}

static void remap_merge_add(struct remap_merge *merge, u32 start, u32 last, u32 where, u32 slot)
{
	struct remap_packed *end = merge->end;

	if (start == merge->next && remap_packed_continues(end - 1, start, where, slot)) {
		end[-1].last = last;
	} else {
		*end = (struct remap_packed) {
			.start = start, .last = last, .where = where, .slot = slot,
		};
		merge->end = end + 1;
	}
	merge->next = last + 1;
}

/* Take over what the old runs say of the blocks from @from to @last. */
static void remap_merge_old(struct remap_merge *merge, u32 from, u32 last)
{
	const struct remap_packed *p;
	u32 start, slot;

	for (; merge->old < merge->old_end; merge->old++) {
		p = merge->old;
		if (p->start > last)
			return;
		if (p->last < from)
			continue;
		start = max_t(u32, p->start, from);
		slot = p->slot == REMAP_NO_SLOT ? p->slot : p->slot + (start - p->start);
		remap_merge_add(merge, start, min_t(u32, p->last, last), p->where, slot);
		if (p->last > last)
			return;
	}
}

/*
 * Merge the runs of @old, which may be NULL, with the @nr changes, all within
 * its chunk, in @runs.  Returns the number of runs.
 */
static u32 remap_merge_chunk(const struct remap_chunk *old, const struct remap_change *changes,
			     size_t nr, bool doubt, struct remap_packed *runs)
{
	struct remap_merge merge = { .end = runs, .next = U32_MAX };
	u32 pos = 0;

	if (old) {
		merge.old = old->runs;
		merge.old_end = old->runs + old->nr;
	}
	for (; nr; nr--, changes++) {
		u32 at = changes->block & REMAP_CHUNK_MASK;
		u32 where = doubt ? REMAP_IN_DOUBT : changes->where;

		if (pos < at && merge.old < merge.old_end)
			remap_merge_old(&merge, pos, at - 1);
		if (where != REMAP_AT_MAIN)
			remap_merge_add(&merge, at, at, where, changes->slot);
		pos = at + 1;
	}
	if (pos < REMAP_CHUNK_BLOCKS)
		remap_merge_old(&merge, pos, REMAP_CHUNK_MASK);
	return merge.end - runs;
}

/* A chunk like @old, which may be NULL, with the @nr changes. */
static struct remap_chunk *remap_chunk_build(struct remap_map *map, const struct remap_chunk *old,
					     const struct remap_change *changes, size_t nr,
					     gfp_t gfp, bool doubt)
{
	u32 runs = remap_merge_chunk(old, changes, nr, doubt, map->scratch);
	struct remap_chunk *chunk = kvmalloc(struct_size(chunk, runs, runs), gfp);

	if (!chunk)
		return NULL;
	chunk->index = changes->block >> REMAP_CHUNK_SHIFT;
	chunk->nr = runs;
	memcpy(chunk->runs, map->scratch, runs * sizeof(*chunk->runs));
	return chunk;
}

static void remap_chain_push(struct remap_chunk **chain, struct remap_chunk *chunk)
{
	chunk->next = *chain;
	*chain = chunk;
}

static struct remap_chunk *remap_chain_pop(struct remap_chunk **chain)
{
	struct remap_chunk *chunk = *chain;

	if (chunk)
		*chain = chunk->next;
	return chunk;
}

static void remap_chain_free(struct remap_chunk **chain)
{
	struct remap_chunk *chunk;

	while ((chunk = remap_chain_pop(chain)))
		kvfree(chunk);
}

/*
 * Enter those of @changes that are in the chunk of the first one into the
 * filter and return their number.  Bits may be set long before there is
 * something to find, and stay when there is not: a bit too many only costs a
 * lookup.
 */
static size_t remap_filter_add(struct remap_map *map, const struct remap_change *changes,
			       size_t nr)
{
	unsigned long index = changes->block >> REMAP_CHUNK_SHIFT, bit, last = ULONG_MAX;
	size_t i;

	for (i = 0; i < nr && changes[i].block >> REMAP_CHUNK_SHIFT == index; i++) {
		bit = changes[i].block >> map->granule_shift;
		if (bit != last)
			set_bit(bit, map->filter);
		last = bit;
	}
	return i;
}

int remap_map_prepare(struct remap_map *map, const struct remap_change *changes,
		      size_t nr, gfp_t gfp, bool may_doubt)
{
	struct remap_chunk *old, *chunk;
	unsigned long index;
	size_t here;

	WARN_ON_ONCE(map->prepared || map->doubtful);

	for (; nr; changes += here, nr -= here) {
		cond_resched();
		index = changes->block >> REMAP_CHUNK_SHIFT;
		here = remap_filter_add(map, changes, nr);
		old = remap_chunk_of(map, index);
		chunk = remap_chunk_build(map, old, changes, here, gfp, false);
		if (!chunk)
			goto no_memory;
		remap_chain_push(&map->prepared, chunk);
		if (may_doubt) {
			chunk = remap_chunk_build(map, old, changes, here, gfp, true);
			if (!chunk)
				goto no_memory;
			remap_chain_push(&map->doubtful, chunk);
		}
	}
	return 0;

no_memory:
	remap_map_abandon(map);
	return -ENOMEM;
}

void remap_map_abandon(struct remap_map *map)
{
	remap_chain_free(&map->prepared);
	remap_chain_free(&map->doubtful);
}

/* Put @chunk in the place of the one with its index. */
static void remap_chunk_publish(struct remap_map *map, struct remap_chunk *chunk)
{
	unsigned long index = chunk->index;
	struct remap_chunk *old = remap_chunk_of(map, index);

	if (!chunk->nr) {
		kvfree(chunk);
		chunk = NULL;
	}
	rcu_assign_pointer(map->chunks[index], chunk);
	if (old)
		kvfree_rcu(old, rcu);
}

static void remap_chain_publish(struct remap_map *map, struct remap_chunk **chain)
{
	struct remap_chunk *chunk;

	if (!*chain)
		return;
	while ((chunk = remap_chain_pop(chain))) {
		remap_chunk_publish(map, chunk);
		cond_resched();
	}
	/* Readers that see the flag must see the filter and the chunks. */
	smp_store_release(&map->used, true);
}

void remap_map_publish(struct remap_map *map)
{
	remap_chain_publish(map, &map->prepared);
	remap_chain_free(&map->doubtful);
}

void remap_map_publish_doubtful(struct remap_map *map)
{
	remap_chain_publish(map, &map->doubtful);
	remap_chain_free(&map->prepared);
}

int remap_map_fill(struct remap_map *map, const struct remap_change *changes, size_t nr)
{
	struct remap_chunk *chunk;
	size_t here;

	for (; nr; changes += here, nr -= here) {
		cond_resched();
		here = remap_filter_add(map, changes, nr);
		chunk = remap_chunk_build(map, NULL, changes, here, GFP_KERNEL, false);
		if (!chunk)
			goto no_memory;
		RCU_INIT_POINTER(map->chunks[chunk->index], chunk);
		map->used = true;
	}
	return 0;

no_memory:
	remap_map_clear(map);
	return -ENOMEM;
}
