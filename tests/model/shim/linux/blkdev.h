/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_BLKDEV_H
#define MODEL_LINUX_BLKDEV_H

#include <linux/bio.h>
#include <linux/kobject.h>
#include <linux/blk_types.h>
#include <linux/sched.h>

struct queue_limits {
	unsigned int logical_block_size;
	unsigned int physical_block_size;
	unsigned int discard_granularity;
	unsigned int max_discard_sectors;
	unsigned int max_hw_discard_sectors;
	unsigned int io_min;
	unsigned int io_opt;
};

struct gendisk {
	struct device part0;
};

#define disk_to_dev(disk)	(&(disk)->part0)

int blkdev_issue_flush(struct block_device *bdev);

#define bdev_nr_sectors(bdev)		((sector_t)(bdev)->disk->sectors)
#define bdev_logical_block_size(bdev)	((bdev)->disk->logical_block_size)
#define bdev_physical_block_size(bdev)	((bdev)->disk->physical_block_size)
#define bdev_write_cache(bdev)		((bdev)->disk->write_cache)
#define bdev_fua(bdev)			((bdev)->disk->write_cache && (bdev)->disk->fua)
#define bdev_is_zoned(bdev)		((void)(bdev), false)
#define bdev_max_discard_sectors(bdev)	((void)(bdev), 0U)

#endif
