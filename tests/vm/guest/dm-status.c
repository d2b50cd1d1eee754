// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device-mapper target for tests that fails I/O with any block status: no disk of the test
 * machine can be made to report all of them.
 *
 *	<start> <length> status <device>
 *
 * Messages: "fail <read|write|flush> <status> <first sector> <sectors>", one rule at a time;
 * "clear".  The status is the name of a BLK_STS_* constant: their numbers change between kernels.
 * Sectors count from the target's begin; a flush has none.
 */
#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/module.h>
#include <linux/slab.h>

#define DM_MSG_PREFIX "status"

struct fail {
	struct dm_dev *dev;
	spinlock_t lock;		/* the rule */
	enum { FAIL_NOTHING, FAIL_READ, FAIL_WRITE, FAIL_FLUSH } what;
	blk_status_t status;
	sector_t first, end;
};

static const struct {
	const char *name;
	blk_status_t status;
} statuses[] = {
	{ "NOTSUPP", BLK_STS_NOTSUPP },
	{ "TIMEOUT", BLK_STS_TIMEOUT },
	{ "NOSPC", BLK_STS_NOSPC },
	{ "TRANSPORT", BLK_STS_TRANSPORT },
	{ "TARGET", BLK_STS_TARGET },
#ifdef BLK_STS_NEXUS
	{ "RESV_CONFLICT", BLK_STS_NEXUS },
#else
	{ "RESV_CONFLICT", BLK_STS_RESV_CONFLICT },
#endif
	{ "MEDIUM", BLK_STS_MEDIUM },
	{ "PROTECTION", BLK_STS_PROTECTION },
	{ "RESOURCE", BLK_STS_RESOURCE },
	{ "IOERR", BLK_STS_IOERR },
	{ "AGAIN", BLK_STS_AGAIN },
	{ "DEV_RESOURCE", BLK_STS_DEV_RESOURCE },
	{ "ZONE_OPEN_RESOURCE", BLK_STS_ZONE_OPEN_RESOURCE },
	{ "ZONE_ACTIVE_RESOURCE", BLK_STS_ZONE_ACTIVE_RESOURCE },
	{ "OFFLINE", BLK_STS_OFFLINE },
#ifdef BLK_STS_DURATION_LIMIT
	{ "DURATION_LIMIT", BLK_STS_DURATION_LIMIT },
#endif
#ifdef BLK_STS_INVAL
	{ "INVAL", BLK_STS_INVAL },
#endif
};

static bool status_by_name(const char *name, blk_status_t *status)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(statuses); i++) {
		*status = statuses[i].status;
		if (!strcmp(name, statuses[i].name))
			return true;
	}
	return false;
}

static int status_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct fail *f;
	int ret;

	if (argc != 1) {
		ti->error = "Expected: <device>";
		return -EINVAL;
	}
	f = kzalloc(sizeof(*f), GFP_KERNEL);
	if (!f)
		return -ENOMEM;
	spin_lock_init(&f->lock);
	ret = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &f->dev);
	if (ret) {
		ti->error = "No such device";
		kfree(f);
		return ret;
	}
	ti->num_flush_bios = 1;
	ti->private = f;
	return 0;
}

static void status_dtr(struct dm_target *ti)
{
	struct fail *f = ti->private;

	dm_put_device(ti, f->dev);
	kfree(f);
}

static bool status_applies(const struct fail *f, const struct bio *bio)
{
	if (bio->bi_opf & REQ_PREFLUSH)
		return f->what == FAIL_FLUSH;
	if (f->what != (op_is_write(bio_op(bio)) ? FAIL_WRITE : FAIL_READ))
		return false;
	return bio->bi_iter.bi_sector < f->end && bio_end_sector(bio) > f->first;
}

static int status_map(struct dm_target *ti, struct bio *bio)
{
	struct fail *f = ti->private;
	blk_status_t status = BLK_STS_OK;
	unsigned long irq;

	bio_set_dev(bio, f->dev->bdev);
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);

	spin_lock_irqsave(&f->lock, irq);
	if (status_applies(f, bio))
		status = f->status;
	spin_unlock_irqrestore(&f->lock, irq);
	if (!status)
		return DM_MAPIO_REMAPPED;
	bio->bi_status = status;
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

static int status_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
			  unsigned int maxlen)
{
	static const char * const kinds[] = { "clear", "read", "write", "flush" };
	struct fail *f = ti->private;
	unsigned long long first = 0, count = 0;
	blk_status_t status = BLK_STS_OK;
	int what;

	if (argc == 1)
		what = match_string(kinds, 1, argv[0]);
	else if (argc == 5 && !strcmp(argv[0], "fail"))
		what = match_string(kinds, ARRAY_SIZE(kinds), argv[1]);
	else
		return -EINVAL;
	if (what < 0)
		return -EINVAL;
	if (argc == 5 && (!status_by_name(argv[2], &status) ||
			  kstrtoull(argv[3], 0, &first) || kstrtoull(argv[4], 0, &count)))
		return -EINVAL;

	spin_lock_irq(&f->lock);
	f->what = what;
	f->status = status;
	f->first = first;
	f->end = first + count;
	spin_unlock_irq(&f->lock);
	return 0;
}

static int status_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct fail *f = ti->private;

	return fn(ti, f->dev, 0, ti->len, data);
}

static struct target_type status_target = {
	.name = "status",
	.version = {1, 0, 0},
	.module = THIS_MODULE,
	.ctr = status_ctr,
	.dtr = status_dtr,
	.map = status_map,
	.message = status_message,
	.iterate_devices = status_iterate_devices,
};

static int __init status_init(void)
{
	return dm_register_target(&status_target);
}

static void __exit status_exit(void)
{
	dm_unregister_target(&status_target);
}

module_init(status_init);
module_exit(status_exit);

MODULE_DESCRIPTION("Fails I/O with any block status, for tests");
MODULE_LICENSE("GPL");
