/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * In-memory map: from a block of the main to where it lives now.
 *
 * Readers take no lock (RCU).  There is one writer at a time: the target's
 * ordered workqueue, or preresume while no I/O flows.  A change is prepared
 * first, which takes all memory it needs, and published when its entries are
 * durable; publishing cannot fail.
 */
#ifndef DM_REMAP_MAP_H
#define DM_REMAP_MAP_H

#include <linux/bitops.h>
#include <linux/rcupdate.h>
#include <linux/types.h>

/* A block that has no slot (a hidden block whose entry is gone). */
#define REMAP_NO_SLOT	((u32)~0U)

enum remap_where {
	REMAP_AT_MAIN	= 0,	/* not mapped */
	REMAP_AT_SLOT	= 1,	/* in its slot */
	REMAP_IS_LOST	= 2,	/* reads fail until it is written */
	REMAP_IN_DOUBT	= 3,	/* a commit of unknown outcome names it */
};

/* A run of blocks that are in the same state, in consecutive slots if any. */
struct remap_run {
	enum remap_where where;
	u32 slot;		/* of the first block */
	u32 count;		/* blocks, at least 1 */
};

/* One block's new place. */
struct remap_change {
	u64 block;
	u32 slot;		/* for REMAP_AT_MAIN: the slot that it leaves */
	u32 where : 8;		/* enum remap_where */
	u32 seq : 24;		/* of its entry; the loader's */
};

struct remap_chunk;

struct remap_map {
	/* What every lookup reads: */
	bool used;			/* anything was ever published */
	u8 granule_shift;		/* log2 of blocks of a filter bit */
	u8 filter_shift;		/* the same of sectors */
	unsigned long *filter;		/* bit: some block of a granule is mapped */
	struct remap_chunk __rcu **chunks;
	u64 nr_blocks;			/* of the main */
	unsigned long nr_chunks;
	/* Writer's own: */
	struct remap_packed *scratch;	/* room for the runs of one chunk */
	struct remap_chunk *prepared;	/* chain of chunks to publish */
	struct remap_chunk *doubtful;	/* the same, if the outcome is unknown */
};

int remap_map_init(struct remap_map *map, u64 nr_blocks, unsigned int block_shift);
void remap_map_exit(struct remap_map *map);

/* Forget everything; no reader may be about. */
void remap_map_clear(struct remap_map *map);

/*
 * Put @changes, sorted by block, into an empty map; no reader may be about.
 * Returns 0 or -ENOMEM, and then it is empty again.
 */
int remap_map_fill(struct remap_map *map, const struct remap_change *changes, size_t nr);

/*
 * Take the memory for @changes, sorted by block, each block at most once;
 * with @may_doubt also what it takes to publish them as doubtful.  Returns 0,
 * and then one of the next three has to follow; or -ENOMEM, and then nothing
 * is prepared.
 */
int remap_map_prepare(struct remap_map *map, const struct remap_change *changes,
		      size_t nr, gfp_t gfp, bool may_doubt);

/* Make what was prepared visible to readers. */
void remap_map_publish(struct remap_map *map);

/* The same, but the blocks are REMAP_IN_DOUBT, with the slots of the changes. */
void remap_map_publish_doubtful(struct remap_map *map);

/* Drop what was prepared. */
void remap_map_abandon(struct remap_map *map);

/*
 * The first run that is not at the main and ends after @block, from @block on
 * if it begins earlier: its first block in @at.  False: there is none.
 */
bool remap_map_next(const struct remap_map *map, u64 block, u64 *at, struct remap_run *run);

static inline bool remap_map_empty(const struct remap_map *map)
{
	/* Pairs with publishing: whoever sees the flag sees the filter. */
	return likely(!smp_load_acquire(&map->used));
}

/*
 * True: none of the sectors is in a mapped block.  Never wrong that way.  For
 * a map that is not empty.
 */
static inline bool remap_map_miss(const struct remap_map *map, u64 sector, u32 bytes)
{
	unsigned long first = sector >> map->filter_shift;
	unsigned long last = (sector + (bytes >> 9) - 1) >> map->filter_shift;

	return first == last && !test_bit(first, map->filter);
}

/*
 * The run that begins at @block, cut to @nr blocks.  The second one is for
 * callers who are in an RCU read-side section already.
 */
void remap_map_lookup(const struct remap_map *map, u64 block, u32 nr, struct remap_run *run);
void remap_map_lookup_rcu(const struct remap_map *map, u64 block, u32 nr,
			  struct remap_run *run);

#endif /* DM_REMAP_MAP_H */
