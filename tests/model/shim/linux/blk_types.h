/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_BLK_TYPES_H
#define MODEL_LINUX_BLK_TYPES_H

#include <linux/kernel.h>
#include <linux/mm.h>

#define SECTOR_SHIFT		9
#define SECTOR_SIZE		512
#define BDEVNAME_SIZE		32
#define BLK_OPEN_READ		1U
#define BLK_OPEN_WRITE		2U

typedef u8 blk_status_t;

enum {
	BLK_STS_OK,
	BLK_STS_NOTSUPP,
	BLK_STS_TIMEOUT,
	BLK_STS_NOSPC,
	BLK_STS_TRANSPORT,
	BLK_STS_TARGET,
	BLK_STS_RESV_CONFLICT,
	BLK_STS_MEDIUM,
	BLK_STS_PROTECTION,
	BLK_STS_RESOURCE,
	BLK_STS_IOERR,
	BLK_STS_DM_REQUEUE,
	BLK_STS_AGAIN,
	BLK_STS_DEV_RESOURCE,
	BLK_STS_OFFLINE,
};

int blk_status_to_errno(blk_status_t status);
blk_status_t errno_to_blk_status(int err);

enum req_op {
	REQ_OP_READ		= 0,
	REQ_OP_WRITE		= 1,
	REQ_OP_FLUSH		= 2,
	REQ_OP_DISCARD		= 3,
	REQ_OP_SECURE_ERASE	= 5,
	REQ_OP_WRITE_ZEROES	= 9,
};

#define REQ_OP_BITS		8
#define REQ_OP_MASK		((1U << REQ_OP_BITS) - 1)
#define REQ_SYNC		(1U << 11)
#define REQ_META		(1U << 12)
#define REQ_PRIO		(1U << 13)
#define REQ_NOMERGE		(1U << 14)
#define REQ_IDLE		(1U << 15)
#define REQ_FUA			(1U << 17)
#define REQ_PREFLUSH		(1U << 18)
#define REQ_RAHEAD		(1U << 19)
#define REQ_NOWAIT		(1U << 21)
#define REQ_POLLED		(1U << 22)

struct block_device {
	struct model_disk *disk;
	dev_t bd_dev;
};

struct bio_vec {
	struct page *bv_page;
	unsigned int bv_len;
	unsigned int bv_offset;
};

struct bvec_iter {
	sector_t bi_sector;
	unsigned int bi_size;
	unsigned int bi_idx;
	unsigned int bi_bvec_done;
};

struct bio;
struct bio_set;
typedef void (bio_end_io_t)(struct bio *bio);

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	blk_opf_t bi_opf;
	blk_status_t bi_status;
	struct bvec_iter bi_iter;
	bio_end_io_t *bi_end_io;
	void *bi_private;
	unsigned short bi_vcnt;
	unsigned short bi_max_vecs;
	struct bio_vec *bi_io_vec;
	bool model_owns_vecs;
	struct bio_set *bi_pool;
};

#endif
