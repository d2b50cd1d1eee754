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

#include <linux/types.h>
#include <linux/xarray.h>

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
	struct xarray chunks;		/* of struct remap_chunk */
	unsigned long *filter;		/* bit: some block of a granule is mapped */
	u64 nr_blocks;			/* of the main */
	unsigned int granule_shift;	/* blocks of a filter bit */
	bool used;			/* anything was ever published */
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
bool remap_map_next(struct remap_map *map, u64 block, u64 *at, struct remap_run *run);

/* The run that begins at @block, cut to @nr blocks. */
void __remap_map_lookup(struct remap_map *map, u64 block, u32 nr,
			struct remap_run *run);
bool __remap_map_filter(struct remap_map *map, u64 block, u32 nr);

/* True: none of the @nr blocks from @block is mapped.  Never wrong that way. */
static inline bool remap_map_miss(struct remap_map *map, u64 block, u32 nr)
{
	return likely(!READ_ONCE(map->used)) || __remap_map_filter(map, block, nr);
}

static inline void remap_map_lookup(struct remap_map *map, u64 block, u32 nr,
				    struct remap_run *run)
{
	if (remap_map_miss(map, block, nr)) {
		run->where = REMAP_AT_MAIN;
		run->slot = REMAP_NO_SLOT;
		run->count = nr;
		return;
	}
	__remap_map_lookup(map, block, nr, run);
}

#endif /* DM_REMAP_MAP_H */
