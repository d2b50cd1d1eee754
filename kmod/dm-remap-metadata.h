/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Metadata of dm-remap: superblocks and table on the spare, labels on the main.
 *
 * Locking: none inside.  remap_md_open() runs in the constructor,
 * remap_md_load() in preresume, everything else on the target's ordered
 * workqueue, but for: remap_md_info(), whose caller agrees that numbers may be
 * a moment old; remap_md_hidden() and remap_md_slot_sector(), which read what
 * does not change once the table is loaded; and losses, which end_io may count
 * and take.  All functions that do I/O sleep and wait for it.
 *
 * Errors are negative errno; what was seen is logged where it is found.
 */
#ifndef DM_REMAP_METADATA_H
#define DM_REMAP_METADATA_H

#include <linux/blkdev.h>

#include "dm-remap-format.h"
#include "dm-remap-map.h"

/*
 * In the error path memory is asked for in a way that fails rather than
 * waits: what would have to be written to free some may wait for us.
 */
#define REMAP_GFP	(GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN)

struct remap_md;

/*
 * Read the superblocks of @spare and check that it forms a complete set with
 * @main.  @name goes into messages.  With @no_label a main none of whose
 * labels can be read is taken at the caller's word.  Writes nothing.
 * Returns an ERR_PTR: -EINVAL (not a set, not this pair, damaged beyond use),
 * -EIO (nothing could be read), -ENOMEM; *@reason is a short text then.
 */
struct remap_md *remap_md_open(struct block_device *main, struct block_device *spare,
			       const char *name, bool no_label, char **reason);
void remap_md_close(struct remap_md *md);

/*
 * Read superblocks and labels again, then the whole table, and fill @map.
 * Writes nothing.
 */
int remap_md_load(struct remap_md *md, struct remap_map *map);

/*
 * Before the first write of an activation: raise the epoch on both members
 * and make copies equal that disagree.  An error if the metadata cannot be
 * written durably; it may be tried again.
 */
int remap_md_activate(struct remap_md *md);

/*
 * Find slots for @max blocks of the main from @block on, for which nothing is
 * staged; extends the table if need be.  Returns how many consecutive slots
 * there are, at least one, the first one in *@slot.  Right after @block - 1
 * it is the next slot where possible; other blocks begin a new physical block
 * of the spare.  -ENOSPC: the spare is full.
 */
int remap_md_alloc(struct remap_md *md, u64 block, u32 max, u32 *slot);
/* @slot, and what was given out after it, is free unless its entry is in use. */
void remap_md_unalloc(struct remap_md *md, u32 slot);

/*
 * Stage the entry of @slot for @block: mapped, or lost.  @old_slot (or
 * REMAP_NO_SLOT) is the block's former slot, whose entry the new one has to
 * beat.  *@was gets the entry that was there.
 */
void remap_md_stage_block(struct remap_md *md, u32 slot, u64 block,
			  enum remap_entry_state state, u32 old_slot,
			  enum remap_entry_cause cause, int err, struct remap_entry *was);
/*
 * Stage: nothing is in @slot.  Whoever stages this allocates nothing before the
 * slot may have another block's data, and says so with remap_md_unalloc().
 */
void remap_md_stage_free(struct remap_md *md, u32 slot, struct remap_entry *was);
/* Stage: never use @slot again. */
void remap_md_stage_bad(struct remap_md *md, u32 slot, int err);
/* Put back what was there before something was staged. */
void remap_md_unstage(struct remap_md *md, u32 slot, const struct remap_entry *was);

/*
 * A slot with an entry for @block, mapped or lost, other than @except; or
 * REMAP_NO_SLOT.
 * Looks at the whole table: for the rare case only.
 */
u32 remap_md_find_slot(struct remap_md *md, u64 block, u32 except);

/*
 * Make everything staged durable: flush, first live copy, then the others.
 * @losses is the number of the spare's losses before the first of the slots
 * was written: if the spare has lost its cache since, the commit fails.
 * On an error the outcome is unknown and everything stays staged, so that
 * the next commit that succeeds supersedes it.
 */
int remap_md_commit(struct remap_md *md, int losses);
/* Has the last commit written anything to the table before it failed? */
bool remap_md_commit_began(const struct remap_md *md);

/*
 * A member reported an error that may mean that it lost its cache, and it will
 * not do so again.  What is written and flushed around a loss fails
 * (count_loss); where the error has reached us only, the next flush from above
 * has to fail as well (tell_loss).  cache_lost does both.
 */
void remap_md_count_loss(struct remap_md *md, enum remap_role role);
void remap_md_tell_loss(struct remap_md *md, enum remap_role role);
void remap_md_cache_lost(struct remap_md *md, enum remap_role role);
/* How many there were. */
int remap_md_losses(const struct remap_md *md, enum remap_role role);
/* Has the next flush to fail?  Told once. */
bool remap_md_take_cache_lost(struct remap_md *md, enum remap_role role);
/*
 * While it is open whether a member has lost its cache, a flush from above
 * that succeeds proves nothing.  What ends the doubt tells of the loss before it
 * lets the flushes go.
 */
void remap_md_hold_flushes(struct remap_md *md, enum remap_role role);
void remap_md_let_flushes(struct remap_md *md, enum remap_role role);
bool remap_md_flushes_held(const struct remap_md *md, enum remap_role role);
/* Flush a member; a failure is a loss of its cache. */
int remap_md_flush(struct remap_md *md, enum remap_role role);

/* First sector of @slot on the spare. */
sector_t remap_md_slot_sector(struct remap_md *md, u32 slot);

/* What status shows. */
struct remap_md_info {
	u8 set_uuid[REMAP_UUID_SIZE];
	u64 main_size;			/* sectors */
	u64 nr_blocks;			/* of the main */
	unsigned int block_shift;	/* log2 of bytes */
	unsigned int nr_copies;
	unsigned int nr_live;
	u32 epoch;
	u64 nr_slots;			/* usable */
	u64 nr_used;			/* of them */
	u64 nr_mapped;
	u64 nr_lost;
	u64 nr_bad;
	u64 nr_hidden;			/* blocks */
	u64 table_length;		/* blocks */
	bool read_only;			/* metadata cannot be written */
	bool degraded;			/* a copy or the label is not as it should be */
};

void remap_md_info(const struct remap_md *md, struct remap_md_info *info);

/* May anything be staged?  Not before the table was loaded anew, if not. */
bool remap_md_writable(const struct remap_md *md);

/* Is one of the @count blocks from @block on hidden? */
bool remap_md_hidden(const struct remap_md *md, u64 block, u64 count);

/*
 * Compare what is on the spare with what should be there: superblocks, or the
 * live copies of table block @index.  Returns how many copies are damaged or
 * unreadable.
 */
u64 remap_md_check_sbs(struct remap_md *md);
u64 remap_md_check_table(struct remap_md *md, u64 index);

/* Fill @sectors with places of the main to ask whether it is alive. */
unsigned int remap_md_label_sectors(const struct remap_md *md, sector_t *sectors,
				    unsigned int max);

/* Does @bdev have a volatile cache, but no FUA? */
bool remap_fua_is_flush(struct block_device *bdev);

/* Synchronous I/O of one buffer within a page; used by the target as well. */
int remap_io_sync(struct block_device *bdev, blk_opf_t opf, sector_t sector,
		  void *buf, unsigned int bytes);

#endif /* DM_REMAP_METADATA_H */
