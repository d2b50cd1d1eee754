/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_DEVICE_MAPPER_H
#define MODEL_LINUX_DEVICE_MAPPER_H

#include <linux/atomic.h>
#include <linux/blkdev.h>
#include <linux/list.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>

struct dm_dev;
struct dm_table;
struct dm_target;
struct mapped_device;
struct module;

typedef enum { STATUSTYPE_INFO, STATUSTYPE_TABLE, STATUSTYPE_IMA } status_type_t;

typedef int (*iterate_devices_callout_fn)(struct dm_target *ti, struct dm_dev *dev,
					  sector_t start, sector_t len, void *data);

struct target_type {
	u64 features;
	const char *name;
	struct module *module;
	unsigned int version[3];
	int (*ctr)(struct dm_target *ti, unsigned int argc, char **argv);
	void (*dtr)(struct dm_target *ti);
	int (*map)(struct dm_target *ti, struct bio *bio);
	int (*end_io)(struct dm_target *ti, struct bio *bio, blk_status_t *error);
	void (*presuspend)(struct dm_target *ti);
	void (*presuspend_undo)(struct dm_target *ti);
	void (*postsuspend)(struct dm_target *ti);
	int (*preresume)(struct dm_target *ti);
	void (*resume)(struct dm_target *ti);
	void (*status)(struct dm_target *ti, status_type_t type, unsigned int flags, char *result,
		       unsigned int maxlen);
	int (*message)(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		       unsigned int maxlen);
	int (*iterate_devices)(struct dm_target *ti, iterate_devices_callout_fn fn, void *data);
	void (*io_hints)(struct dm_target *ti, struct queue_limits *limits);
	struct list_head list;
};

struct dm_target {
	struct dm_table *table;
	struct target_type *type;
	sector_t begin;
	sector_t len;
	unsigned int num_flush_bios;
	unsigned int num_discard_bios;
	unsigned int num_secure_erase_bios;
	unsigned int num_write_zeroes_bios;
	unsigned int per_io_data_size;
	void *private;
	char *error;
	bool flush_supported;
	bool discards_supported;
	bool limit_swap_bios;
};

struct dm_dev {
	struct block_device *bdev;
	fmode_t mode;
	char name[16];
};

struct dm_arg_set {
	unsigned int argc;
	char **argv;
};

struct dm_arg {
	unsigned int min, max;
	char *error;
};

#define DM_TARGET_NOWAIT	0x80

#define DM_ENDIO_DONE		0
#define DM_ENDIO_INCOMPLETE	1
#define DM_ENDIO_REQUEUE	2
#define DM_MAPIO_SUBMITTED	0
#define DM_MAPIO_REMAPPED	1
#define DM_MAPIO_REQUEUE	2
#define DM_MAPIO_KILL		4

#define DM_NAME			"device-mapper"
#define DM_FMT(fmt)		DM_NAME ": " DM_MSG_PREFIX ": " fmt
#define DMERR(fmt, ...)		model_printk(DM_FMT(fmt), ##__VA_ARGS__)
#define DMWARN			DMERR
#define DMINFO			DMERR
#define DMERR_LIMIT		DMERR
#define DMWARN_LIMIT		DMERR
#define DMINFO_LIMIT		DMERR

#define DMEMIT(...) \
	({ sz += sz >= maxlen ? 0U : (unsigned int)scnprintf(result + sz, maxlen - sz, __VA_ARGS__); })
#define DMEMIT_TARGET_NAME_VERSION(type) \
	DMEMIT("target_name=%s,target_version=%u.%u.%u", (type)->name, (type)->version[0], \
	       (type)->version[1], (type)->version[2])

int dm_register_target(struct target_type *type);
void dm_unregister_target(struct target_type *type);
int dm_get_device(struct dm_target *ti, const char *path, fmode_t mode, struct dm_dev **result);
void dm_put_device(struct dm_target *ti, struct dm_dev *dev);
const char *dm_shift_arg(struct dm_arg_set *as);
void dm_consume_args(struct dm_arg_set *as, unsigned int n);
int dm_read_arg(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *value,
		char **error);
int dm_read_arg_group(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *n,
		      char **error);
fmode_t dm_table_get_mode(struct dm_table *t);
struct mapped_device *dm_table_get_md(struct dm_table *t);
struct gendisk *dm_disk(struct mapped_device *md);
const char *dm_table_device_name(struct dm_table *t);
void dm_table_event(struct dm_table *t);
bool dm_noflush_suspending(struct dm_target *ti);
bool dm_suspended(struct dm_target *ti);
bool dm_post_suspending(struct dm_target *ti);
void *dm_per_bio_data(struct bio *bio, size_t size);
unsigned int dm_bio_get_target_bio_nr(const struct bio *bio);
void dm_accept_partial_bio(struct bio *bio, unsigned int sectors);
#define dm_target_offset(ti, sector)	((sector) - (ti)->begin)

#endif
