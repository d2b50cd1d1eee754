// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-remap: redirect the failing sectors of a main device to a spare.
 *
 * The life of a write: map() looks the blocks up and sends the bio to the
 * main or to slots of the spare.  If the main reports an error that a bad
 * sector may have caused, end_io() keeps the bio and hands it to the one
 * ordered worker.  The worker writes the blocks again to find those that fail
 * on their own, asks the main for a sign of life, writes the failing blocks
 * to slots, commits the entries, publishes them, and only then completes the
 * bio.  Nothing is acknowledged that is not on the main or in a slot whose
 * entry is durable.
 *
 * Locking: map() and end_io() take r->lock to queue a bio and look at flags
 * without it.  All else that changes (metadata, map, batch) belongs to the
 * worker, or to preresume and the destructor while no I/O flows.  An entry of
 * remap_sets is protected by remap_sets_lock.
 */
#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "dm-remap-metadata.h"

#define DM_MSG_PREFIX "remap"

/* One commit takes at most this many remaps. */
#define REMAP_BATCH		1024

/*
 * The search for bad blocks in one bio ends when it has found so many or
 * taken so long; what is left of the bio goes to slots untested.
 */
#define REMAP_MAX_FOUND		256
#define REMAP_MAX_SEARCH	(10 * HZ)

/* Slots that may fail in one pass over the queue before the spare counts as failing itself. */
#define REMAP_MAX_BAD_SLOTS	4

/* Places spread over the main to ask whether it is alive, after the labels. */
#define REMAP_SPREAD		8

enum remap_flag {
	REMAP_F_ACTIVE,			/* the epoch was raised: writes may pass */
	REMAP_F_FAILED,			/* the last activation failed: no write passes */
	REMAP_F_BROKEN,			/* no memory to remember what is in doubt */
	REMAP_F_READ_ONLY,		/* feature, read-only table or set */
	REMAP_F_READ_ONLY_ASKED,	/* feature read_only was in the table line */
	REMAP_F_NO_AUTO,		/* feature no_auto_remap */
	REMAP_F_FUA,			/* feature fua, or a flush of the main failed */
	REMAP_F_FUA_ASKED,		/* feature fua was in the table line */
	REMAP_F_FULL,			/* no slot was left */
	REMAP_F_SPARE_LOST,		/* no slot could be written */
};

struct remap {
	struct dm_target *ti;
	struct dm_dev *main;
	struct dm_dev *spare;
	struct remap_md *md;
	struct remap_map map;
	unsigned int sectors_shift;	/* log2 of sectors of a block */
	unsigned long flags;		/* enum remap_flag */

	spinlock_t lock;		/* queue */
	struct bio_list queue;		/* for the worker */
	struct workqueue_struct *wq;
	struct work_struct work;
	struct bio_set bios;		/* for parts of queued bios */

	/* The worker's batch: blocks with a new place, not yet committed. */
	struct remap_move *moves;
	unsigned int nr_moves;
	struct remap_change *changes;	/* the same for the map */
	unsigned int nr_bad_slots;
	bool commit_failed;		/* one of those for the queue at hand */
	bool main_silent;		/* the main did not answer, likewise */
	bool main_unflushed;		/* it was written without FUA, likewise */
	struct remap_bad *bad;		/* what the search in one bio has found */

	atomic64_t nr_remapped;		/* since the table was loaded */
	atomic64_t nr_main_write_errors;
	atomic64_t nr_main_read_errors;
	atomic64_t nr_spare_errors;
	atomic64_t nr_failed;		/* writes that ended with an error */
	atomic64_t nr_doubt;		/* blocks in doubt */

	/* In remap_sets: */
	struct list_head list;
	u8 set_uuid[REMAP_UUID_SIZE];
	bool loaded;			/* table and map are in memory */
};

/* A block on its way to a slot. */
struct remap_move {
	u64 block;
	u32 slot;
	u32 old_slot;			/* that it leaves, or REMAP_NO_SLOT */
	bool was_doubtful;
};

enum remap_sent {
	REMAP_SENT_MAIN,
	REMAP_SENT_SPARE,
	REMAP_SENT_NOWHERE,		/* queued before it was sent */
	REMAP_FINISHED,			/* by the worker, status is final */
};

/* Per bio. */
struct remap_io {
	struct bvec_iter iter;		/* as it was when sent */
	enum remap_sent sent;
	/* The worker's: */
	blk_status_t status;
	bool staged;			/* depends on a commit */
};

static LIST_HEAD(remap_sets);
static DEFINE_MUTEX(remap_sets_lock);

/*
 * Which errors of a write may come from a bad sector.  All others say that
 * the device is gone, cannot do this, or is not to be asked now.
 */
static bool remap_may_be_bad_sector(blk_status_t status)
{
	switch (status) {
	case BLK_STS_IOERR:
	case BLK_STS_MEDIUM:
	case BLK_STS_TARGET:
	case BLK_STS_TIMEOUT:
		return true;
	default:
		return false;
	}
}

static struct remap_io *remap_io(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct remap_io));
}

/* ---- Worker: parts of a queued bio ---- */

/* A run of blocks of a queued bio. */
struct remap_part {
	struct bio *bio;
	u64 block;			/* on the main */
	u32 offset;			/* in blocks, from the bio's begin */
	u32 count;			/* blocks */
};

static struct remap_part remap_subpart(const struct remap_part *part, u32 offset, u32 count)
{
	return (struct remap_part) {
		.bio = part->bio,
		.block = part->block + offset,
		.offset = part->offset + offset,
		.count = count,
	};
}

/* Blocks of a part that need slots. */
struct remap_bad {
	u32 offset;
	u32 count;
	enum remap_entry_cause cause;
	blk_status_t status;
};

/* Write @part's data to @sector of @bdev and wait.  Returns a block status. */
static blk_status_t remap_write_part(struct remap *r, const struct remap_part *part,
				     struct block_device *bdev, sector_t sector,
				     blk_opf_t flags)
{
	unsigned int shift = r->sectors_shift + SECTOR_SHIFT;
	struct remap_io *io = remap_io(part->bio);
	blk_status_t status;
	struct bio *bio;

	bio = bio_alloc_clone(bdev, part->bio, GFP_NOIO, &r->bios);
	/*
	 * A bio that was at a partition is marked as moved to the whole disk,
	 * and its clone as well; this takes the mark off.
	 */
	bio_set_dev(bio, bdev);
	bio->bi_opf = REQ_OP_WRITE | REQ_SYNC | flags;
	bio->bi_iter = io->iter;
	bio_advance(bio, part->offset << shift);
	bio->bi_iter.bi_size = part->count << shift;
	bio->bi_iter.bi_sector = sector;

	submit_bio_wait(bio);
	status = bio->bi_status;
	bio_put(bio);
	return status;
}

/*
 * With FUA, so that a drive does not take into its cache what it cannot
 * write.  Where FUA is only a flush behind the write, the flush is sent by
 * itself (remap_flush_main): its error speaks of other writes as well.
 */
static blk_status_t remap_write_main(struct remap *r, const struct remap_part *part)
{
	bool flush = remap_fua_is_flush(r->main->bdev);
	blk_status_t status;

	status = remap_write_part(r, part, r->main->bdev, part->block << r->sectors_shift,
				  flush ? 0 : REQ_FUA);
	if (status)
		atomic64_inc(&r->nr_main_write_errors);
	else if (flush)
		r->main_unflushed = true;
	return status;
}

/* True, or what was written to the main in this pass may be lost. */
static bool remap_flush_main(struct remap *r)
{
	if (!r->main_unflushed || !blkdev_issue_flush(r->main->bdev))
		return true;
	remap_md_cache_lost(r->md, REMAP_ROLE_MAIN);
	return false;
}

/*
 * The entry that names the slot is committed with a flush in front, so a slot
 * that gets a new entry needs no FUA; one that has its entry needs it where
 * the bio asked.
 */
static blk_status_t remap_write_slots(struct remap *r, const struct remap_part *part,
				      u32 slot, blk_opf_t flags)
{
	blk_status_t status;

	status = remap_write_part(r, part, r->spare->bdev,
				  remap_md_slot_sector(r->md, slot), flags);
	if (status)
		atomic64_inc(&r->nr_spare_errors);
	return status;
}

/* ---- Worker: is the main still there? ---- */

static bool remap_main_reads(struct remap *r, void *buf, sector_t sector)
{
	return !remap_io_sync(r->main->bdev, REQ_OP_READ, sector, buf,
			      (1U << r->sectors_shift) << SECTOR_SHIFT);
}

/*
 * A main that is gone fails its writes like one with bad sectors.  Slots are
 * spent only if it answers a read now: of the block that failed, else of a
 * label place, else of a few places spread over the device.
 */
static bool remap_main_answers(struct remap *r, u64 block)
{
	sector_t places[REMAP_MAX_LABELS], mask;
	unsigned int i, nr;
	bool alive;
	void *buf;

	if (r->main_silent)
		return false;
	buf = kmalloc((1U << r->sectors_shift) << SECTOR_SHIFT, GFP_NOIO);
	if (!buf)
		return false;

	alive = remap_main_reads(r, buf, block << r->sectors_shift);
	nr = remap_md_label_sectors(r->md, places, ARRAY_SIZE(places));
	for (i = 0; i < nr && !alive; i++)
		alive = remap_main_reads(r, buf, places[i]);

	mask = ~(sector_t)((1U << r->sectors_shift) - 1);
	for (i = 0; i < REMAP_SPREAD && !alive; i++)
		alive = remap_main_reads(r, buf, (r->ti->len / REMAP_SPREAD * i) & mask);
	kfree(buf);

	r->main_silent = !alive;
	if (!alive)
		DMERR_LIMIT("%s: main %s does not answer: error at block %llu is passed on",
			    dm_table_device_name(r->ti->table), r->main->name,
			    (unsigned long long)block);
	return alive;
}

/* ---- Worker: blocks to slots ---- */

static bool remap_in_batch(const struct remap *r, u64 block, u32 count)
{
	unsigned int i;

	for (i = 0; i < r->nr_moves; i++)
		if (r->moves[i].block - block < count)
			return true;
	return false;
}

/*
 * Write one block to a slot and return that, or REMAP_NO_SLOT.  @want is the
 * slot that the block has already, if any.  Slots that fail become bad once
 * another one has worked: before that the whole spare may be failing.
 */
static u32 remap_write_some_slot(struct remap *r, const struct remap_part *part, u32 want)
{
	u32 failed[REMAP_MAX_BAD_SLOTS], slot = want;
	unsigned int nr = 0, i;
	blk_status_t status;
	int ret;

	for (;;) {
		if (slot == REMAP_NO_SLOT) {
			ret = remap_md_alloc(r->md, part->block, &slot);
			if (ret == -ENOSPC)
				set_bit(REMAP_F_FULL, &r->flags);
			if (ret)
				return REMAP_NO_SLOT;
		}
		status = remap_write_slots(r, part, slot, 0);
		if (!status)
			break;

		DMERR_LIMIT("%s: spare %s: slot %u at sector %llu: write error %d",
			    dm_table_device_name(r->ti->table), r->spare->name, slot,
			    (unsigned long long)remap_md_slot_sector(r->md, slot),
			    blk_status_to_errno(status));
		if (!remap_may_be_bad_sector(status) || nr == REMAP_MAX_BAD_SLOTS ||
		    r->nr_bad_slots == REMAP_MAX_BAD_SLOTS) {
			set_bit(REMAP_F_SPARE_LOST, &r->flags);
			return REMAP_NO_SLOT;
		}
		if (slot != want)
			failed[nr++] = slot;
		r->nr_bad_slots++;
		slot = REMAP_NO_SLOT;
	}
	for (i = 0; i < nr; i++)
		remap_md_stage_bad(r->md, failed[i], EIO);
	return slot;
}

/*
 * Write one block to a slot and stage its entry.  @want is the slot that it
 * has already (a lost or doubtful block) or REMAP_NO_SLOT; @old is the slot
 * that it leaves because it failed.
 */
static blk_status_t remap_block_to_slot(struct remap *r, const struct remap_part *part,
					u32 want, u32 old, enum remap_entry_cause cause, int err)
{
	struct remap_run was;
	u32 slot = remap_write_some_slot(r, part, want);

	if (slot == REMAP_NO_SLOT)
		return BLK_STS_IOERR;

	remap_map_lookup(&r->map, part->block, 1, &was);
	if (want != REMAP_NO_SLOT && slot != want)
		old = want;
	else if (was.where == REMAP_IN_DOUBT)
		/* It was on its way from a slot that had failed. */
		old = remap_md_find_slot(r->md, part->block, slot);

	remap_md_stage_mapped(r->md, slot, part->block, old, cause, err);
	r->moves[r->nr_moves++] = (struct remap_move) {
		.block = part->block,
		.slot = slot,
		.old_slot = old,
		.was_doubtful = was.where == REMAP_IN_DOUBT,
	};
	remap_io(part->bio)->staged = true;
	return BLK_STS_OK;
}

static blk_status_t remap_commit_batch(struct remap *r);

/* The same for each block of @part, committing whenever the batch is full. */
static blk_status_t remap_part_to_slots(struct remap *r, const struct remap_part *part,
					u32 want, u32 old, enum remap_entry_cause cause, int err)
{
	blk_status_t status = BLK_STS_OK;
	u32 i;

	for (i = 0; i < part->count && !status; i++) {
		struct remap_part one = remap_subpart(part, i, 1);

		if (r->nr_moves == REMAP_BATCH)
			status = remap_commit_batch(r);
		if (!status)
			status = remap_block_to_slot(r, &one,
						     want == REMAP_NO_SLOT ? want : want + i,
						     old == REMAP_NO_SLOT ? old : old + i,
						     cause, err);
	}
	return status;
}

/*
 * The main failed a write of @part: find the blocks that fail on their own,
 * in r->bad.  The step halves on a failure and doubles on a success.
 */
static blk_status_t remap_search_part(struct remap *r, const struct remap_part *part,
				      unsigned int *nr)
{
	unsigned long deadline = jiffies + REMAP_MAX_SEARCH;
	u32 pos = 0, step = max(part->count / 2, 1U);
	blk_status_t status;

	for (*nr = 0; pos < part->count;) {
		struct remap_part sub = remap_subpart(part, pos, min(step, part->count - pos));
		enum remap_entry_cause cause = REMAP_CAUSE_WRITE;

		status = remap_write_main(r, &sub);
		if (!status) {
			pos += sub.count;
			step *= 2;
			continue;
		}
		if (!remap_may_be_bad_sector(status))
			return status;

		if (*nr == REMAP_MAX_FOUND || time_after(jiffies, deadline)) {
			sub.count = part->count - pos;
			cause = REMAP_CAUSE_UNTESTED;
		} else if (sub.count > 1) {
			step = sub.count / 2;
			continue;
		}
		r->bad[(*nr)++] = (struct remap_bad) {
			.offset = pos,
			.count = sub.count,
			.cause = cause,
			.status = status,
		};
		pos += sub.count;
	}
	return BLK_STS_OK;
}

/* Blocks that the main does not take go to slots, if it is there at all. */
static blk_status_t remap_rescue_part(struct remap *r, const struct remap_part *part)
{
	blk_status_t status;
	unsigned int i, nr;

	status = remap_search_part(r, part, &nr);
	if (status || !nr)
		return status;
	/* Asked after the last of the failures: it speaks for all of them. */
	if (!remap_main_answers(r, part->block + r->bad[0].offset))
		return r->bad[0].status;

	for (i = 0; i < nr && !status; i++) {
		const struct remap_bad *bad = &r->bad[i];
		struct remap_part sub = remap_subpart(part, bad->offset, bad->count);

		status = remap_part_to_slots(r, &sub, REMAP_NO_SLOT, REMAP_NO_SLOT, bad->cause,
					     -blk_status_to_errno(bad->status));
	}
	return status;
}

/* Write blocks that have slots; a slot that fails is replaced. */
static blk_status_t remap_rewrite_slots(struct remap *r, const struct remap_part *part, u32 slot)
{
	blk_opf_t flags = part->bio->bi_opf & REQ_FUA;
	blk_status_t status;
	u32 i;

	if (!remap_write_slots(r, part, slot, flags))
		return BLK_STS_OK;

	for (i = 0; i < part->count; i++) {
		struct remap_part one = remap_subpart(part, i, 1);

		status = remap_write_slots(r, &one, slot + i, flags);
		if (!status)
			continue;
		if (!remap_may_be_bad_sector(status))
			return status;
		status = remap_part_to_slots(r, &one, REMAP_NO_SLOT, slot + i,
					     REMAP_CAUSE_SLOT, -blk_status_to_errno(status));
		if (status)
			return status;
	}
	return BLK_STS_OK;
}

/* One queued write, run by run as the map stands now. */
static blk_status_t remap_write_again(struct remap *r, struct bio *bio)
{
	struct remap_io *io = remap_io(bio);
	struct remap_part all = {
		.bio = bio,
		.block = io->iter.bi_sector >> r->sectors_shift,
		.count = io->iter.bi_size >> (r->sectors_shift + SECTOR_SHIFT),
	};
	blk_status_t status = BLK_STS_OK;
	struct remap_run run;
	u32 pos;

	/* Two writes to one block: the second one has to see the first's place. */
	if (remap_in_batch(r, all.block, all.count)) {
		status = remap_commit_batch(r);
		if (status)
			return status;
	}

	for (pos = 0; pos < all.count && !status; pos += run.count) {
		struct remap_part part;

		remap_map_lookup(&r->map, all.block + pos, all.count - pos, &run);
		part = remap_subpart(&all, pos, run.count);

		switch (run.where) {
		case REMAP_AT_MAIN:
			status = io->sent == REMAP_SENT_NOWHERE ? remap_write_main(r, &part) :
				 BLK_STS_IOERR;
			if (!status)
				break;
			if (!remap_may_be_bad_sector(status) ||
			    test_bit(REMAP_F_NO_AUTO, &r->flags))
				break;
			status = remap_rescue_part(r, &part);
			break;
		case REMAP_AT_SLOT:
			status = remap_rewrite_slots(r, &part, run.slot);
			break;
		case REMAP_IS_LOST:
		case REMAP_IN_DOUBT:
			status = remap_part_to_slots(r, &part, run.slot, REMAP_NO_SLOT,
						     REMAP_CAUSE_WRITE, EIO);
			break;
		}
	}
	return status;
}

/* ---- Worker: commit ---- */

static int remap_move_cmp(const void *a, const void *b)
{
	const struct remap_move *x = a, *y = b;

	return x->block < y->block ? -1 : x->block > y->block;
}

/*
 * The outcome of a commit is unknown: no write to its blocks may be
 * acknowledged before a later commit has superseded it, whatever the main
 * says.
 */
static void remap_batch_in_doubt(struct remap *r)
{
	unsigned int i;

	for (i = 0; i < r->nr_moves; i++)
		if (!r->moves[i].was_doubtful)
			atomic64_inc(&r->nr_doubt);
	remap_map_publish_doubtful(&r->map);
}

static void remap_batch_done(struct remap *r)
{
	unsigned int i;

	remap_map_publish(&r->map);
	clear_bit(REMAP_F_SPARE_LOST, &r->flags);
	atomic64_add(r->nr_moves, &r->nr_remapped);
	pr_info_ratelimited(DM_FMT("%s: %u blocks of %s remapped, from block %llu"),
			    dm_table_device_name(r->ti->table), r->nr_moves, r->main->name,
			    (unsigned long long)r->moves[0].block);
	for (i = 0; i < r->nr_moves; i++)
		if (r->moves[i].was_doubtful)
			atomic64_dec(&r->nr_doubt);
}

/* Take what publishing needs, whatever comes of the commit. */
static int remap_batch_prepare(struct remap *r)
{
	unsigned int i;

	sort(r->moves, r->nr_moves, sizeof(*r->moves), remap_move_cmp, NULL);
	for (i = 0; i < r->nr_moves; i++)
		r->changes[i] = (struct remap_change) {
			.block = r->moves[i].block,
			.slot = r->moves[i].slot,
			.where = REMAP_AT_SLOT,
		};
	return remap_map_prepare(&r->map, r->changes, r->nr_moves,
				 GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN, true);
}

/* Slots whose block has a durable new one: bad from now on. */
static void remap_retire_slots(struct remap *r)
{
	unsigned int i;

	for (i = 0; i < r->nr_moves; i++)
		if (r->moves[i].old_slot != REMAP_NO_SLOT)
			remap_md_stage_bad(r->md, r->moves[i].old_slot, EIO);
	remap_md_commit(r->md);
}

static blk_status_t remap_commit_batch(struct remap *r)
{
	int ret;

	if (!r->nr_moves)
		return BLK_STS_OK;

	ret = remap_batch_prepare(r);
	if (ret) {
		/* Staged, but never written: a later commit would do so. */
		set_bit(REMAP_F_BROKEN, &r->flags);
	} else {
		ret = remap_md_commit(r->md);
		if (ret)
			remap_batch_in_doubt(r);
		else
			remap_batch_done(r);
	}

	if (ret)
		DMERR("%s: commit of %u remaps failed: %d", dm_table_device_name(r->ti->table),
		      r->nr_moves, ret);
	else
		/* If this fails the new entries still win, by sequence. */
		remap_retire_slots(r);
	r->nr_moves = 0;
	if (!ret)
		return BLK_STS_OK;
	r->commit_failed = true;
	return BLK_STS_IOERR;
}

/* ---- Worker: the queue ---- */

static void remap_finish(struct remap *r, struct bio *bio, blk_status_t status)
{
	struct remap_io *io = remap_io(bio);

	if (status && status != BLK_STS_DM_REQUEUE)
		atomic64_inc(&r->nr_failed);
	io->sent = REMAP_FINISHED;
	bio->bi_status = status;
	bio_endio(bio);
}

static void remap_finish_all(struct remap *r, struct bio_list *bios, blk_status_t status)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios)))
		remap_finish(r, bio, status);
}

static int remap_activate(struct remap *r)
{
	int ret;

	if (test_bit(REMAP_F_ACTIVE, &r->flags))
		return 0;
	ret = remap_md_activate(r->md);
	if (ret) {
		DMERR_LIMIT("%s: cannot begin to write: %d",
			    dm_table_device_name(r->ti->table), ret);
		set_bit(REMAP_F_FAILED, &r->flags);
		return ret;
	}
	clear_bit(REMAP_F_FAILED, &r->flags);
	set_bit(REMAP_F_ACTIVE, &r->flags);
	return 0;
}

static void remap_process_one(struct remap *r, struct bio *bio)
{
	struct remap_io *io = remap_io(bio);

	io->staged = false;
	io->status = BLK_STS_OK;
	if (dm_noflush_suspending(r->ti))
		io->status = BLK_STS_DM_REQUEUE;
	else if (bio_op(bio) == REQ_OP_WRITE)
		io->status = remap_write_again(r, bio);
	/* Discards only wait here for the first write's formalities. */
}

/* Write all that is queued, commit, and only then complete. */
static void remap_process(struct remap *r, struct bio_list *bios)
{
	struct bio_list done = BIO_EMPTY_LIST;
	struct remap_io *io;
	struct bio *bio;
	bool flushed;

	r->commit_failed = false;
	r->main_silent = false;
	r->main_unflushed = false;
	r->nr_bad_slots = 0;
	while ((bio = bio_list_pop(bios))) {
		remap_process_one(r, bio);
		bio_list_add(&done, bio);
	}

	flushed = remap_flush_main(r);
	remap_commit_batch(r);
	while ((bio = bio_list_pop(&done))) {
		io = remap_io(bio);
		/* Whichever of the commits it was in: rather an error too many. */
		if (!io->status && (!flushed || (io->staged && r->commit_failed)))
			io->status = BLK_STS_IOERR;
		remap_finish(r, bio, io->status);
	}
}

/* What an event is raised for, as far as it shows in the status line. */
struct remap_condition {
	u64 remapped, doubt;
	unsigned long flags;
	unsigned int live;
	bool read_only, degraded;
};

static struct remap_condition remap_condition(struct remap *r)
{
	struct remap_condition condition = { };
	struct remap_md_info info;

	remap_md_info(r->md, &info);
	condition.remapped = atomic64_read(&r->nr_remapped);
	condition.doubt = atomic64_read(&r->nr_doubt);
	condition.flags = READ_ONCE(r->flags) & ~BIT(REMAP_F_ACTIVE);
	condition.live = info.nr_live;
	condition.read_only = info.read_only;
	condition.degraded = info.degraded;
	return condition;
}

static bool remap_condition_same(const struct remap_condition *a, const struct remap_condition *b)
{
	return a->remapped == b->remapped && a->doubt == b->doubt && a->flags == b->flags &&
		a->live == b->live && a->read_only == b->read_only &&
		a->degraded == b->degraded;
}

static void remap_work(struct work_struct *work)
{
	struct remap *r = container_of(work, struct remap, work);
	struct remap_condition before = remap_condition(r), after;
	unsigned int noio = memalloc_noio_save();
	struct bio_list bios = BIO_EMPTY_LIST;

	spin_lock_irq(&r->lock);
	bio_list_merge(&bios, &r->queue);
	bio_list_init(&r->queue);
	spin_unlock_irq(&r->lock);

	if (dm_noflush_suspending(r->ti))
		remap_finish_all(r, &bios, BLK_STS_DM_REQUEUE);
	else if (remap_activate(r))
		remap_finish_all(r, &bios, BLK_STS_IOERR);
	else
		remap_process(r, &bios);

	after = remap_condition(r);
	if (!remap_condition_same(&before, &after))
		dm_table_event(r->ti->table);
	memalloc_noio_restore(noio);
}

static void remap_queue(struct remap *r, struct bio *bio)
{
	unsigned long irq;

	spin_lock_irqsave(&r->lock, irq);
	bio_list_add(&r->queue, bio);
	spin_unlock_irqrestore(&r->lock, irq);
	queue_work(r->wq, &r->work);
}

/* ---- I/O ---- */

static int remap_send(struct remap *r, struct bio *bio, struct remap_io *io,
		      enum remap_sent where, sector_t sector)
{
	struct dm_dev *dev = where == REMAP_SENT_MAIN ? r->main : r->spare;

	bio_set_dev(bio, dev->bdev);
	bio->bi_iter.bi_sector = sector;
	io->sent = where;
	return DM_MAPIO_REMAPPED;
}

static int remap_hold(struct remap *r, struct bio *bio, struct remap_io *io, sector_t sector)
{
	io->iter = bio->bi_iter;
	io->iter.bi_sector = sector;
	io->sent = REMAP_SENT_NOWHERE;
	remap_queue(r, bio);
	return DM_MAPIO_SUBMITTED;
}

static int remap_ignore(struct bio *bio, struct remap_io *io)
{
	io->sent = REMAP_FINISHED;
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

/* Where the main's blocks are smaller, discards may be cut at its bounds. */
static bool remap_whole_blocks(struct remap *r, struct bio *bio, sector_t sector)
{
	return !((sector | bio_sectors(bio)) & ((1U << r->sectors_shift) - 1));
}

static bool remap_refuses_writes(struct remap *r)
{
	return r->flags & (BIT(REMAP_F_READ_ONLY) | BIT(REMAP_F_BROKEN));
}

static int remap_map_bio(struct dm_target *ti, struct bio *bio)
{
	struct remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct remap *r = ti->private;
	bool write = op_is_write(bio_op(bio));
	struct remap_run run;
	sector_t sector;
	u64 block;
	u32 count;

	if (unlikely(bio->bi_opf & REQ_PREFLUSH)) {
		/* Both members may hold acknowledged data in their caches. */
		bool main = !dm_bio_get_target_bio_nr(bio);

		io->sent = main ? REMAP_SENT_MAIN : REMAP_SENT_SPARE;
		bio_set_dev(bio, main ? r->main->bdev : r->spare->bdev);
		return DM_MAPIO_REMAPPED;
	}

	sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	block = sector >> r->sectors_shift;
	count = bio_sectors(bio) >> r->sectors_shift;

	if (write && unlikely(remap_refuses_writes(r))) {
		atomic64_inc(&r->nr_failed);
		return DM_MAPIO_KILL;
	}

	/* A discard is a hint, and slots are not given back for it. */
	if (unlikely(bio_op(bio) == REQ_OP_DISCARD) && !remap_whole_blocks(r, bio, sector))
		return remap_ignore(bio, io);

	if (likely(remap_map_miss(&r->map, block, count))) {
		run.where = REMAP_AT_MAIN;
	} else {
		remap_map_lookup(&r->map, block, count, &run);
		if (run.count < count)
			dm_accept_partial_bio(bio, run.count << r->sectors_shift);
	}
	if (write && unlikely(!test_bit(REMAP_F_ACTIVE, &r->flags)))
		return remap_hold(r, bio, io, sector);

	io->iter = bio->bi_iter;
	io->iter.bi_sector = sector;

	switch (run.where) {
	case REMAP_AT_MAIN:
		if (unlikely(test_bit(REMAP_F_FUA, &r->flags)) && bio_op(bio) == REQ_OP_WRITE)
			bio->bi_opf |= REQ_FUA;
		return remap_send(r, bio, io, REMAP_SENT_MAIN, sector);
	case REMAP_AT_SLOT:
		if (bio_op(bio) == REQ_OP_DISCARD)
			return remap_ignore(bio, io);
		return remap_send(r, bio, io, REMAP_SENT_SPARE,
				  remap_md_slot_sector(r->md, run.slot));
	case REMAP_IS_LOST:
	case REMAP_IN_DOUBT:
		if (bio_op(bio) == REQ_OP_DISCARD)
			return remap_ignore(bio, io);
		if (write)
			return remap_hold(r, bio, io, sector);
		break;
	}
	return DM_MAPIO_KILL;
}

static void remap_count_error(struct remap *r, struct bio *bio, enum remap_sent sent)
{
	if (sent == REMAP_SENT_SPARE)
		atomic64_inc(&r->nr_spare_errors);
	else if (op_is_write(bio_op(bio)))
		atomic64_inc(&r->nr_main_write_errors);
	else
		atomic64_inc(&r->nr_main_read_errors);
}

static int remap_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct remap *r = ti->private;

	if (unlikely(bio->bi_opf & REQ_PREFLUSH) && !*error &&
	    remap_md_take_cache_lost(r->md, io->sent == REMAP_SENT_MAIN ?
				     REMAP_ROLE_MAIN : REMAP_ROLE_SPARE))
		*error = BLK_STS_IOERR;

	if (likely(!*error) || io->sent == REMAP_FINISHED || *error == BLK_STS_DM_REQUEUE)
		return DM_ENDIO_DONE;

	if (bio->bi_opf & REQ_PREFLUSH) {
		/* What it has in its cache it may not be able to write. */
		if (io->sent == REMAP_SENT_MAIN)
			set_bit(REMAP_F_FUA, &r->flags);
		remap_count_error(r, bio, io->sent);
		return DM_ENDIO_DONE;
	}
	/* The main's limits are no error. */
	if (*error == BLK_STS_NOTSUPP || *error == BLK_STS_AGAIN)
		return DM_ENDIO_DONE;

	remap_count_error(r, bio, io->sent);
	if (bio_op(bio) != REQ_OP_WRITE)
		return DM_ENDIO_DONE;
	if (!remap_may_be_bad_sector(*error) || remap_refuses_writes(r) ||
	    (test_bit(REMAP_F_NO_AUTO, &r->flags) && io->sent == REMAP_SENT_MAIN)) {
		atomic64_inc(&r->nr_failed);
		return DM_ENDIO_DONE;
	}
	remap_queue(r, bio);
	return DM_ENDIO_INCOMPLETE;
}

/* ---- Sets that are in use ---- */

static bool remap_sets_conflict(const struct remap *a, const struct remap *b)
{
	dev_t a1 = a->main->bdev->bd_dev, a2 = a->spare->bdev->bd_dev;
	dev_t b1 = b->main->bdev->bd_dev, b2 = b->spare->bdev->bd_dev;

	return !memcmp(a->set_uuid, b->set_uuid, REMAP_UUID_SIZE) ||
		a1 == b1 || a1 == b2 || a2 == b1 || a2 == b2;
}

/*
 * One set has one device.  A second table for the same device is a reload and
 * may exist beside the first: device-mapper has only one of them in use.
 */
static int remap_claim(struct remap *r)
{
	struct remap *other;
	int ret = 0;

	mutex_lock(&remap_sets_lock);
	list_for_each_entry(other, &remap_sets, list) {
		if (!remap_sets_conflict(r, other) ||
		    dm_table_get_md(other->ti->table) == dm_table_get_md(r->ti->table))
			continue;
		DMERR("%s: set %pUb or one of its members is in use by %s",
		      dm_table_device_name(r->ti->table), r->set_uuid,
		      dm_table_device_name(other->ti->table));
		ret = -EBUSY;
		break;
	}
	if (!ret)
		list_add(&r->list, &remap_sets);
	mutex_unlock(&remap_sets_lock);
	return ret;
}

static void remap_unclaim(struct remap *r)
{
	mutex_lock(&remap_sets_lock);
	list_del(&r->list);
	mutex_unlock(&remap_sets_lock);
}

/* ---- Construction ---- */

static int remap_parse_features(struct remap *r, struct dm_arg_set *as, char **error)
{
	static const struct dm_arg args[] = {
		{ 0, 3, "Invalid number of feature arguments" },
	};
	unsigned int argc;
	const char *arg;

	/* The older project's tables may end after the devices. */
	if (!as->argc)
		return 0;
	if (dm_read_arg_group(args, as, &argc, error))
		return -EINVAL;

	while (argc--) {
		arg = dm_shift_arg(as);
		if (!strcasecmp(arg, "read_only")) {
			set_bit(REMAP_F_READ_ONLY, &r->flags);
			set_bit(REMAP_F_READ_ONLY_ASKED, &r->flags);
		} else if (!strcasecmp(arg, "no_auto_remap")) {
			set_bit(REMAP_F_NO_AUTO, &r->flags);
		} else if (!strcasecmp(arg, "fua")) {
			set_bit(REMAP_F_FUA, &r->flags);
			set_bit(REMAP_F_FUA_ASKED, &r->flags);
		} else {
			*error = "Unknown feature argument";
			return -EINVAL;
		}
	}
	if (as->argc) {
		*error = "Too many arguments";
		return -EINVAL;
	}
	return 0;
}

static int remap_get_devices(struct remap *r, struct dm_arg_set *as, char **error)
{
	struct dm_target *ti = r->ti;
	int ret;

	ret = dm_get_device(ti, dm_shift_arg(as), dm_table_get_mode(ti->table), &r->main);
	if (ret) {
		*error = "Cannot open main device";
		return ret;
	}
	ret = dm_get_device(ti, dm_shift_arg(as), dm_table_get_mode(ti->table), &r->spare);
	if (ret) {
		*error = "Cannot open spare device";
		return ret;
	}
	if (r->main->bdev == r->spare->bdev) {
		*error = "Main and spare are the same device";
		return -EINVAL;
	}
	if (bdev_is_zoned(r->main->bdev) || bdev_is_zoned(r->spare->bdev)) {
		*error = "Zoned devices are not supported";
		return -EINVAL;
	}
	return 0;
}

static int remap_open_set(struct remap *r, char **error)
{
	struct remap_md_info info;
	struct remap_md *md;
	int ret;

	md = remap_md_open(r->main->bdev, r->spare->bdev,
			   dm_table_device_name(r->ti->table), error);
	if (IS_ERR(md))
		return PTR_ERR(md);
	r->md = md;
	remap_md_info(md, &info);
	r->sectors_shift = info.block_shift - SECTOR_SHIFT;
	memcpy(r->set_uuid, info.set_uuid, REMAP_UUID_SIZE);

	if (r->ti->begin || r->ti->len > info.main_size ||
	    r->ti->len & ((1U << r->sectors_shift) - 1)) {
		DMERR("%s: table begins at %llu and has %llu sectors; the set has %llu",
		      dm_table_device_name(r->ti->table), (unsigned long long)r->ti->begin,
		      (unsigned long long)r->ti->len, (unsigned long long)info.main_size);
		*error = "Target does not fit the set's size";
		return -EINVAL;
	}
	ret = remap_map_init(&r->map, info.nr_blocks, info.block_shift);
	if (ret) {
		*error = "Cannot allocate the map";
		return ret;
	}
	return 0;
}

static void remap_free(struct remap *r)
{
	if (r->wq)
		destroy_workqueue(r->wq);
	bioset_exit(&r->bios);
	kvfree(r->moves);
	kvfree(r->changes);
	kvfree(r->bad);
	if (r->map.filter)
		remap_map_exit(&r->map);
	if (r->md)
		remap_md_close(r->md);
	if (r->spare)
		dm_put_device(r->ti, r->spare);
	if (r->main)
		dm_put_device(r->ti, r->main);
	kfree(r);
}

static int remap_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct remap *r;
	int ret;

	if (argc < 2) {
		ti->error = "Expected: <main> <spare> [<#features> <feature>...]";
		return -EINVAL;
	}
	r = kzalloc(sizeof(*r), GFP_KERNEL);
	if (!r) {
		ti->error = "Cannot allocate target";
		return -ENOMEM;
	}
	r->ti = ti;
	spin_lock_init(&r->lock);
	bio_list_init(&r->queue);
	INIT_WORK(&r->work, remap_work);

	ret = remap_get_devices(r, &as, &ti->error);
	if (ret)
		goto bad;
	ret = remap_parse_features(r, &as, &ti->error);
	if (ret)
		goto bad;
	if (!(dm_table_get_mode(ti->table) & BLK_OPEN_WRITE))
		set_bit(REMAP_F_READ_ONLY, &r->flags);
	ret = remap_open_set(r, &ti->error);
	if (ret)
		goto bad;

	ret = -ENOMEM;
	ti->error = "Cannot allocate resources";
	r->moves = kvmalloc_array(REMAP_BATCH, sizeof(*r->moves), GFP_KERNEL);
	r->changes = kvmalloc_array(REMAP_BATCH, sizeof(*r->changes), GFP_KERNEL);
	r->bad = kvmalloc_array(REMAP_MAX_FOUND + 1, sizeof(*r->bad), GFP_KERNEL);
	if (!r->moves || !r->changes || !r->bad || bioset_init(&r->bios, BIO_POOL_SIZE, 0, 0))
		goto bad;
	r->wq = alloc_ordered_workqueue("dm-" DM_MSG_PREFIX, WQ_MEM_RECLAIM);
	if (!r->wq)
		goto bad;

	ret = remap_claim(r);
	if (ret) {
		ti->error = "Set is in use by another device";
		goto bad;
	}

	ti->per_io_data_size = sizeof(struct remap_io);
	ti->num_flush_bios = 2;
	ti->num_discard_bios = 1;
	ti->discards_supported = bdev_max_discard_sectors(r->main->bdev);
	ti->private = r;
	return 0;

bad:
	remap_free(r);
	return ret;
}

static void remap_dtr(struct dm_target *ti)
{
	struct remap *r = ti->private;

	remap_unclaim(r);
	remap_free(r);
}

/* ---- Suspend, resume ---- */

/* A set that may only be read until somebody has confirmed a loss. */
static void remap_adopt_info(struct remap *r)
{
	struct remap_md_info info;

	remap_md_info(r->md, &info);
	if (info.read_only)
		set_bit(REMAP_F_READ_ONLY, &r->flags);
}

static int remap_preresume(struct dm_target *ti)
{
	struct remap *r = ti->private;
	unsigned int noio;
	int ret;

	/*
	 * After a mere suspend all is still known: the devices are held, and
	 * another table that goes live takes this one's place for good.
	 */
	if (r->loaded)
		return 0;

	/* Memory must not be made by writing to the device that waits for us. */
	noio = memalloc_noio_save();
	ret = remap_md_load(r->md, &r->map);
	memalloc_noio_restore(noio);
	if (ret)
		return ret;
	remap_adopt_info(r);
	r->loaded = true;
	return 0;
}

/* Nothing that the worker does outlives this. */
static void remap_postsuspend(struct dm_target *ti)
{
	struct remap *r = ti->private;

	flush_workqueue(r->wq);
}

/* ---- Status ---- */

static const char *remap_health(const struct remap *r, const struct remap_md_info *info)
{
	if (test_bit(REMAP_F_SPARE_LOST, &r->flags))
		return "spare-lost";
	if (test_bit(REMAP_F_FULL, &r->flags))
		return "full";
	return info->degraded ? "degraded" : "ok";
}

static const char *remap_mode(const struct remap *r, const struct remap_md_info *info)
{
	if (r->flags & (BIT(REMAP_F_FAILED) | BIT(REMAP_F_BROKEN)))
		return "fail";
	if (test_bit(REMAP_F_READ_ONLY, &r->flags) || info->read_only)
		return "ro";
	return "rw";
}

static void remap_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
			 char *result, unsigned int maxlen)
{
	struct remap *r = ti->private;
	struct remap_md_info info;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		remap_md_info(r->md, &info);
		DMEMIT("%pUb %u %llu/%llu %llu %llu %llu %llu %u/%u %u", info.set_uuid,
		       1U << r->sectors_shift, info.nr_mapped + info.nr_lost + info.nr_bad,
		       info.nr_slots, info.nr_mapped, info.nr_lost, info.nr_bad,
		       info.nr_hidden, info.nr_live, info.nr_copies, info.epoch);
		DMEMIT(" %lld %lld %lld %lld %lld %lld %llu %s %s",
		       (long long)atomic64_read(&r->nr_remapped),
		       (long long)atomic64_read(&r->nr_main_write_errors),
		       (long long)atomic64_read(&r->nr_main_read_errors),
		       (long long)atomic64_read(&r->nr_spare_errors),
		       (long long)atomic64_read(&r->nr_failed),
		       (long long)atomic64_read(&r->nr_doubt), info.table_length,
		       remap_health(r, &info), remap_mode(r, &info));
		break;

	case STATUSTYPE_TABLE:
		DMEMIT("%s %s %u", r->main->name, r->spare->name,
		       test_bit(REMAP_F_READ_ONLY_ASKED, &r->flags) +
		       test_bit(REMAP_F_NO_AUTO, &r->flags) +
		       test_bit(REMAP_F_FUA_ASKED, &r->flags));
		if (test_bit(REMAP_F_READ_ONLY_ASKED, &r->flags))
			DMEMIT(" read_only");
		if (test_bit(REMAP_F_NO_AUTO, &r->flags))
			DMEMIT(" no_auto_remap");
		if (test_bit(REMAP_F_FUA_ASKED, &r->flags))
			DMEMIT(" fua");
		break;

	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",main=%s,spare=%s,set=%pUb;", r->main->name, r->spare->name,
		       r->set_uuid);
		break;
	}
}

static int remap_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct remap *r = ti->private;
	sector_t size = bdev_nr_sectors(r->spare->bdev);
	int ret;

	ret = fn(ti, r->main, 0, ti->len, data);
	if (!ret)
		ret = fn(ti, r->spare, 0, size & ~(sector_t)(REMAP_SB_SECTORS - 1), data);
	return ret;
}

static void remap_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct remap *r = ti->private;
	unsigned int bytes = (1U << r->sectors_shift) << SECTOR_SHIFT;

	/* I/O never splits a block. */
	limits->logical_block_size = max(limits->logical_block_size, bytes);
	limits->physical_block_size = max(limits->physical_block_size, bytes);
	limits->discard_granularity = max(limits->discard_granularity, bytes);
}

static struct target_type remap_target = {
	.name = "remap",
	.version = {1, 0, 0},
	.module = THIS_MODULE,
	.ctr = remap_ctr,
	.dtr = remap_dtr,
	.map = remap_map_bio,
	.end_io = remap_end_io,
	.preresume = remap_preresume,
	.postsuspend = remap_postsuspend,
	.status = remap_status,
	.iterate_devices = remap_iterate_devices,
	.io_hints = remap_io_hints,
};

/* For tables written for the older project of this name. */
static struct target_type dm_remap_target;

static int __init dm_remap_init(void)
{
	int ret;

	ret = dm_register_target(&remap_target);
	if (ret)
		return ret;
	dm_remap_target = remap_target;
	dm_remap_target.name = "dm-remap";
	INIT_LIST_HEAD(&dm_remap_target.list);
	ret = dm_register_target(&dm_remap_target);
	if (ret)
		dm_unregister_target(&remap_target);
	return ret;
}

static void __exit dm_remap_exit(void)
{
	dm_unregister_target(&dm_remap_target);
	dm_unregister_target(&remap_target);
}

module_init(dm_remap_init);
module_exit(dm_remap_exit);

MODULE_DESCRIPTION(DM_NAME " target that redirects bad sectors to a spare device");
MODULE_AUTHOR("dm-remap developers");
MODULE_LICENSE("GPL");
MODULE_ALIAS("dm-dm-remap");
