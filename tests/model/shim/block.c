// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bios, and what the block layer does with PREFLUSH and FUA before a disk sees
 * them: a disk without a cache gets neither, one without FUA a flush behind
 * the write.
 */
#include <stdlib.h>

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>

static const struct {
	enum model_status model;
	blk_status_t blk;
	int err;
} statuses[] = {
	{ MODEL_OK, BLK_STS_OK, 0 },
	{ MODEL_IOERR, BLK_STS_IOERR, -EIO },
	{ MODEL_MEDIUM, BLK_STS_MEDIUM, -ENODATA },
	{ MODEL_TARGET, BLK_STS_TARGET, -EREMOTEIO },
	{ MODEL_TIMEOUT, BLK_STS_TIMEOUT, -ETIMEDOUT },
	{ MODEL_TRANSPORT, BLK_STS_TRANSPORT, -ENOLINK },
	{ MODEL_NOSPC, BLK_STS_NOSPC, -ENOSPC },
	{ MODEL_NOTSUPP, BLK_STS_NOTSUPP, -EOPNOTSUPP },
	{ MODEL_REQUEUE, BLK_STS_DM_REQUEUE, -EREMCHG },
};

static blk_status_t from_model(enum model_status status)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].model == status)
			return statuses[i].blk;
	return BLK_STS_IOERR;
}

int blk_status_to_errno(blk_status_t status)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].blk == status)
			return statuses[i].err;
	return -EIO;
}

blk_status_t errno_to_blk_status(int err)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].err == err)
			return statuses[i].blk;
	return BLK_STS_IOERR;
}

/* ---- Bios ---- */

int bioset_init(struct bio_set *bs, unsigned int size, unsigned int front_pad, int flags)
{
	(void)front_pad;
	(void)flags;
	if (model_allocation_fails())
		return -ENOMEM;
	bs->size = size;
	bs->in_use = 0;
	return 0;
}

void bioset_exit(struct bio_set *bs)
{
	model_assert(!bs->in_use);
	bs->size = 0;
}

void bio_init(struct bio *bio, struct block_device *bdev, struct bio_vec *table,
	      unsigned short max_vecs, blk_opf_t opf)
{
	memset(bio, 0, sizeof(*bio));
	bio->bi_bdev = bdev;
	bio->bi_opf = opf;
	bio->bi_io_vec = table;
	bio->bi_max_vecs = max_vecs;
}

void bio_uninit(struct bio *bio)
{
	(void)bio;
}

/* From a mempool, as the kernel's: it may have to wait, but it does not fail. */
struct bio *bio_alloc_bioset(struct block_device *bdev, unsigned short nr_vecs, blk_opf_t opf,
			     gfp_t gfp, struct bio_set *bs)
{
	struct bio *bio;

	model_assert(!bs || bs->size);
	/* A pool is only sure to have so many: taking more of them may deadlock. */
	model_assert(!bs || bs->in_use < bs->size);
	if (gfp & GFP_NOWAIT && model_allocation_fails())
		return NULL;
	bio = model_alloc(1, sizeof(*bio), gfp | __GFP_NOFAIL);
	bio_init(bio, bdev, NULL, nr_vecs, opf);
	if (nr_vecs) {
		bio->bi_io_vec = model_alloc(nr_vecs, sizeof(struct bio_vec), gfp | __GFP_NOFAIL);
		bio->model_owns_vecs = true;
	}
	bio->bi_pool = bs;
	if (bs)
		bs->in_use++;
	return bio;
}

struct bio *bio_alloc(struct block_device *bdev, unsigned short nr_vecs, blk_opf_t opf, gfp_t gfp)
{
	return bio_alloc_bioset(bdev, nr_vecs, opf, gfp, NULL);
}

struct bio *bio_alloc_clone(struct block_device *bdev, struct bio *from, gfp_t gfp,
			    struct bio_set *bs)
{
	struct bio *bio = bio_alloc_bioset(bdev, 0, from->bi_opf, gfp, bs);

	if (!bio)
		return NULL;
	bio->bi_iter = from->bi_iter;
	bio->bi_io_vec = from->bi_io_vec;
	return bio;
}

void bio_put(struct bio *bio)
{
	if (bio->bi_pool)
		bio->bi_pool->in_use--;
	if (bio->model_owns_vecs)
		model_free(bio->bi_io_vec);
	model_free(bio);
}

void __bio_add_page(struct bio *bio, struct page *page, unsigned int len, unsigned int offset)
{
	model_assert(bio->bi_vcnt < bio->bi_max_vecs && offset + len <= PAGE_SIZE);
	bio->bi_io_vec[bio->bi_vcnt++] = (struct bio_vec) {
		.bv_page = page, .bv_len = len, .bv_offset = offset,
	};
	bio->bi_iter.bi_size += len;
}

int bio_add_page(struct bio *bio, struct page *page, unsigned int len, unsigned int offset)
{
	if (bio->bi_vcnt == bio->bi_max_vecs)
		return 0;
	__bio_add_page(bio, page, len, offset);
	return (int)len;
}

static unsigned int step_length(const struct bio *bio, const struct bvec_iter *iter)
{
	return min(iter->bi_size, bio->bi_io_vec[iter->bi_idx].bv_len - iter->bi_bvec_done);
}

static void step(const struct bio *bio, struct bvec_iter *iter, unsigned int bytes)
{
	iter->bi_sector += bytes >> SECTOR_SHIFT;
	iter->bi_size -= bytes;
	iter->bi_bvec_done += bytes;
	if (iter->bi_bvec_done == bio->bi_io_vec[iter->bi_idx].bv_len) {
		iter->bi_idx++;
		iter->bi_bvec_done = 0;
	}
}

void bio_advance(struct bio *bio, unsigned int bytes)
{
	model_assert(bytes <= bio->bi_iter.bi_size);
	while (bytes) {
		unsigned int n = min(bytes, step_length(bio, &bio->bi_iter));
		sector_t sector = bio->bi_iter.bi_sector;

		step(bio, &bio->bi_iter, n);
		bio->bi_iter.bi_sector = sector + (n >> SECTOR_SHIFT);
		bytes -= n;
	}
}

static void copy_data(struct bio *bio, u8 *buf, bool to_bio)
{
	struct bvec_iter iter = bio->bi_iter;

	while (iter.bi_size) {
		const struct bio_vec *bv = &bio->bi_io_vec[iter.bi_idx];
		unsigned int n = step_length(bio, &iter);
		u8 *page = (u8 *)page_address(bv->bv_page) + bv->bv_offset + iter.bi_bvec_done;

		memcpy(to_bio ? page : buf, to_bio ? buf : page, n);
		buf += n;
		step(bio, &iter, n);
	}
}

void bio_endio(struct bio *bio)
{
	model_assert(bio->bi_end_io);
	bio->bi_end_io(bio);
}

void bio_io_error(struct bio *bio)
{
	bio->bi_status = BLK_STS_IOERR;
	bio_endio(bio);
}

/* ---- Requests ---- */

struct request {
	struct model_io io;
	struct bio *bio;
	bool preflush, write, postflush;	/* still to do */
};

static void request_next(struct request *rq);

static void request_done(struct model_io *io)
{
	struct request *rq = io->private_data;
	struct bio *bio = rq->bio;

	if (io->status) {
		bio->bi_status = from_model(io->status);
	} else if (rq->preflush || rq->write || rq->postflush) {
		request_next(rq);
		return;
	} else if (io->op == MODEL_READ) {
		copy_data(bio, io->data, true);
	}
	free(rq->io.data);
	free(rq);
	bio_endio(bio);
}

static void request_next(struct request *rq)
{
	struct model_disk *disk = rq->io.disk;
	struct bio *bio = rq->bio;

	if (rq->preflush) {
		rq->preflush = false;
		rq->io.op = MODEL_FLUSH;
	} else if (rq->write) {
		rq->write = false;
		rq->io.op = MODEL_WRITE;
		rq->io.fua = bio->bi_opf & REQ_FUA && disk->write_cache && disk->fua;
	} else {
		rq->postflush = false;
		rq->io.op = MODEL_FLUSH;
	}
	model_submit(&rq->io);
}

void submit_bio(struct bio *bio)
{
	struct model_disk *disk = bio->bi_bdev->disk;
	bool write = bio_op(bio) == REQ_OP_WRITE;
	struct request *rq;

	model_assert(write || bio_op(bio) == REQ_OP_READ || bio_op(bio) == REQ_OP_DISCARD);
	model_assert(bio->bi_iter.bi_sector + bio_sectors(bio) <= disk->sectors);
	model_assert(!(bio->bi_iter.bi_size % disk->logical_block_size));
	bio->bi_status = BLK_STS_OK;

	rq = calloc(1, sizeof(*rq));
	rq->bio = bio;
	rq->io = (struct model_io) {
		.disk = disk,
		.sector = bio->bi_iter.bi_sector,
		.bytes = bio->bi_iter.bi_size,
		.done = request_done,
		.private_data = rq,
	};
	if (bio->bi_iter.bi_size && bio_op(bio) != REQ_OP_DISCARD)
		rq->io.data = calloc(1, bio->bi_iter.bi_size);

	if (write) {
		rq->preflush = bio->bi_opf & REQ_PREFLUSH && disk->write_cache;
		rq->write = bio->bi_iter.bi_size;
		rq->postflush = rq->write && bio->bi_opf & REQ_FUA && disk->write_cache &&
				!disk->fua;
		if (rq->write)
			copy_data(bio, rq->io.data, false);
		if (!rq->preflush && !rq->write) {
			/* A flush of a disk without a cache. */
			free(rq->io.data);
			free(rq);
			bio_endio(bio);
			return;
		}
		request_next(rq);
		return;
	}
	rq->io.op = bio_op(bio) == REQ_OP_READ ? MODEL_READ : MODEL_DISCARD;
	model_submit(&rq->io);
}

void submit_bio_noacct(struct bio *bio)
{
	submit_bio(bio);
}

static void wait_endio(struct bio *bio)
{
	complete(bio->bi_private);
}

int submit_bio_wait(struct bio *bio)
{
	DECLARE_COMPLETION_ONSTACK(done);

	model_might_sleep();
	bio->bi_private = &done;
	bio->bi_end_io = wait_endio;
	bio->bi_opf |= REQ_SYNC;
	submit_bio(bio);
	wait_for_completion_io(&done);
	return blk_status_to_errno(bio->bi_status);
}

int blkdev_issue_flush(struct block_device *bdev)
{
	struct bio bio;

	bio_init(&bio, bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH);
	return submit_bio_wait(&bio);
}
