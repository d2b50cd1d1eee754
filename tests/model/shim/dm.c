// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * device-mapper's core as a target sees it: constructor and destructor,
 * suspend and resume, bios cloned, trimmed and completed.
 */
#include <stdlib.h>

#include <linux/device-mapper.h>
#include <linux/module.h>
#include <linux/wait.h>

#define MAX_TYPES	4

struct mapped_device {
	struct gendisk disk;
};

struct dm_table {
	struct mapped_device *md;
	fmode_t mode;
};

struct model_target {
	struct mapped_device md;
	struct dm_table table;
	struct dm_target ti;
	struct block_device main, spare;
	unsigned int in_flight;
	unsigned int held_devices;
	bool suspended, noflush;
	struct model_request **deferred;	/* while suspended */
	size_t nr_deferred;
};

/* A bio from above: what is left of it, and who gets the result. */
struct original {
	struct model_target *target;
	struct model_request *request;
	unsigned int pending;
	blk_status_t status;
	struct bio_vec *vecs;
	unsigned short nr_vecs;
	struct bvec_iter left;
	bool flush;			/* still to do, before the data */
};

struct clone {
	struct original *original;
	unsigned int number;
	unsigned int *accepted;		/* sectors, while map() runs */
	void *data;
	struct bio bio;
};

static struct target_type *types[MAX_TYPES];
static unsigned int events;
bool model_drops_flush_errors;

unsigned int model_events(void)
{
	return events;
}

int dm_register_target(struct target_type *type)
{
	unsigned int i;

	for (i = 0; i < MAX_TYPES; i++)
		if (!types[i]) {
			types[i] = type;
			return 0;
		}
	return -ENOMEM;
}

void dm_unregister_target(struct target_type *type)
{
	unsigned int i;

	for (i = 0; i < MAX_TYPES; i++)
		if (types[i] == type)
			types[i] = NULL;
}

/* ---- What a constructor uses ---- */

int dm_get_device(struct dm_target *ti, const char *path, fmode_t mode, struct dm_dev **result)
{
	struct model_target *t = container_of(ti, struct model_target, ti);
	struct dm_dev *dev = kzalloc(sizeof(*dev), GFP_KERNEL);

	if (!dev)
		return -ENOMEM;
	if (!strcmp(path, "main")) {
		dev->bdev = &t->main;
	} else if (!strcmp(path, "spare")) {
		dev->bdev = &t->spare;
	} else {
		kfree(dev);
		return -ENODEV;
	}
	dev->mode = mode;
	strscpy(dev->name, path, sizeof(dev->name));
	t->held_devices++;
	*result = dev;
	return 0;
}

void dm_put_device(struct dm_target *ti, struct dm_dev *dev)
{
	container_of(ti, struct model_target, ti)->held_devices--;
	kfree(dev);
}

const char *dm_shift_arg(struct dm_arg_set *as)
{
	if (!as->argc)
		return NULL;
	as->argc--;
	return *as->argv++;
}

void dm_consume_args(struct dm_arg_set *as, unsigned int n)
{
	model_assert(as->argc >= n);
	as->argc -= n;
	as->argv += n;
}

int dm_read_arg(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *value,
		char **error)
{
	const char *text = dm_shift_arg(as);

	if (!text || kstrtouint(text, 10, value) || *value < arg->min || *value > arg->max) {
		*error = arg->error;
		return -EINVAL;
	}
	return 0;
}

int dm_read_arg_group(const struct dm_arg *arg, struct dm_arg_set *as, unsigned int *n,
		      char **error)
{
	int ret = dm_read_arg(arg, as, n, error);

	if (!ret && *n > as->argc) {
		*error = arg->error;
		ret = -EINVAL;
	}
	return ret;
}

fmode_t dm_table_get_mode(struct dm_table *t)
{
	return t->mode;
}

struct mapped_device *dm_table_get_md(struct dm_table *t)
{
	return t->md;
}

struct gendisk *dm_disk(struct mapped_device *md)
{
	return &md->disk;
}

const char *dm_table_device_name(struct dm_table *t)
{
	(void)t;
	return "254:0";
}

void dm_table_event(struct dm_table *t)
{
	(void)t;
	model_might_sleep();
	events++;
}

bool dm_noflush_suspending(struct dm_target *ti)
{
	return container_of(ti, struct model_target, ti)->noflush;
}

bool dm_suspended(struct dm_target *ti)
{
	return container_of(ti, struct model_target, ti)->suspended;
}

bool dm_post_suspending(struct dm_target *ti)
{
	return dm_suspended(ti);
}

/* ---- Bios ---- */

static struct clone *clone_of(const struct bio *bio)
{
	return container_of(bio, struct clone, bio);
}

void *dm_per_bio_data(struct bio *bio, size_t size)
{
	model_assert(size == clone_of(bio)->original->target->ti.per_io_data_size);
	return clone_of(bio)->data;
}

unsigned int dm_bio_get_target_bio_nr(const struct bio *bio)
{
	return clone_of(bio)->number;
}

void dm_accept_partial_bio(struct bio *bio, unsigned int sectors)
{
	struct clone *c = clone_of(bio);

	model_assert(c->accepted && sectors && sectors <= bio_sectors(bio));
	model_assert(!(bio->bi_opf & REQ_PREFLUSH));
	*c->accepted = sectors;
	bio->bi_iter.bi_size = sectors << SECTOR_SHIFT;
}

static void original_go_on(struct original *o);

static void defer(struct model_target *t, struct model_request *request)
{
	t->deferred = realloc(t->deferred, (t->nr_deferred + 1) * sizeof(*t->deferred));
	t->deferred[t->nr_deferred++] = request;
}

static enum model_status to_model(blk_status_t status)
{
	switch (status) {
	case BLK_STS_OK:
		return MODEL_OK;
	case BLK_STS_MEDIUM:
		return MODEL_MEDIUM;
	case BLK_STS_TARGET:
		return MODEL_TARGET;
	case BLK_STS_TIMEOUT:
		return MODEL_TIMEOUT;
	case BLK_STS_TRANSPORT:
		return MODEL_TRANSPORT;
	case BLK_STS_NOSPC:
		return MODEL_NOSPC;
	case BLK_STS_NOTSUPP:
		return MODEL_NOTSUPP;
	case BLK_STS_DM_REQUEUE:
		return MODEL_REQUEUE;
	default:
		return MODEL_IOERR;
	}
}

static void original_put(struct original *o)
{
	struct model_target *t = o->target;
	struct model_request *request = o->request;
	enum model_status status;

	if (--o->pending)
		return;
	if (o->flush && o->left.bi_size && model_drops_flush_errors)
		o->status = BLK_STS_OK;
	if (o->flush && !o->status) {
		/* The flush in front of a bio's data is over. */
		o->flush = false;
		if (o->left.bi_size) {
			original_go_on(o);
			return;
		}
	}
	status = to_model(o->status);
	free(o->vecs);
	free(o);
	t->in_flight--;
	if (status == MODEL_REQUEUE) {
		model_assert(t->noflush);
		defer(t, request);
		return;
	}
	request->status = status;
	request->done(request);
}

static void clone_free(struct clone *c, blk_status_t status)
{
	struct original *o = c->original;

	if (status && o->status != BLK_STS_DM_REQUEUE)
		o->status = status;
	free(c->data);
	free(c);
	original_put(o);
}

static void clone_endio(struct bio *bio)
{
	struct clone *c = clone_of(bio);
	struct dm_target *ti = &c->original->target->ti;
	blk_status_t status = bio->bi_status;

	switch (ti->type->end_io ? ti->type->end_io(ti, bio, &status) : DM_ENDIO_DONE) {
	case DM_ENDIO_DONE:
		clone_free(c, status);
		break;
	case DM_ENDIO_INCOMPLETE:
		break;
	case DM_ENDIO_REQUEUE:
		clone_free(c, BLK_STS_DM_REQUEUE);
		break;
	default:
		model_bug(__FILE__, __LINE__, "unknown result of end_io");
	}
}

/* Returns how many sectors the target took. */
static unsigned int map_clone(struct original *o, blk_opf_t opf, unsigned int number,
			      const struct bvec_iter *iter)
{
	struct dm_target *ti = &o->target->ti;
	unsigned int accepted = iter->bi_size >> SECTOR_SHIFT;
	struct clone *c = calloc(1, sizeof(*c));

	c->original = o;
	c->number = number;
	c->data = malloc(ti->per_io_data_size);
	bio_init(&c->bio, NULL, o->vecs, 0, opf);
	c->bio.bi_iter = *iter;
	c->bio.bi_end_io = clone_endio;
	c->accepted = &accepted;
	o->pending++;

	switch (ti->type->map(ti, &c->bio)) {
	case DM_MAPIO_SUBMITTED:
		/* It may be gone already. */
		return accepted;
	case DM_MAPIO_REMAPPED:
		c->accepted = NULL;
		submit_bio(&c->bio);
		return accepted;
	case DM_MAPIO_KILL:
		clone_free(c, BLK_STS_IOERR);
		return accepted;
	case DM_MAPIO_REQUEUE:
		clone_free(c, BLK_STS_DM_REQUEUE);
		return accepted;
	default:
		model_bug(__FILE__, __LINE__, "unknown result of map");
	}
}

static void original_flush(struct original *o)
{
	struct bvec_iter none = { };
	unsigned int i;

	for (i = 0; i < o->target->ti.num_flush_bios; i++)
		map_clone(o, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC, i, &none);
}

static void original_data(struct original *o)
{
	static const enum req_op ops[] = {
		[MODEL_READ] = REQ_OP_READ,
		[MODEL_WRITE] = REQ_OP_WRITE,
		[MODEL_DISCARD] = REQ_OP_DISCARD,
	};
	blk_opf_t opf = ops[o->request->op] | (o->request->fua ? REQ_FUA : 0);

	while (o->left.bi_size) {
		unsigned int sectors = map_clone(o, opf, 0, &o->left);

		if (o->request->op == MODEL_DISCARD) {
			o->left.bi_sector += sectors;
			o->left.bi_size -= sectors << SECTOR_SHIFT;
		} else {
			struct bio rest = { .bi_io_vec = o->vecs, .bi_iter = o->left };

			bio_advance(&rest, sectors << SECTOR_SHIFT);
			o->left = rest.bi_iter;
		}
	}
}

static void original_go_on(struct original *o)
{
	o->pending++;
	if (o->flush)
		original_flush(o);
	else
		original_data(o);
	original_put(o);
}

static void set_vecs(struct original *o)
{
	u8 *data = o->request->data;
	unsigned int at, n;

	model_assert(!offset_in_page(data));
	o->vecs = calloc(DIV_ROUND_UP(o->request->bytes, PAGE_SIZE) + 1, sizeof(*o->vecs));
	for (at = 0; at < o->request->bytes; at += n) {
		n = min_t(unsigned int, PAGE_SIZE, o->request->bytes - at);
		o->vecs[o->nr_vecs++] = (struct bio_vec) {
			.bv_page = virt_to_page(data + at), .bv_len = n,
		};
	}
}

void model_send(struct model_target *t, struct model_request *request)
{
	struct original *o;

	if (t->suspended) {
		defer(t, request);
		return;
	}
	t->in_flight++;
	o = calloc(1, sizeof(*o));
	o->target = t;
	o->request = request;
	o->flush = request->op == MODEL_FLUSH || request->preflush;
	if (request->op != MODEL_FLUSH) {
		o->left.bi_sector = request->sector;
		o->left.bi_size = request->bytes;
		if (request->op != MODEL_DISCARD)
			set_vecs(o);
	}
	original_go_on(o);
}

unsigned int model_in_flight(const struct model_target *t)
{
	return t->in_flight;
}

/* ---- Life of a device ---- */

struct model_target *model_create(const struct model_table *table, const char **error)
{
	struct model_target *t = calloc(1, sizeof(*t));
	char *argv[ARRAY_SIZE(table->argv)];
	unsigned int i;
	int ret;

	if (!types[0])
		model_assert(!model_module_init());
	t->table.md = &t->md;
	t->table.mode = BLK_OPEN_READ | (table->read_only ? 0 : BLK_OPEN_WRITE);
	t->main = (struct block_device) { .disk = table->main, .bd_dev = 1 };
	t->spare = (struct block_device) { .disk = table->spare, .bd_dev = 2 };
	t->ti.table = &t->table;
	t->ti.type = types[0];
	t->ti.len = table->length;
	t->suspended = true;

	for (i = 0; i < table->argc; i++)
		argv[i] = strdup(table->argv[i]);
	ret = t->ti.type->ctr(&t->ti, table->argc, argv);
	for (i = 0; i < table->argc; i++)
		free(argv[i]);
	if (!ret)
		return t;
	*error = t->ti.error ? t->ti.error : "no reason given";
	model_assert(!t->held_devices);
	free(t);
	return NULL;
}

int model_resume(struct model_target *t)
{
	struct model_request **deferred = t->deferred;
	size_t i, nr = t->nr_deferred;
	int ret = 0;

	if (t->ti.type->preresume)
		ret = t->ti.type->preresume(&t->ti);
	if (ret)
		return ret;
	if (t->ti.type->resume)
		t->ti.type->resume(&t->ti);
	t->suspended = false;
	t->deferred = NULL;
	t->nr_deferred = 0;
	for (i = 0; i < nr; i++)
		model_send(t, deferred[i]);
	free(deferred);
	return 0;
}

void model_suspend(struct model_target *t, bool noflush)
{
	DECLARE_WAIT_QUEUE_HEAD(wait);

	t->noflush = noflush;
	if (t->ti.type->presuspend)
		t->ti.type->presuspend(&t->ti);
	t->suspended = true;
	wait_event(&wait, !t->in_flight);
	t->noflush = false;
	if (t->ti.type->postsuspend)
		t->ti.type->postsuspend(&t->ti);
}

void model_destroy(struct model_target *t)
{
	model_assert(t->suspended && !t->in_flight && !t->nr_deferred);
	t->ti.type->dtr(&t->ti);
	model_assert(!t->held_devices);
	free(t->deferred);
	free(t);
}

void model_get_status(struct model_target *t, bool table, char *result, unsigned int size)
{
	result[0] = '\0';
	t->ti.type->status(&t->ti, table ? STATUSTYPE_TABLE : STATUSTYPE_INFO, 0, result, size);
}

int model_message(struct model_target *t, unsigned int argc, char **argv, char *result,
		  unsigned int size)
{
	result[0] = '\0';
	return t->ti.type->message ? t->ti.type->message(&t->ti, argc, argv, result, size) :
				     -EINVAL;
}
