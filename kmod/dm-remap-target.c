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
 * Messages that move blocks are requests to the worker.  It claims their
 * range, so that new writes to it are queued, waits for the writes below us
 * (struct remap_inflight), and then has the blocks for itself.
 *
 * Locking: map() and end_io() take r->lock to queue a bio and look at flags
 * without it.  All else that changes (metadata, map, batch, claim) belongs to
 * the worker, or to preresume and the destructor while no I/O flows.  Claim
 * and map are read as remap_enter() says.  An entry of remap_sets is
 * protected by remap_sets_lock.
 */
#include <linux/bio.h>
#include <linux/completion.h>
#include <linux/device-mapper.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "dm-remap-metadata.h"

#define DM_MSG_PREFIX "remap"

/*
 * One commit takes at most this many remaps: its flushes, three without FUA,
 * must be few in a burst.
 */
#define REMAP_BATCH		2048

/*
 * The search for bad blocks in one bio ends when it has found so many or
 * taken so long; what is left of the bio goes to slots untested.
 */
#define REMAP_MAX_FOUND		256
#define REMAP_MAX_SEARCH	(10 * HZ)

/* Slots that may fail one after the other before the spare counts as failing itself. */
#define REMAP_MAX_BAD_SLOTS	4

/* Places spread over the main to ask whether it is alive, after the labels. */
#define REMAP_SPREAD		8

/* A main that gave no answer is not asked again before this has passed. */
#define REMAP_ASK_AGAIN		(5 * HZ)

/* Feature max_burst counts blocks per this time. */
#define REMAP_BURST_TIME	(60 * HZ)

/* Events that only report further remaps: so many uevents in so much time. */
#define REMAP_UEVENT_BURST	1
#define REMAP_UEVENT_INTERVAL	(5 * HZ)

/* The worker claims at most so many blocks at a time for a message. */
#define REMAP_CLAIM		256

/* Default of feature low_space, percent. */
#define REMAP_LOW_SPACE_DEFAULT	10

/* A message has the worker for so long at a time, if others wait or not. */
#define REMAP_REQUEST_TIME	HZ

/* After this time the worker finishes what it has begun of the queue. */
#define REMAP_PASS_TIME		(5 * HZ)

/* A pass is repeated so often because somebody else's flush has failed. */
#define REMAP_MAX_REPEATS	3

/* The map's memory for a batch is asked for so often. */
#define REMAP_MEMORY_TRIES	20

enum remap_flag {
	REMAP_F_ACTIVE,			/* the epoch was raised: writes may pass */
	REMAP_F_FAILED,			/* the last activation failed: no write passes */
	REMAP_F_SUSPENDED,		/* messages do no I/O */
	REMAP_F_MAIN_LOST,		/* the main gave no answer, nor any success since */
	REMAP_F_READ_ONLY,		/* feature, read-only table or set */
	REMAP_F_READ_ONLY_ASKED,	/* feature read_only was in the table line */
	REMAP_F_NO_AUTO,		/* feature no_auto_remap */
	REMAP_F_FUA,			/* feature fua, or a flush of the main failed */
	REMAP_F_FUA_ASKED,		/* feature fua was in the table line */
	REMAP_F_NO_LABEL,		/* feature no_label */
	REMAP_F_FULL,			/* no slot was left */
	REMAP_F_SPARE_LOST,		/* no slot could be written */
	REMAP_F_FLUSH_FAILED,		/* the next write with FUA has to fail */
};

/*
 * I/O below us that a claim has to wait for: everything that changes, and
 * everything at slots.  There are two counters, and the phase says in which
 * of them new I/O is counted; who waits flips the phase first.
 */
struct remap_inflight {
	long nr[2];
};

/* One block on its way to a slot, not yet committed. */
struct remap_move {
	u64 block;
	u32 slot;
	u32 old_slot;			/* to be retired, or REMAP_NO_SLOT */
	struct remap_entry was;		/* entry of @slot until now */
	enum remap_where where;
	bool was_doubtful;
};

struct remap;

/* What a message asks the worker to do. */
struct remap_request {
	struct list_head list;
	int (*fn)(struct remap *r, struct remap_request *request);
	bool changes;			/* the members */
	u64 block;			/* of the main; check: of the table */
	u32 count;			/* as many are wanted, so many were done */
	u64 damaged;			/* check: copies */
	unsigned long deadline;		/* jiffies */
	int error;
	struct completion done;
};

enum remap_health {
	REMAP_SPARE_LOST,
	REMAP_MAIN_LOST,
	REMAP_FULL,
	REMAP_DEGRADED,
	REMAP_LOW_SPACE,
	REMAP_OK,
};

enum remap_mode {
	REMAP_MODE_FAIL,
	REMAP_MODE_RO,
	REMAP_MODE_RW,
};

/* What an event is raised for. */
struct remap_condition {
	enum remap_health health;
	enum remap_mode mode;
	unsigned int live;
	bool fua;
	u64 used, mapped, doubt;
};

struct remap {
	/* What every read looks at: */
	struct block_device *main_bdev;
	unsigned long flags;		/* enum remap_flag */
	struct remap_map map;

	struct dm_target *ti;
	struct dm_dev *main;
	struct dm_dev *spare;
	struct remap_md *md;
	unsigned int sectors_shift;	/* log2 of sectors of a block */

	unsigned int max_burst;		/* blocks, 0: no limit */
	unsigned int low_space;		/* percent of the slots */

	struct remap_inflight __percpu *inflight;
	unsigned int phase;
	u64 claim_block;		/* range of a message */
	u32 claim_count;		/* 0: none */

	spinlock_t lock;		/* queue, requests */
	struct bio_list queue;		/* for the worker */
	struct list_head requests;	/* likewise */
	struct workqueue_struct *wq;
	struct work_struct work;
	struct work_struct report;	/* of what has changed, on a queue of the system's */
	struct bio_set bios;		/* for parts of queued bios */

	/* The worker's batch. */
	struct remap_move *moves;
	struct remap_change *changes;	/* the same for the map */
	unsigned int nr_moves;
	unsigned int nr_bad_slots;
	bool commit_failed;		/* one of those for the queue at hand */
	bool main_silent;		/* the main did not answer, likewise */
	bool main_unflushed;		/* it was written without FUA, likewise */
	int main_losses;		/* before that */
	int spare_losses;		/* before the first slot of the batch was written */
	bool spare_unflushed;		/* a slot that has its entry was written for FUA */
	int pass_losses;		/* of the spare, before that */
	unsigned int repeats;		/* passes in a row that had to be repeated */
	struct remap_bad *bad;		/* what the search in one bio has found */
	void *buf[2];			/* the worker's, a block each */
	unsigned long ask_again;	/* jiffies, see REMAP_F_MAIN_LOST */
	u64 burst_start;		/* jiffies_64 */
	unsigned int burst_blocks;	/* remapped since */
	struct remap_condition reported;	/* by the last event */
	struct ratelimit_state uevents;

	atomic64_t nr_remapped;		/* since the table was loaded */
	atomic64_t nr_main_write_errors;
	atomic64_t nr_main_read_errors;
	atomic64_t nr_spare_errors;
	atomic64_t nr_failed;		/* writes that ended with an error */
	atomic64_t nr_circuit;		/* writes not remapped: the main is gone */
	atomic64_t nr_burst;		/* writes not remapped: max_burst */
	atomic64_t nr_doubt;		/* blocks in doubt */

	/* In remap_sets: */
	struct list_head list;
	u8 set_uuid[REMAP_UUID_SIZE];
	bool loaded;			/* table and map are in memory */
};

enum remap_sent {
	REMAP_SENT_MAIN,
	REMAP_SENT_SPARE,
	REMAP_FLUSHES_MAIN,
	REMAP_FLUSHES_SPARE,
	REMAP_SENT_NOWHERE,		/* queued before it was sent */
	REMAP_FINISHED,			/* by the worker, status is final */
};

#define REMAP_NOT_COUNTED	2

/* Per bio.  What it was when it was sent: below us anything may be changed. */
struct remap_io {
	struct bvec_iter iter;
	u8 sent;			/* enum remap_sent */
	u8 phase;			/* of remap_inflight, or REMAP_NOT_COUNTED */
	bool fua;			/* was asked for */
	bool fua_forced;		/* feature fua */
	/* A read of a slot: */
	struct remap *r;
	bio_end_io_t *end_io;		/* device-mapper's */
	/* The worker's: */
	blk_status_t status;
	bool staged;			/* depends on a commit */
	bool holds_flushes;		/* of the main, until it is finished */
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

/* Blocks to write: a run of a queued bio, or one block in a buffer. */
struct remap_part {
	struct bio *bio;		/* or NULL */
	void *data;			/* then this */
	u64 block;			/* on the main */
	u32 offset;			/* in blocks, from the bio's begin */
	u32 count;			/* blocks */
};

static struct remap_part remap_subpart(const struct remap_part *part, u32 offset, u32 count)
{
	return (struct remap_part) {
		.bio = part->bio,
		.data = part->data,
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
	blk_status_t status;
	struct bio *bio;

	if (!part->bio)
		return errno_to_blk_status(remap_io_sync(bdev, REQ_OP_WRITE | flags, sector,
							 part->data, 1U << shift));

	bio = bio_alloc_clone(bdev, part->bio, GFP_NOIO, &r->bios);
	/*
	 * A bio that was at a partition is marked as moved to the whole disk,
	 * and its clone as well; this takes the mark off.
	 */
	bio_set_dev(bio, bdev);
	bio->bi_opf = REQ_OP_WRITE | REQ_SYNC | flags;
	bio->bi_iter = remap_io(part->bio)->iter;
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

	if (!r->main_unflushed)
		r->main_losses = remap_md_losses(r->md, REMAP_ROLE_MAIN);
	status = remap_write_part(r, part, r->main->bdev, part->block << r->sectors_shift,
				  flush ? 0 : REQ_FUA);
	if (status)
		atomic64_inc(&r->nr_main_write_errors);
	else
		clear_bit(REMAP_F_MAIN_LOST, &r->flags);
	if (!status && flush)
		r->main_unflushed = true;
	return status;
}

enum remap_flushed {
	REMAP_FLUSHED,
	REMAP_FLUSH_AGAIN,		/* somebody else's flush has failed meanwhile */
	REMAP_FLUSH_FAILED,
};

/* Is what was written since the losses were @losses on stable storage? */
static enum remap_flushed remap_flush(struct remap *r, enum remap_role role, int losses)
{
	if (remap_md_flush(r->md, role))
		return REMAP_FLUSH_FAILED;
	return remap_md_losses(r->md, role) == losses ? REMAP_FLUSHED : REMAP_FLUSH_AGAIN;
}

/* The same for what this pass has written to the main. */
static enum remap_flushed remap_flush_main(struct remap *r)
{
	if (!r->main_unflushed)
		return REMAP_FLUSHED;
	r->main_unflushed = false;
	return remap_flush(r, REMAP_ROLE_MAIN, r->main_losses);
}

/*
 * A write of the main with FUA failed, and the same write did not when it was
 * repeated.  Where FUA is a flush behind the write, it may have been this
 * flush, with what others have in the cache: then the error is passed on, and
 * the others hear of it at the next flush.  With feature fua nothing is in
 * the cache but for what is on its way.
 */
static blk_status_t remap_repeated(struct remap *r, struct bio *bio)
{
	struct remap_io *io = remap_io(bio);

	if (!io->fua || io->sent != REMAP_SENT_MAIN || !remap_fua_is_flush(r->main->bdev))
		return BLK_STS_OK;
	remap_md_tell_loss(r->md, REMAP_ROLE_MAIN);
	return BLK_STS_IOERR;
}

/*
 * Without FUA: the entry that names the slot is committed with a flush in
 * front; where it has its entry and the bio asked for FUA, a flush follows.
 */
static blk_status_t remap_write_slots(struct remap *r, const struct remap_part *part, u32 slot)
{
	blk_status_t status;

	status = remap_write_part(r, part, r->spare->bdev,
				  remap_md_slot_sector(r->md, slot), 0);
	if (status)
		atomic64_inc(&r->nr_spare_errors);
	else
		clear_bit(REMAP_F_SPARE_LOST, &r->flags);
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
 * label place, else of a few places spread over the device.  After silence
 * it is not asked again for a while, and errors are passed on meanwhile.  What
 * takes too long is no answer either.
 */
static bool remap_main_answers(struct remap *r, u64 block)
{
	sector_t places[REMAP_MAX_LABELS], mask;
	unsigned long deadline;
	void *buf = r->buf[0];
	unsigned int i, nr;
	bool alive;

	if (r->main_silent)
		return false;

	alive = remap_main_reads(r, buf, block << r->sectors_shift);
	/* A bad sector may take longer than that to fail. */
	deadline = jiffies + REMAP_MAX_SEARCH;
	nr = remap_md_label_sectors(r->md, places, ARRAY_SIZE(places));
	for (i = 0; i < nr && !alive && (!i || time_before(jiffies, deadline)); i++)
		alive = remap_main_reads(r, buf, places[i]);

	mask = ~(sector_t)((1U << r->sectors_shift) - 1);
	for (i = 0; i < REMAP_SPREAD && !alive && (!i || time_before(jiffies, deadline)); i++)
		alive = remap_main_reads(r, buf, (r->ti->len / REMAP_SPREAD * i) & mask);

	r->main_silent = !alive;
	if (alive) {
		clear_bit(REMAP_F_MAIN_LOST, &r->flags);
	} else {
		WRITE_ONCE(r->ask_again, jiffies + REMAP_ASK_AGAIN);
		set_bit(REMAP_F_MAIN_LOST, &r->flags);
		DMERR_LIMIT("%s: main %s does not answer: error at block %llu is passed on",
			    dm_table_device_name(r->ti->table), r->main->name,
			    (unsigned long long)block);
	}
	return alive;
}

/* The main gave no answer a moment ago. */
static bool remap_circuit_open(struct remap *r)
{
	return unlikely(test_bit(REMAP_F_MAIN_LOST, &r->flags)) &&
		time_before(jiffies, READ_ONCE(r->ask_again));
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
 * Stage the entry of one block that is in @slot now, or is lost.  @old is the
 * slot that it leaves, or REMAP_NO_SLOT.
 */
static void remap_stage_move(struct remap *r, const struct remap_part *part, u32 slot, u32 old,
			     enum remap_where where, enum remap_entry_cause cause, int err)
{
	struct remap_move *move = &r->moves[r->nr_moves++];
	struct remap_run now;

	remap_map_lookup(&r->map, part->block, 1, &now);
	/* A block in doubt was on its way from a slot that had failed. */
	if (old == REMAP_NO_SLOT && now.where == REMAP_IN_DOUBT)
		old = remap_md_find_slot(r->md, part->block, slot);

	*move = (struct remap_move) {
		.block = part->block,
		.slot = slot,
		.old_slot = old,
		.where = where,
		.was_doubtful = now.where == REMAP_IN_DOUBT,
	};
	remap_md_stage_block(r->md, slot, part->block, where == REMAP_IS_LOST ?
			     REMAP_ENTRY_LOST : REMAP_ENTRY_MAPPED, old, cause, err, &move->was);
	if (part->bio)
		remap_io(part->bio)->staged = true;
}

/* Free slots for up to @max blocks of @part: their number, or an error. */
static int remap_alloc_slots(struct remap *r, const struct remap_part *part, u32 max, u32 *slot)
{
	int ret = remap_md_alloc(r->md, part->block, max, slot);

	if (ret == -ENOSPC)
		set_bit(REMAP_F_FULL, &r->flags);
	else if (ret > 0)
		clear_bit(REMAP_F_FULL, &r->flags);
	return ret;
}

/*
 * Write one block to a slot and return that, or REMAP_NO_SLOT.  @want is the
 * slot that the block has already, if any.  Slots that fail become bad once
 * another one has worked: before that the whole spare may be failing.
 */
static u32 remap_write_some_slot(struct remap *r, const struct remap_part *part, u32 want)
{
	u32 failed[REMAP_MAX_BAD_SLOTS + 1], slot = want;
	unsigned int nr = 0, i;
	blk_status_t status;

	for (;;) {
		if (slot == REMAP_NO_SLOT && remap_alloc_slots(r, part, 1, &slot) < 0)
			return REMAP_NO_SLOT;
		status = remap_write_slots(r, part, slot);
		if (!status)
			break;

		DMERR_LIMIT("%s: spare %s: slot %u at sector %llu: write error %d",
			    dm_table_device_name(r->ti->table), r->spare->name, slot,
			    (unsigned long long)remap_md_slot_sector(r->md, slot),
			    blk_status_to_errno(status));
		if (slot != want)
			failed[nr++] = slot;
		if (!remap_may_be_bad_sector(status) ||
		    ++r->nr_bad_slots > REMAP_MAX_BAD_SLOTS) {
			/* Not given back: the next block begins behind them. */
			set_bit(REMAP_F_SPARE_LOST, &r->flags);
			return REMAP_NO_SLOT;
		}
		slot = REMAP_NO_SLOT;
	}
	r->nr_bad_slots = 0;
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
	u32 slot = remap_write_some_slot(r, part, want);

	if (slot == REMAP_NO_SLOT)
		return BLK_STS_IOERR;
	if (want != REMAP_NO_SLOT && slot != want)
		old = want;
	remap_stage_move(r, part, slot, old, REMAP_AT_SLOT, cause, err);
	return BLK_STS_OK;
}

/*
 * Write the begin of @part to consecutive slots in one piece.  Returns how
 * many blocks that were, or 0 if they have to be written one by one.
 */
static u32 remap_write_run(struct remap *r, const struct remap_part *part, u32 *slot)
{
	struct remap_part run;
	int nr;

	nr = remap_alloc_slots(r, part, part->count, slot);
	if (nr < 0)
		return 0;
	run = remap_subpart(part, 0, nr);
	if (!remap_write_slots(r, &run, *slot))
		return nr;
	remap_md_unalloc(r->md, *slot);
	return 0;
}

/* Slots of a batch are flushed when it is committed, and must not be lost before. */
static void remap_begin_slots(struct remap *r)
{
	if (!r->nr_moves)
		r->spare_losses = remap_md_losses(r->md, REMAP_ROLE_SPARE);
}

static blk_status_t remap_commit_batch(struct remap *r);

/* The same for each block of @part, committing whenever the batch is full. */
static blk_status_t remap_part_to_slots(struct remap *r, const struct remap_part *part,
					u32 want, u32 old, enum remap_entry_cause cause, int err)
{
	bool runs = want == REMAP_NO_SLOT && part->count > 1;
	blk_status_t status = BLK_STS_OK;
	u32 pos, i, nr, slot;

	for (pos = 0; pos < part->count && !status; pos += nr) {
		struct remap_part sub, one;

		if (r->nr_moves == REMAP_BATCH)
			status = remap_commit_batch(r);
		if (status)
			break;
		remap_begin_slots(r);
		sub = remap_subpart(part, pos, min(part->count - pos, REMAP_BATCH - r->nr_moves));
		nr = runs ? remap_write_run(r, &sub, &slot) : 0;
		for (i = 0; i < nr; i++) {
			one = remap_subpart(&sub, i, 1);
			remap_stage_move(r, &one, slot + i,
					 old == REMAP_NO_SLOT ? old : old + pos + i,
					 REMAP_AT_SLOT, cause, err);
		}
		if (nr)
			continue;
		/* A slot among them fails, or there is none. */
		runs = false;
		nr = 1;
		one = remap_subpart(&sub, 0, 1);
		status = remap_block_to_slot(r, &one, want == REMAP_NO_SLOT ? want : want + pos,
					     old == REMAP_NO_SLOT ? old : old + pos, cause, err);
	}
	return status;
}

/* Feature max_burst: may @blocks more be remapped now? */
static bool remap_burst_allows(struct remap *r, u32 blocks)
{
	if (!r->max_burst)
		return true;
	if (time_after64(get_jiffies_64(), r->burst_start + REMAP_BURST_TIME)) {
		r->burst_start = get_jiffies_64();
		r->burst_blocks = 0;
	}
	if (blocks > r->max_burst - r->burst_blocks) {
		DMWARN_LIMIT("%s: more than %u bad blocks in a minute: error is passed on",
			     dm_table_device_name(r->ti->table), r->max_burst);
		return false;
	}
	r->burst_blocks += blocks;
	return true;
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
	u32 blocks = 0;

	if (r->main_silent || remap_circuit_open(r)) {
		atomic64_inc(&r->nr_circuit);
		return BLK_STS_IOERR;
	}
	status = remap_search_part(r, part, &nr);
	if (!status && !nr)
		return remap_repeated(r, part->bio);
	if (status)
		return status;
	/* Asked after the last of the failures: it speaks for all of them. */
	if (!remap_main_answers(r, part->block + r->bad[0].offset)) {
		atomic64_inc(&r->nr_circuit);
		return r->bad[0].status;
	}
	for (i = 0; i < nr; i++)
		blocks += r->bad[i].count;
	if (!remap_burst_allows(r, blocks)) {
		atomic64_inc(&r->nr_burst);
		return r->bad[0].status;
	}

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
	blk_status_t status;
	u32 i;

	r->spare_unflushed |= remap_io(part->bio)->fua;
	status = remap_write_slots(r, part, slot);
	for (i = 0; i < part->count && status; i++) {
		struct remap_part one = remap_subpart(part, i, 1);
		blk_status_t own = remap_write_slots(r, &one, slot + i);

		if (!own)
			continue;
		if (!remap_may_be_bad_sector(own)) {
			set_bit(REMAP_F_SPARE_LOST, &r->flags);
			return own;
		}
		own = remap_part_to_slots(r, &one, REMAP_NO_SLOT, slot + i, REMAP_CAUSE_SLOT,
					  -blk_status_to_errno(own));
		if (own)
			return own;
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
			status = io->sent == REMAP_SENT_MAIN ? BLK_STS_IOERR :
				 remap_write_main(r, &part);
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

/* Take what publishing the batch needs, before anything is on disk. */
static int remap_prepare_batch(struct remap *r)
{
	unsigned int i;
	int ret;

	sort(r->moves, r->nr_moves, sizeof(*r->moves), remap_move_cmp, NULL);
	for (i = 0; i < r->nr_moves; i++)
		r->changes[i] = (struct remap_change) {
			.block = r->moves[i].block,
			.slot = r->moves[i].slot,
			.where = r->moves[i].where,
		};
	/* No memory now may mean memory soon: these blocks are rescued already. */
	for (i = 0; i < REMAP_MEMORY_TRIES; i++) {
		ret = remap_map_prepare(&r->map, r->changes, r->nr_moves, REMAP_GFP, true);
		if (!ret)
			break;
		schedule_timeout_uninterruptible(HZ / 50 + 1);
	}
	return ret;
}

/* Nothing of the batch was written: as if it had never been. */
static void remap_drop_batch(struct remap *r)
{
	unsigned int i;

	for (i = 0; i < r->nr_moves; i++)
		remap_md_unstage(r->md, r->moves[i].slot, &r->moves[i].was);
}

/*
 * The outcome of a commit is unknown: no write to its blocks may be
 * acknowledged before a later commit has superseded it, whatever the main
 * says.
 */
static void remap_batch_in_doubt(struct remap *r)
{
	unsigned int i;

	remap_map_publish_doubtful(&r->map);
	for (i = 0; i < r->nr_moves; i++)
		if (!r->moves[i].was_doubtful)
			atomic64_inc(&r->nr_doubt);
}

static bool remap_has_other_slot(struct remap *r, const struct remap_move *move, u32 *other)
{
	*other = remap_md_find_slot(r->md, move->block, move->slot);
	return *other != REMAP_NO_SLOT;
}

static void remap_batch_durable(struct remap *r)
{
	unsigned int i;
	u32 other;

	remap_map_publish(&r->map);
	atomic64_add(r->nr_moves, &r->nr_remapped);
	pr_info_ratelimited(DM_FMT("%s: %u blocks of %s remapped, from block %llu"),
			    dm_table_device_name(r->ti->table), r->nr_moves, r->main->name,
			    (unsigned long long)r->moves[0].block);

	/* Slots whose block has a durable new one are bad from now on. */
	for (i = 0; i < r->nr_moves; i++) {
		if (r->moves[i].was_doubtful)
			atomic64_dec(&r->nr_doubt);
		if (r->moves[i].old_slot != REMAP_NO_SLOT)
			remap_md_stage_bad(r->md, r->moves[i].old_slot, EIO);
		/* It may have left more than one behind while it was in doubt. */
		while (r->moves[i].was_doubtful && remap_has_other_slot(r, &r->moves[i], &other))
			remap_md_stage_bad(r->md, other, EIO);
	}
	/* If this fails the new entries still win, by sequence. */
	remap_md_commit(r->md, remap_md_losses(r->md, REMAP_ROLE_SPARE));
}

/*
 * Commit what is staged for the batch.  A first failure may be a hiccup of the
 * spare.  If nothing was written to the table, nothing is in doubt.
 */
static int remap_commit(struct remap *r, int losses)
{
	bool began;
	int ret;

	ret = remap_md_commit(r->md, losses);
	began = remap_md_commit_began(r->md);
	if (ret && remap_md_writable(r->md)) {
		ret = remap_md_commit(r->md, losses);
		began |= remap_md_commit_began(r->md);
	}
	if (!ret)
		return 0;

	if (began) {
		remap_batch_in_doubt(r);
	} else {
		remap_map_abandon(&r->map);
		remap_drop_batch(r);
	}
	return ret;
}

static blk_status_t remap_commit_batch(struct remap *r)
{
	int ret;

	if (!r->nr_moves)
		return BLK_STS_OK;

	ret = remap_prepare_batch(r);
	if (ret) {
		remap_drop_batch(r);
	} else {
		ret = remap_commit(r, r->spare_losses);
		if (!ret)
			remap_batch_durable(r);
	}
	if (ret) {
		DMERR_LIMIT("%s: commit of %u remaps failed: %d",
			    dm_table_device_name(r->ti->table), r->nr_moves, ret);
		r->commit_failed = true;
	}
	r->nr_moves = 0;
	return ret ? BLK_STS_IOERR : BLK_STS_OK;
}

/* ---- Worker: the queue ---- */

/* Sent to this member, if it is the flush of one. */
static bool remap_is_flush(const struct remap_io *io, enum remap_role *role)
{
	*role = io->sent == REMAP_FLUSHES_MAIN ? REMAP_ROLE_MAIN : REMAP_ROLE_SPARE;
	return io->sent == REMAP_FLUSHES_MAIN || io->sent == REMAP_FLUSHES_SPARE;
}

/*
 * A flush went well; but what was in the cache may have been lost before, and
 * only we know.
 */
static blk_status_t remap_judge_flush(struct remap *r, enum remap_role role)
{
	return remap_md_take_cache_lost(r->md, role) ? BLK_STS_IOERR : BLK_STS_OK;
}

static void remap_finish(struct remap *r, struct bio *bio, blk_status_t status)
{
	struct remap_io *io = remap_io(bio);
	enum remap_role role;

	if (status && status != BLK_STS_DM_REQUEUE) {
		if (remap_is_flush(io, &role))
			set_bit(REMAP_F_FLUSH_FAILED, &r->flags);
		else
			atomic64_inc(&r->nr_failed);
	}
	if (io->holds_flushes)
		remap_md_let_flushes(r->md, REMAP_ROLE_MAIN);
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
	enum remap_role role;

	io->staged = false;
	io->status = BLK_STS_OK;
	if (dm_noflush_suspending(r->ti))
		io->status = BLK_STS_DM_REQUEUE;
	else if (bio_op(bio) == REQ_OP_WRITE && !remap_is_flush(io, &role))
		io->status = remap_write_again(r, bio);
	/* Discards only wait here for the first write's formalities, flushes for others' end. */
}

static void remap_begin_pass(struct remap *r)
{
	r->commit_failed = false;
	r->main_silent = false;
	r->main_unflushed = false;
	r->spare_unflushed = false;
	r->pass_losses = remap_md_losses(r->md, REMAP_ROLE_SPARE);
	r->nr_bad_slots = 0;
}

/* What there was no time for, or is to be written again, comes first in the next pass. */
static void remap_requeue(struct remap *r, struct bio_list *bios)
{
	if (bio_list_empty(bios))
		return;
	spin_lock_irq(&r->lock);
	bio_list_merge_head(&r->queue, bios);
	spin_unlock_irq(&r->lock);
	queue_work(r->wq, &r->work);
}

/* And to slots. */
static enum remap_flushed remap_flush_slots(struct remap *r)
{
	if (!r->spare_unflushed)
		return REMAP_FLUSHED;
	return remap_flush(r, REMAP_ROLE_SPARE, r->pass_losses);
}

/* How did it end?  Returns false if it has to be processed again. */
static bool remap_conclude(struct remap *r, struct remap_io *io, enum remap_flushed flushed)
{
	enum remap_role role;

	if (io->status)
		return true;
	if (remap_is_flush(io, &role)) {
		if (remap_md_flushes_held(r->md, role))
			return false;
		io->status = remap_judge_flush(r, role);
		return true;
	}
	/* Whichever of the commits it was in: rather an error too many. */
	if (flushed == REMAP_FLUSH_FAILED || (io->staged && r->commit_failed))
		io->status = BLK_STS_IOERR;
	return io->status || flushed != REMAP_FLUSH_AGAIN;
}

/* Write what is queued, commit, and only then complete. */
static void remap_process(struct remap *r, struct bio_list *bios)
{
	unsigned long deadline = jiffies + REMAP_PASS_TIME;
	struct bio_list done = BIO_EMPTY_LIST, again = BIO_EMPTY_LIST;
	enum remap_flushed flushed;
	struct bio *bio;

	remap_begin_pass(r);
	do {
		bio = bio_list_pop(bios);
		remap_process_one(r, bio);
		bio_list_add(&done, bio);
	} while (!bio_list_empty(bios) && time_before(jiffies, deadline));
	remap_requeue(r, bios);

	flushed = remap_flush_main(r);
	remap_commit_batch(r);
	flushed = max(flushed, remap_flush_slots(r));
	r->repeats = flushed == REMAP_FLUSH_AGAIN ? r->repeats + 1 : 0;
	if (r->repeats > REMAP_MAX_REPEATS)
		flushed = REMAP_FLUSH_FAILED;

	while ((bio = bio_list_pop(&done))) {
		if (remap_conclude(r, remap_io(bio), flushed))
			remap_finish(r, bio, remap_io(bio)->status);
		else
			bio_list_add(&again, bio);
	}
	remap_requeue(r, &again);
}

/* ---- Worker: requests of messages ---- */

/*
 * Where the I/O to come is counted.  For as long as the caller stays in this
 * RCU read-side section a claim that it does not see waits for it; if it does
 * see the new phase, it sees the claim and the map of that time as well.
 */
static unsigned int remap_enter(struct remap *r)
{
	/* Pairs with remap_drain(). */
	return smp_load_acquire(&r->phase);
}

static bool remap_claimed(struct remap *r, u64 block, u32 count)
{
	/* Pairs with remap_release_range(): whoever sees no claim sees its result. */
	u32 claimed = smp_load_acquire(&r->claim_count);
	u64 first = READ_ONCE(r->claim_block);

	return unlikely(claimed) && block < first + claimed && first < block + count;
}

static void remap_count_in(struct remap *r, struct remap_io *io, unsigned int phase)
{
	io->phase = phase;
	this_cpu_inc(r->inflight->nr[phase]);
}

static void remap_count_out(struct remap *r, struct remap_io *io)
{
	if (io->phase == REMAP_NOT_COUNTED)
		return;
	this_cpu_dec(r->inflight->nr[io->phase]);
	io->phase = REMAP_NOT_COUNTED;
}

/*
 * Wait for all counted I/O that began before.  It is below us, so it ends
 * without our help; what fails is queued behind the worker's back.
 */
static void remap_drain(struct remap *r)
{
	unsigned int phase = r->phase;
	long nr;
	int cpu;

	/* Pairs with remap_enter(). */
	smp_store_release(&r->phase, !phase);
	synchronize_rcu();
	/* From here on these only go down. */
	for (;;) {
		nr = 0;
		for_each_possible_cpu(cpu)
			nr += READ_ONCE(per_cpu_ptr(r->inflight, cpu)->nr[phase]);
		if (!nr)
			return;
		schedule_timeout_uninterruptible(1);
	}
}

/* From here on writes to the range are queued, and none is in flight. */
static void remap_claim_range(struct remap *r, u64 block, u32 count)
{
	WRITE_ONCE(r->claim_block, block);
	WRITE_ONCE(r->claim_count, count);
	remap_drain(r);
}

static void remap_release_range(struct remap *r)
{
	/* Pairs with remap_claimed(). */
	smp_store_release(&r->claim_count, 0);
}

/* A block that nobody can read any more gets a slot, but no content. */
static int remap_declare_lost(struct remap *r, const struct remap_part *part)
{
	u32 slot;
	int ret;

	ret = remap_alloc_slots(r, part, 1, &slot);
	if (ret < 0)
		return ret;
	remap_stage_move(r, part, slot, REMAP_NO_SLOT, REMAP_IS_LOST, REMAP_CAUSE_MESSAGE, EIO);
	return 0;
}

/* Copy one block from the main to a slot. */
static int remap_move_block(struct remap *r, u64 block)
{
	struct remap_part part = { .data = r->buf[1], .block = block, .count = 1 };
	sector_t sector = block << r->sectors_shift;
	struct remap_run now;

	remap_map_lookup(&r->map, block, 1, &now);
	if (now.where != REMAP_AT_MAIN)
		return 0;

	remap_begin_slots(r);
	if (!remap_main_reads(r, part.data, sector)) {
		if (!remap_main_answers(r, block))
			return -EIO;
		/* The question was whether there is a main; this is the last try. */
		if (!remap_main_reads(r, part.data, sector))
			return remap_declare_lost(r, &part);
	}
	if (!remap_block_to_slot(r, &part, REMAP_NO_SLOT, REMAP_NO_SLOT, REMAP_CAUSE_MESSAGE, 0))
		return 0;
	return test_bit(REMAP_F_FULL, &r->flags) ? -ENOSPC : -EIO;
}

/* The worker is needed elsewhere; the message goes on later, after @done blocks. */
static bool remap_must_yield(struct remap *r, const struct remap_request *request, u32 done)
{
	return done && (test_bit(REMAP_F_SUSPENDED, &r->flags) ||
			!bio_list_empty(&r->queue) || time_after(jiffies, request->deadline));
}

/* Message remap. */
static int remap_move_blocks(struct remap *r, struct remap_request *request)
{
	u32 i;
	int ret = 0;

	BUILD_BUG_ON(REMAP_CLAIM > REMAP_BATCH);
	remap_claim_range(r, request->block, request->count);
	for (i = 0; i < request->count && !ret && !remap_must_yield(r, request, i); i++)
		ret = remap_move_block(r, request->block + i);
	if (remap_commit_batch(r))
		ret = -EIO;
	remap_release_range(r);
	request->count = i;
	return ret;
}

/* Write @slot's data to @block of the main, and see that it is there. */
static int remap_copy_home(struct remap *r, u64 block, u32 slot)
{
	unsigned int bytes = (1U << r->sectors_shift) << SECTOR_SHIFT;
	struct remap_part part = { .data = r->buf[0], .block = block, .count = 1 };
	sector_t sector = block << r->sectors_shift;

	if (remap_io_sync(r->spare->bdev, REQ_OP_READ, remap_md_slot_sector(r->md, slot),
			  r->buf[0], bytes)) {
		atomic64_inc(&r->nr_spare_errors);
		return -EIO;
	}
	if (remap_write_main(r, &part) || remap_flush_main(r) != REMAP_FLUSHED ||
	    !remap_main_reads(r, r->buf[1], sector))
		return -EIO;
	if (memcmp(r->buf[0], r->buf[1], bytes)) {
		DMERR("%s: main %s: sector %llu does not keep what is written",
		      dm_table_device_name(r->ti->table), r->main->name,
		      (unsigned long long)sector);
		return -EIO;
	}
	return 0;
}

/*
 * Free the slots of the batch, whose blocks are on the main again.  A slot is
 * given to another block only when no read of it is in flight any more.
 */
static int remap_free_batch(struct remap *r)
{
	unsigned int i;
	int ret;

	if (!r->nr_moves)
		return 0;
	/* No older entry of these blocks may come to light when theirs is gone. */
	ret = remap_md_commit(r->md, remap_md_losses(r->md, REMAP_ROLE_SPARE));
	if (!ret)
		ret = remap_prepare_batch(r);
	if (ret)
		goto out;

	for (i = 0; i < r->nr_moves; i++)
		remap_md_stage_free(r->md, r->moves[i].slot, &r->moves[i].was);
	ret = remap_commit(r, remap_md_losses(r->md, REMAP_ROLE_SPARE));
	if (ret) {
		/* Free on disk or not: the slots remain what the blocks have. */
		for (i = 0; i < r->nr_moves; i++)
			remap_md_unstage(r->md, r->moves[i].slot, &r->moves[i].was);
		goto out;
	}
	remap_map_publish(&r->map);
	remap_drain(r);
	for (i = 0; i < r->nr_moves; i++)
		remap_md_unalloc(r->md, r->moves[i].slot);
	clear_bit(REMAP_F_FULL, &r->flags);
out:
	r->nr_moves = 0;
	return ret;
}

/* Message forget. */
static int remap_forget_blocks(struct remap *r, struct remap_request *request)
{
	struct remap_run run;
	int ret = 0, err;
	u64 block;
	u32 i;

	remap_claim_range(r, request->block, request->count);
	for (i = 0; i < request->count && !ret && !remap_must_yield(r, request, i); i++) {
		block = request->block + i;
		remap_map_lookup(&r->map, block, 1, &run);
		if (run.where == REMAP_AT_MAIN)
			continue;
		ret = run.where == REMAP_AT_SLOT ? remap_copy_home(r, block, run.slot) : -EUCLEAN;
		if (!ret)
			r->moves[r->nr_moves++] = (struct remap_move) {
				.block = block,
				.slot = run.slot,
				.old_slot = REMAP_NO_SLOT,
				.where = REMAP_AT_MAIN,
			};
	}
	err = remap_free_batch(r);
	remap_release_range(r);
	request->count = i;
	return err ?: ret;
}

/* Message check. */
static int remap_check_superblocks(struct remap *r, struct remap_request *request)
{
	request->damaged = remap_md_check_sbs(r->md);
	return 0;
}

static int remap_check_table(struct remap *r, struct remap_request *request)
{
	u32 i;

	request->damaged = 0;
	for (i = 0; i < request->count && !remap_must_yield(r, request, i); i++)
		request->damaged += remap_md_check_table(r->md, request->block + i);
	request->count = i;
	return 0;
}

static void remap_serve(struct remap *r, struct remap_request *request)
{
	int ret = 0;

	remap_begin_pass(r);
	if (test_bit(REMAP_F_SUSPENDED, &r->flags))
		ret = -EBUSY;
	else if (request->changes)
		ret = remap_md_writable(r->md) ? remap_activate(r) : -EROFS;
	request->deadline = jiffies + REMAP_REQUEST_TIME;
	request->error = ret ?: request->fn(r, request);
	complete(&request->done);
}

/* ---- Worker: events ---- */

static const char *const remap_health_names[] = {
	"spare-lost", "main-lost", "full", "degraded", "low-space", "ok",
};

static enum remap_health remap_health(const struct remap *r, const struct remap_md_info *info)
{
	if (test_bit(REMAP_F_SPARE_LOST, &r->flags))
		return REMAP_SPARE_LOST;
	if (test_bit(REMAP_F_MAIN_LOST, &r->flags))
		return REMAP_MAIN_LOST;
	if (test_bit(REMAP_F_FULL, &r->flags) || info->nr_used == info->nr_slots)
		return REMAP_FULL;
	if (info->degraded)
		return REMAP_DEGRADED;
	if ((info->nr_slots - info->nr_used) * 100 < info->nr_slots * r->low_space)
		return REMAP_LOW_SPACE;
	return REMAP_OK;
}

static const char *const remap_mode_names[] = { "fail", "ro", "rw" };

static enum remap_mode remap_mode(const struct remap *r, const struct remap_md_info *info)
{
	if (test_bit(REMAP_F_FAILED, &r->flags))
		return REMAP_MODE_FAIL;
	if (test_bit(REMAP_F_READ_ONLY, &r->flags) || info->read_only)
		return REMAP_MODE_RO;
	return REMAP_MODE_RW;
}

static struct remap_condition remap_condition(struct remap *r)
{
	struct remap_md_info info;

	remap_md_info(r->md, &info);
	return (struct remap_condition) {
		.health = remap_health(r, &info),
		.mode = remap_mode(r, &info),
		.live = info.nr_live,
		.fua = test_bit(REMAP_F_FUA, &r->flags),
		.used = info.nr_used,
		.mapped = info.nr_mapped,
		.doubt = atomic64_read(&r->nr_doubt),
	};
}

/* For user space to notify somebody: the device has changed. */
static void remap_send_uevent(struct remap *r)
{
	struct mapped_device *md = dm_table_get_md(r->ti->table);
	struct remap_md_info info;
	char text[5][64], *env[6];
	unsigned int i;

	remap_md_info(r->md, &info);
	snprintf(text[0], sizeof(text[0]), "DM_REMAP_SET=%pUb", info.set_uuid);
	snprintf(text[1], sizeof(text[1]), "DM_REMAP_HEALTH=%s",
		 remap_health_names[remap_health(r, &info)]);
	snprintf(text[2], sizeof(text[2]), "DM_REMAP_MODE=%s",
		 remap_mode_names[remap_mode(r, &info)]);
	snprintf(text[3], sizeof(text[3]), "DM_REMAP_MAPPED=%llu",
		 (unsigned long long)info.nr_mapped);
	snprintf(text[4], sizeof(text[4]), "DM_REMAP_FREE=%llu",
		 (unsigned long long)(info.nr_slots - info.nr_used));
	for (i = 0; i < ARRAY_SIZE(text); i++)
		env[i] = text[i];
	env[i] = NULL;
	kobject_uevent_env(&disk_to_dev(dm_disk(md))->kobj, KOBJ_CHANGE, env);
}

/*
 * Not the worker's: sending takes a mutex under which others wait for memory,
 * which may have to be written to us first.
 *
 * Remaps alone may be many: device-mapper only counts their events, but
 * udev would look at the device for each of them.
 */
static void remap_report(struct work_struct *work)
{
	struct remap *r = container_of(work, struct remap, report);
	struct remap_condition now = remap_condition(r), *then = &r->reported;
	bool same = now.health == then->health && now.mode == then->mode &&
		    now.live == then->live && now.fua == then->fua && now.doubt == then->doubt;

	if (same && now.used == then->used && now.mapped == then->mapped)
		return;
	*then = now;
	dm_table_event(r->ti->table);
	if (!same || __ratelimit(&r->uevents))
		remap_send_uevent(r);
}

static void remap_work(struct work_struct *work)
{
	struct remap *r = container_of(work, struct remap, work);
	unsigned int noio = memalloc_noio_save();
	struct bio_list bios = BIO_EMPTY_LIST;
	struct remap_request *request, *next;
	LIST_HEAD(requests);

	spin_lock_irq(&r->lock);
	bio_list_merge(&bios, &r->queue);
	bio_list_init(&r->queue);
	list_splice_init(&r->requests, &requests);
	spin_unlock_irq(&r->lock);

	if (dm_noflush_suspending(r->ti))
		remap_finish_all(r, &bios, BLK_STS_DM_REQUEUE);
	else if (bio_list_peek(&bios) && remap_activate(r))
		remap_finish_all(r, &bios, BLK_STS_IOERR);
	else if (bio_list_peek(&bios))
		remap_process(r, &bios);
	list_for_each_entry_safe(request, next, &requests, list)
		remap_serve(r, request);
	schedule_work(&r->report);
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

/*
 * Where the main's blocks are smaller, discards may be cut at its bounds.  All
 * else comes in whole blocks, or is none of the block layer's making.
 */
static bool remap_whole_blocks(struct remap *r, struct bio *bio, sector_t sector)
{
	return !((sector | bio_sectors(bio)) & ((1U << r->sectors_shift) - 1));
}

/* Counted out here, so that reads of the main have nothing to look up when they end. */
static void remap_end_slot_read(struct bio *bio)
{
	struct remap_io *io = remap_io(bio);

	remap_count_out(io->r, io);
	bio->bi_end_io = io->end_io;
	bio->bi_end_io(bio);
}

/*
 * A read that may meet mapped blocks.  Reads wait for nothing: only those of
 * slots are counted.
 */
static noinline int remap_map_read(struct remap *r, struct bio *bio)
{
	u32 count = bio_sectors(bio) >> r->sectors_shift;
	sector_t sector = bio->bi_iter.bi_sector;
	struct remap_io *io = remap_io(bio);
	struct remap_run run;
	unsigned int phase;

	if (unlikely(!remap_whole_blocks(r, bio, sector)))
		return DM_MAPIO_KILL;

	io->phase = REMAP_NOT_COUNTED;
	rcu_read_lock();
	phase = remap_enter(r);
	remap_map_lookup_rcu(&r->map, sector >> r->sectors_shift, count, &run);
	if (run.where == REMAP_AT_SLOT)
		remap_count_in(r, io, phase);
	rcu_read_unlock();

	if (run.count < count)
		dm_accept_partial_bio(bio, run.count << r->sectors_shift);
	if (run.where == REMAP_AT_SLOT) {
		io->r = r;
		io->end_io = bio->bi_end_io;
		bio->bi_end_io = remap_end_slot_read;
		return remap_send(r, bio, io, REMAP_SENT_SPARE,
				  remap_md_slot_sector(r->md, run.slot));
	}
	if (run.where == REMAP_AT_MAIN)
		return remap_send(r, bio, io, REMAP_SENT_MAIN, sector);
	return DM_MAPIO_KILL;
}

/* Where a write or discard has to go, counted if it goes there by itself. */
static void remap_lookup_to_change(struct remap *r, struct remap_io *io, u64 block, u32 count,
				   struct remap_run *run, bool *hold)
{
	unsigned int phase;

	rcu_read_lock();
	phase = remap_enter(r);
	*hold = remap_claimed(r, block, count);
	if (remap_map_empty(&r->map) ||
	    remap_map_miss(&r->map, block << r->sectors_shift, count << r->sectors_shift << 9))
		*run = (struct remap_run) { .where = REMAP_AT_MAIN, .count = count };
	else
		remap_map_lookup_rcu(&r->map, block, count, run);
	if (!*hold && (run->where == REMAP_AT_MAIN || run->where == REMAP_AT_SLOT))
		remap_count_in(r, io, phase);
	rcu_read_unlock();
}

/*
 * Linux 6.1 goes on with the data of a flush that failed, and reports
 * success: the data, which ought to be a journal's commit record, is refused.
 */
static bool remap_refuses(struct remap *r, const struct remap_io *io)
{
	return test_bit(REMAP_F_READ_ONLY, &r->flags) ||
		(io->fua && test_and_clear_bit(REMAP_F_FLUSH_FAILED, &r->flags));
}

/* The flush of one member: both may hold acknowledged data in their caches. */
static int remap_map_flush(struct remap *r, struct bio *bio, struct remap_io *io)
{
	bool main = !dm_bio_get_target_bio_nr(bio);

	io->holds_flushes = false;
	io->sent = main ? REMAP_FLUSHES_MAIN : REMAP_FLUSHES_SPARE;
	bio_set_dev(bio, main ? r->main->bdev : r->spare->bdev);
	return DM_MAPIO_REMAPPED;
}

static noinline int remap_map_change(struct remap *r, struct bio *bio)
{
	u32 count = bio_sectors(bio) >> r->sectors_shift;
	sector_t sector = bio->bi_iter.bi_sector;
	u64 block = sector >> r->sectors_shift;
	bool discard = bio_op(bio) == REQ_OP_DISCARD;
	struct remap_io *io = remap_io(bio);
	struct remap_run run;
	bool hold;

	io->phase = REMAP_NOT_COUNTED;
	if (bio->bi_opf & REQ_PREFLUSH)
		return remap_map_flush(r, bio, io);
	io->fua = bio->bi_opf & REQ_FUA;
	io->fua_forced = false;
	io->holds_flushes = false;
	if (unlikely(r->flags & (BIT(REMAP_F_READ_ONLY) | BIT(REMAP_F_FLUSH_FAILED))) &&
	    remap_refuses(r, io)) {
		atomic64_inc(&r->nr_failed);
		return DM_MAPIO_KILL;
	}
	/* A discard is a hint, and slots are not given back for it. */
	if (unlikely(!remap_whole_blocks(r, bio, sector)))
		return discard ? remap_ignore(bio, io) : DM_MAPIO_KILL;
	if (unlikely(!test_bit(REMAP_F_ACTIVE, &r->flags)))
		return remap_hold(r, bio, io, sector);

	remap_lookup_to_change(r, io, block, count, &run, &hold);
	if (unlikely(hold))
		return remap_hold(r, bio, io, sector);
	if (run.count < count)
		dm_accept_partial_bio(bio, run.count << r->sectors_shift);
	io->iter = bio->bi_iter;
	io->iter.bi_sector = sector;

	if (run.where == REMAP_AT_MAIN) {
		if (unlikely(test_bit(REMAP_F_FUA, &r->flags)) && !discard) {
			bio->bi_opf |= REQ_FUA;
			io->fua_forced = true;
		}
		return remap_send(r, bio, io, REMAP_SENT_MAIN, sector);
	}
	if (discard) {
		remap_count_out(r, io);
		return remap_ignore(bio, io);
	}
	/* The worker flushes by itself: so an error says which of the two failed. */
	if (run.where == REMAP_AT_SLOT && !(io->fua && remap_fua_is_flush(r->spare->bdev)))
		return remap_send(r, bio, io, REMAP_SENT_SPARE,
				  remap_md_slot_sector(r->md, run.slot));
	remap_count_out(r, io);
	return remap_hold(r, bio, io, sector);
}

/*
 * Reads that meet no mapped block are sent on here; the rest is elsewhere, so
 * that they need no stack frame for it.  The target begins at sector 0
 * (remap_open_set()), so sectors remain what they are.
 */
static int remap_map_bio(struct dm_target *ti, struct bio *bio)
{
	struct remap *r = ti->private;
	struct remap_io *io;

	if (unlikely(op_is_write(bio_op(bio))))
		return remap_map_change(r, bio);
	/* What the second question needs is not to be loaded for the first one. */
	if (!remap_map_empty(&r->map) &&
	    unlikely(!remap_map_miss(&r->map, bio->bi_iter.bi_sector, bio->bi_iter.bi_size)))
		return remap_map_read(r, bio);

	io = remap_io(bio);
	io->sent = REMAP_SENT_MAIN;
	bio_set_dev(bio, r->main_bdev);
	return DM_MAPIO_REMAPPED;
}

/* Is there a point in handing a failed write of the main to the worker? */
static bool remap_may_rescue(struct remap *r)
{
	if (test_bit(REMAP_F_NO_AUTO, &r->flags))
		return false;
	if (!remap_circuit_open(r))
		return true;
	atomic64_inc(&r->nr_circuit);
	return false;
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

/* The member is there after all. */
static void remap_answered(struct remap *r, enum remap_flag lost)
{
	if (unlikely(test_bit(lost, &r->flags)) && test_and_clear_bit(lost, &r->flags))
		schedule_work(&r->report);
}

/* Where FUA is a flush behind the write, this may have been what failed. */
static bool remap_may_be_flush(struct remap *r, const struct remap_io *io)
{
	return (io->fua || io->fua_forced) && io->sent == REMAP_SENT_MAIN &&
		remap_fua_is_flush(r->main->bdev);
}

static int remap_end_flush(struct remap *r, struct bio *bio, enum remap_role role,
			   blk_status_t *error)
{
	bool main = role == REMAP_ROLE_MAIN;

	if (*error == BLK_STS_DM_REQUEUE)
		return DM_ENDIO_DONE;
	if (*error) {
		atomic64_inc(main ? &r->nr_main_write_errors : &r->nr_spare_errors);
		remap_md_count_loss(r->md, role);
		/* What it has in its cache it may not be able to write. */
		if (main && !test_and_set_bit(REMAP_F_FUA, &r->flags))
			schedule_work(&r->report);
	} else if (remap_md_flushes_held(r->md, role)) {
		remap_queue(r, bio);
		return DM_ENDIO_INCOMPLETE;
	}
	if (!*error)
		*error = remap_judge_flush(r, role);
	if (*error)
		set_bit(REMAP_F_FLUSH_FAILED, &r->flags);
	return DM_ENDIO_DONE;
}

static noinline int remap_end_other(struct remap *r, struct bio *bio, blk_status_t *error)
{
	struct remap_io *io = remap_io(bio);
	enum remap_role role;
	bool flush;

	if (op_is_write(bio_op(bio)))
		remap_count_out(r, io);
	if (unlikely(remap_is_flush(io, &role)))
		return remap_end_flush(r, bio, role, error);

	if (likely(!*error)) {
		if (io->sent == REMAP_SENT_MAIN)
			remap_answered(r, REMAP_F_MAIN_LOST);
		else if (io->sent == REMAP_SENT_SPARE)
			remap_answered(r, REMAP_F_SPARE_LOST);
		return DM_ENDIO_DONE;
	}
	/* The main's limits are no error. */
	if (io->sent == REMAP_FINISHED || *error == BLK_STS_DM_REQUEUE ||
	    *error == BLK_STS_NOTSUPP || *error == BLK_STS_AGAIN)
		return DM_ENDIO_DONE;

	remap_count_error(r, bio, io->sent);
	if (bio_op(bio) != REQ_OP_WRITE)
		return DM_ENDIO_DONE;
	flush = remap_may_be_flush(r, io);
	if (flush)
		remap_md_count_loss(r->md, REMAP_ROLE_MAIN);
	if (!remap_may_be_bad_sector(*error)) {
		if (io->sent == REMAP_SENT_SPARE &&
		    !test_and_set_bit(REMAP_F_SPARE_LOST, &r->flags))
			schedule_work(&r->report);
	} else if (io->sent != REMAP_SENT_MAIN || remap_may_rescue(r)) {
		io->holds_flushes = flush;
		if (flush)
			remap_md_hold_flushes(r->md, REMAP_ROLE_MAIN);
		remap_queue(r, bio);
		return DM_ENDIO_INCOMPLETE;
	}
	atomic64_inc(&r->nr_failed);
	return DM_ENDIO_DONE;
}

static int remap_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct remap *r = ti->private;

	/* There is nothing to be done for a read that went well. */
	if (likely(!*error) && !op_is_write(bio_op(bio)) &&
	    likely(!test_bit(REMAP_F_MAIN_LOST, &r->flags)))
		return DM_ENDIO_DONE;
	return remap_end_other(r, bio, error);
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
		{ 0, 8, "Invalid number of feature arguments" },
		{ 0, UINT_MAX, "Invalid max_burst: expected a number of blocks" },
		{ 0, 100, "Invalid low_space: expected a percentage" },
	};
	unsigned int argc;
	const char *arg;

	/* The older project's tables may end after the devices. */
	if (!as->argc)
		return 0;
	if (dm_read_arg_group(args, as, &argc, error))
		return -EINVAL;

	while (argc) {
		arg = dm_shift_arg(as);
		argc--;
		if (!strcasecmp(arg, "read_only")) {
			set_bit(REMAP_F_READ_ONLY, &r->flags);
			set_bit(REMAP_F_READ_ONLY_ASKED, &r->flags);
		} else if (!strcasecmp(arg, "no_auto_remap")) {
			set_bit(REMAP_F_NO_AUTO, &r->flags);
		} else if (!strcasecmp(arg, "fua")) {
			set_bit(REMAP_F_FUA, &r->flags);
			set_bit(REMAP_F_FUA_ASKED, &r->flags);
		} else if (!strcasecmp(arg, "no_label")) {
			set_bit(REMAP_F_NO_LABEL, &r->flags);
		} else if (!strcasecmp(arg, "max_burst") && argc) {
			if (dm_read_arg(&args[1], as, &r->max_burst, error))
				return -EINVAL;
			argc--;
		} else if (!strcasecmp(arg, "low_space") && argc) {
			if (dm_read_arg(&args[2], as, &r->low_space, error))
				return -EINVAL;
			argc--;
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
	r->main_bdev = r->main->bdev;
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
			   dm_table_device_name(r->ti->table),
			   test_bit(REMAP_F_NO_LABEL, &r->flags), error);
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
	cancel_work_sync(&r->report);
	bioset_exit(&r->bios);
	free_percpu(r->inflight);
	kfree(r->buf[0]);
	kfree(r->buf[1]);
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
	INIT_LIST_HEAD(&r->requests);
	INIT_WORK(&r->work, remap_work);
	INIT_WORK(&r->report, remap_report);
	ratelimit_state_init(&r->uevents, REMAP_UEVENT_INTERVAL, REMAP_UEVENT_BURST);
	ratelimit_set_flags(&r->uevents, RATELIMIT_MSG_ON_RELEASE);
	r->low_space = REMAP_LOW_SPACE_DEFAULT;
	r->burst_start = get_jiffies_64();
	set_bit(REMAP_F_SUSPENDED, &r->flags);

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
	r->inflight = alloc_percpu(struct remap_inflight);
	r->buf[0] = kmalloc((1U << r->sectors_shift) << SECTOR_SHIFT, GFP_KERNEL);
	r->buf[1] = kmalloc((1U << r->sectors_shift) << SECTOR_SHIFT, GFP_KERNEL);
	r->moves = kvmalloc_array(REMAP_BATCH, sizeof(*r->moves), GFP_KERNEL);
	r->changes = kvmalloc_array(REMAP_BATCH, sizeof(*r->changes), GFP_KERNEL);
	r->bad = kvmalloc_array(REMAP_MAX_FOUND + 1, sizeof(*r->bad), GFP_KERNEL);
	if (!r->inflight || !r->buf[0] || !r->buf[1] || !r->moves || !r->changes || !r->bad ||
	    bioset_init(&r->bios, BIO_POOL_SIZE, 0, 0))
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
	r->reported = remap_condition(r);
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

static void remap_resume(struct dm_target *ti)
{
	struct remap *r = ti->private;

	clear_bit(REMAP_F_SUSPENDED, &r->flags);
}

/* A message that moves many blocks ends after those that it is at. */
static void remap_presuspend(struct dm_target *ti)
{
	struct remap *r = ti->private;

	set_bit(REMAP_F_SUSPENDED, &r->flags);
}

/* Nothing that the worker does outlives this. */
static void remap_postsuspend(struct dm_target *ti)
{
	struct remap *r = ti->private;

	flush_workqueue(r->wq);
}

/* ---- Messages ---- */

static int remap_ask_worker(struct remap *r, struct remap_request *request)
{
	init_completion(&request->done);
	spin_lock_irq(&r->lock);
	list_add_tail(&request->list, &r->requests);
	spin_unlock_irq(&r->lock);
	queue_work(r->wq, &r->work);
	wait_for_completion(&request->done);
	return request->error;
}

/* A range of blocks, from the words after the message's name. */
static int remap_parse_range(struct remap *r, unsigned int argc, char **argv, u64 *block,
			     u64 *count)
{
	u64 nr_blocks = r->ti->len >> r->sectors_shift;

	*count = 1;
	if (argc < 2 || argc > 3 || kstrtoull(argv[1], 10, block) ||
	    (argc == 3 && kstrtoull(argv[2], 10, count)) || !*count) {
		DMERR("%s: message %s: expected <block> [<number of blocks>]",
		      dm_table_device_name(r->ti->table), argv[0]);
		return -EINVAL;
	}
	if (*block >= nr_blocks || *count > nr_blocks - *block) {
		DMERR("%s: message %s: block %llu, %llu blocks: the device has %llu",
		      dm_table_device_name(r->ti->table), argv[0], (unsigned long long)*block,
		      (unsigned long long)*count, (unsigned long long)nr_blocks);
		return -EINVAL;
	}
	return 0;
}

/* Have the worker do @fn to a range, piece by piece. */
static int remap_message_range(struct remap *r, unsigned int argc, char **argv,
			       int (*fn)(struct remap *r, struct remap_request *request))
{
	struct remap_request request = { .fn = fn, .changes = true };
	u64 count;
	int ret;

	ret = remap_parse_range(r, argc, argv, &request.block, &count);
	if (ret)
		return ret;
	if (test_bit(REMAP_F_READ_ONLY, &r->flags))
		return -EROFS;
	if (test_bit(REMAP_F_SUSPENDED, &r->flags))
		return -EBUSY;
	if (fn == remap_forget_blocks && remap_md_hidden(r->md, request.block, count)) {
		DMERR("%s: message forget: hidden blocks cannot be forgotten",
		      dm_table_device_name(r->ti->table));
		return -EPERM;
	}

	for (; count && !ret; count -= request.count) {
		if (fatal_signal_pending(current))
			return -EINTR;
		request.count = min_t(u64, count, REMAP_CLAIM);
		ret = remap_ask_worker(r, &request);
		request.block += request.count;
	}
	return ret;
}

/* Replies to messages are one line without an end, or lines. */
static int remap_message_check(struct remap *r, char *result, unsigned int maxlen)
{
	struct remap_request request = { .fn = remap_check_superblocks };
	u64 superblocks, table = 0;
	struct remap_md_info info;
	unsigned int sz = 0;
	int ret;

	ret = remap_ask_worker(r, &request);
	superblocks = request.damaged;

	remap_md_info(r->md, &info);
	request.fn = remap_check_table;
	while (!ret && request.block < info.table_length) {
		request.count = min_t(u64, info.table_length - request.block, REMAP_CLAIM);
		if (fatal_signal_pending(current))
			ret = -EINTR;
		else
			ret = remap_ask_worker(r, &request);
		table += request.damaged;
		request.block += request.count;
	}
	if (ret)
		return ret;

	if (superblocks || table)
		DMEMIT("damaged superblocks=%llu table_blocks=%llu",
		       (unsigned long long)superblocks, (unsigned long long)table);
	else
		DMEMIT("ok");
	return 1;
}

static const char *const remap_where_names[] = {
	[REMAP_AT_SLOT] = "mapped", [REMAP_IS_LOST] = "lost", [REMAP_IN_DOUBT] = "doubt",
};

static int remap_message_list(struct remap *r, unsigned int argc, char **argv, char *result,
			      unsigned int maxlen)
{
	struct remap_run run;
	unsigned int sz = 0;
	u64 block, count;

	if (argc != 3 || kstrtoull(argv[1], 10, &block) || kstrtoull(argv[2], 10, &count) ||
	    block > r->ti->len >> r->sectors_shift) {
		DMERR("%s: message list: expected <first block> <number of lines>",
		      dm_table_device_name(r->ti->table));
		return -EINVAL;
	}
	if (maxlen)
		*result = '\0';
	/* A reply that does not fit is asked for again, with more room. */
	for (; count && sz < maxlen && remap_map_next(&r->map, block, &block, &run); count--) {
		DMEMIT("%llu %u ", (unsigned long long)block, run.count);
		if (run.slot == REMAP_NO_SLOT)
			DMEMIT("-");
		else
			DMEMIT("%u", run.slot);
		DMEMIT(" %s\n", remap_where_names[run.where]);
		block += run.count;
		cond_resched();
	}
	return 1;
}

static int remap_reset_stats(struct remap *r)
{
	atomic64_t *counters[] = {
		&r->nr_remapped, &r->nr_main_write_errors, &r->nr_main_read_errors,
		&r->nr_spare_errors, &r->nr_failed, &r->nr_circuit, &r->nr_burst,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counters); i++)
		atomic64_set(counters[i], 0);
	return 0;
}

static int remap_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
			 unsigned int maxlen)
{
	struct remap *r = ti->private;

	if (!strcasecmp(argv[0], "remap"))
		return remap_message_range(r, argc, argv, remap_move_blocks);
	if (!strcasecmp(argv[0], "forget"))
		return remap_message_range(r, argc, argv, remap_forget_blocks);
	if (!strcasecmp(argv[0], "list"))
		return remap_message_list(r, argc, argv, result, maxlen);
	if (!strcasecmp(argv[0], "check") && argc == 1)
		return remap_message_check(r, result, maxlen);
	if (!strcasecmp(argv[0], "reset_stats") && argc == 1)
		return remap_reset_stats(r);

	DMERR("%s: unknown message %s", dm_table_device_name(ti->table), argv[0]);
	return -EINVAL;
}

/* ---- Status ---- */

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
		       1U << r->sectors_shift, info.nr_used, info.nr_slots, info.nr_mapped,
		       info.nr_lost, info.nr_bad, info.nr_hidden, info.nr_live, info.nr_copies,
		       info.epoch);
		DMEMIT(" %lld %lld %lld %lld %lld %lld %llu",
		       (long long)atomic64_read(&r->nr_remapped),
		       (long long)atomic64_read(&r->nr_main_write_errors),
		       (long long)atomic64_read(&r->nr_main_read_errors),
		       (long long)atomic64_read(&r->nr_spare_errors),
		       (long long)atomic64_read(&r->nr_failed),
		       (long long)atomic64_read(&r->nr_doubt), info.table_length);
		DMEMIT(" %lld %lld %s %s", (long long)atomic64_read(&r->nr_circuit),
		       (long long)atomic64_read(&r->nr_burst),
		       remap_health_names[remap_health(r, &info)],
		       remap_mode_names[remap_mode(r, &info)]);
		break;

	case STATUSTYPE_TABLE:
		DMEMIT("%s %s %u", r->main->name, r->spare->name,
		       test_bit(REMAP_F_READ_ONLY_ASKED, &r->flags) +
		       test_bit(REMAP_F_NO_AUTO, &r->flags) +
		       test_bit(REMAP_F_FUA_ASKED, &r->flags) +
		       test_bit(REMAP_F_NO_LABEL, &r->flags) + 2 * !!r->max_burst +
		       2 * (r->low_space != REMAP_LOW_SPACE_DEFAULT));
		if (test_bit(REMAP_F_READ_ONLY_ASKED, &r->flags))
			DMEMIT(" read_only");
		if (test_bit(REMAP_F_NO_AUTO, &r->flags))
			DMEMIT(" no_auto_remap");
		if (test_bit(REMAP_F_FUA_ASKED, &r->flags))
			DMEMIT(" fua");
		if (test_bit(REMAP_F_NO_LABEL, &r->flags))
			DMEMIT(" no_label");
		if (r->max_burst)
			DMEMIT(" max_burst %u", r->max_burst);
		if (r->low_space != REMAP_LOW_SPACE_DEFAULT)
			DMEMIT(" low_space %u", r->low_space);
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
	.version = {1, 1, 0},
	.features = DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = remap_ctr,
	.dtr = remap_dtr,
	.map = remap_map_bio,
	.end_io = remap_end_io,
	.presuspend = remap_presuspend,
	.presuspend_undo = remap_resume,
	.postsuspend = remap_postsuspend,
	.preresume = remap_preresume,
	.resume = remap_resume,
	.message = remap_message,
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
