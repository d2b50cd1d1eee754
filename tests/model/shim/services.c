// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the kernel offers to the target, as far as it is not block I/O: memory,
 * text, locks, xarrays, work items.  One thread; whoever waits lets the
 * harness go on (model_step).
 */
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include <linux/crc32.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#undef snprintf

unsigned long volatile jiffies = 1000;
uint64_t model_seconds = 1700000000;

/* ---- Context ---- */

static unsigned int atomic_depth, rcu_depth;

void model_might_sleep(void)
{
	model_assert(!atomic_depth && !rcu_depth);
}

void spin_lock_init(spinlock_t *lock)
{
	lock->held = false;
}

void spin_lock(spinlock_t *lock)
{
	model_assert(!lock->held);
	lock->held = true;
	atomic_depth++;
}

void spin_unlock(spinlock_t *lock)
{
	model_assert(lock->held);
	lock->held = false;
	atomic_depth--;
}

void mutex_init(struct mutex *mutex)
{
	mutex->held = false;
}

void mutex_lock(struct mutex *mutex)
{
	model_might_sleep();
	while (mutex->held)
		model_step();
	mutex->held = true;
}

void mutex_unlock(struct mutex *mutex)
{
	model_assert(mutex->held);
	mutex->held = false;
}

void rcu_read_lock(void)
{
	rcu_depth++;
}

void rcu_read_unlock(void)
{
	model_assert(rcu_depth);
	rcu_depth--;
}

void synchronize_rcu(void)
{
	model_might_sleep();
}

/* ---- Memory ---- */

static long allocated;

void *model_alloc(size_t n, size_t size, gfp_t gfp)
{
	size_t bytes, align = sizeof(void *);
	void *p;

	if (!(gfp & (GFP_NOWAIT | GFP_ATOMIC)))
		model_might_sleep();
	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	if (!(gfp & __GFP_NOFAIL) && model_allocation_fails())
		return NULL;
	if (bytes >= PAGE_SIZE)
		align = PAGE_SIZE;
	else if (bytes > align && !(bytes & (bytes - 1)))
		align = bytes;
	if (posix_memalign(&p, align, bytes ? bytes : 1))
		abort();
	if (gfp & __GFP_ZERO)
		memset(p, 0, bytes);
	allocated++;
	return p;
}

void model_free(const void *p)
{
	if (!p)
		return;
	allocated--;
	free((void *)p);
}

/* ---- Text ---- */

static int format_uuid(char *to, const u8 *uuid)
{
	return sprintf(to, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		       uuid[0], uuid[1], uuid[2], uuid[3], uuid[4], uuid[5], uuid[6], uuid[7],
		       uuid[8], uuid[9], uuid[10], uuid[11], uuid[12], uuid[13], uuid[14],
		       uuid[15]);
}

/* One conversion, spec being its text; integers are taken by their length. */
static int format_one(char *to, size_t size, const char *spec, va_list *args)
{
	size_t n = strlen(spec);
	bool wide = n > 2 && (spec[n - 2] == 'l' || spec[n - 2] == 'z');

	switch (spec[n - 1]) {
	case 's':
		return snprintf(to, size, spec, va_arg(*args, const char *));
	case 'p':
		return snprintf(to, size, spec, va_arg(*args, void *));
	case 'c':
	case 'd':
	case 'i':
	case 'u':
	case 'x':
	case 'X':
		/* long and long long are of one size here */
		if (wide)
			return snprintf(to, size, spec, va_arg(*args, long long));
		return snprintf(to, size, spec, va_arg(*args, int));
	default:
		model_bug(__FILE__, __LINE__, spec);
	}
}

int vscnprintf(char *buf, size_t size, const char *fmt, va_list outer)
{
	char spec[16], piece[512];
	size_t out = 0, n;
	va_list args;

	if (!size)
		return 0;
	va_copy(args, outer);
	while (*fmt) {
		if (*fmt != '%') {
			piece[0] = *fmt++;
			piece[1] = '\0';
		} else if (fmt[1] == '%') {
			strcpy(piece, "%");
			fmt += 2;
		} else if (!strncmp(fmt, "%pUb", 4)) {
			format_uuid(piece, va_arg(args, const u8 *));
			fmt += 4;
		} else {
			n = strcspn(fmt + 1, "csdiuxXp") + 2;
			model_assert(n < sizeof(spec));
			memcpy(spec, fmt, n);
			spec[n] = '\0';
			fmt += n;
			format_one(piece, sizeof(piece), spec, &args);
		}
		n = min(strlen(piece), size - 1 - out);
		memcpy(buf + out, piece, n);
		out += n;
	}
	va_end(args);
	buf[out] = '\0';
	return (int)out;
}

int scnprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vscnprintf(buf, size, fmt, args);
	va_end(args);
	return n;
}

void model_printk(const char *fmt, ...)
{
	char line[1024];
	va_list args;

	va_start(args, fmt);
	vscnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	model_log(line);
}

char *kasprintf(gfp_t gfp, const char *fmt, ...)
{
	char line[1024], *p;
	va_list args;

	va_start(args, fmt);
	vscnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	p = kmalloc(strlen(line) + 1, gfp);
	if (p)
		strcpy(p, line);
	return p;
}

ssize_t model_strscpy(char *to, const char *from, size_t size)
{
	size_t n = strnlen(from, size);

	if (!size)
		return -E2BIG;
	memcpy(to, from, min(n, size - 1));
	to[min(n, size - 1)] = '\0';
	return n < size ? (ssize_t)n : -E2BIG;
}

int kstrtoull(const char *text, unsigned int base, unsigned long long *value)
{
	char *end;

	if (*text == '+')
		text++;
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, (int)base);
	if (errno)
		return -errno;
	if (*end == '\n')
		end++;
	return *end ? -EINVAL : 0;
}

int kstrtou64(const char *text, unsigned int base, u64 *value)
{
	return kstrtoull(text, base, value);
}

int kstrtouint(const char *text, unsigned int base, unsigned int *value)
{
	unsigned long long wide;
	int ret = kstrtoull(text, base, &wide);

	if (ret)
		return ret;
	if (wide > UINT_MAX)
		return -ERANGE;
	*value = (unsigned int)wide;
	return 0;
}

int kstrtou32(const char *text, unsigned int base, u32 *value)
{
	return kstrtouint(text, base, value);
}

u32 crc32_le(u32 crc, const unsigned char *p, size_t size)
{
	return ~(u32)crc32(~crc, p, (uInt)size);
}

int kobject_uevent_env(struct kobject *kobj, enum kobject_action action, char *env[])
{
	(void)kobj;
	(void)action;
	(void)env;
	model_might_sleep();
	return 0;
}

/* ---- xarray ---- */

void xa_init(struct xarray *xa)
{
	memset(xa, 0, sizeof(*xa));
}

void xa_destroy(struct xarray *xa)
{
	free(xa->entries);
	xa_init(xa);
}

static size_t xa_position(const struct xarray *xa, unsigned long index)
{
	size_t lo = 0, hi = xa->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (xa->entries[mid].index < index)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct model_xa_entry *xa_at(const struct xarray *xa, unsigned long index)
{
	size_t at = xa_position(xa, index);

	return at < xa->nr && xa->entries[at].index == index ? &xa->entries[at] : NULL;
}

static struct model_xa_entry *xa_make(struct xarray *xa, unsigned long index)
{
	size_t at = xa_position(xa, index);

	if (model_allocation_fails())
		return NULL;
	if (xa->nr == xa->capacity) {
		xa->capacity = xa->capacity ? 2 * xa->capacity : 8;
		xa->entries = realloc(xa->entries, xa->capacity * sizeof(*xa->entries));
	}
	memmove(&xa->entries[at + 1], &xa->entries[at], (xa->nr - at) * sizeof(*xa->entries));
	xa->nr++;
	xa->entries[at] = (struct model_xa_entry) { .index = index };
	return &xa->entries[at];
}

static void xa_remove(struct xarray *xa, struct model_xa_entry *e)
{
	size_t at = (size_t)(e - xa->entries);

	xa->nr--;
	memmove(e, e + 1, (xa->nr - at) * sizeof(*e));
	if (!xa->nr)
		xa_destroy(xa);
}

void *xa_load(struct xarray *xa, unsigned long index)
{
	struct model_xa_entry *e = xa_at(xa, index);

	return e ? e->entry : NULL;
}

void *xa_store(struct xarray *xa, unsigned long index, void *entry, gfp_t gfp)
{
	struct model_xa_entry *e = xa_at(xa, index);
	void *old;

	if (!(gfp & (GFP_NOWAIT | GFP_ATOMIC)))
		model_might_sleep();
	if (!entry)
		return xa_erase(xa, index);
	if (!e)
		e = xa_make(xa, index);
	if (!e)
		return ERR_PTR(-ENOMEM);
	old = e->entry;
	e->entry = entry;
	return old;
}

void *xa_erase(struct xarray *xa, unsigned long index)
{
	struct model_xa_entry *e = xa_at(xa, index);
	void *old = e ? e->entry : NULL;

	if (e)
		xa_remove(xa, e);
	return old;
}

int xa_reserve(struct xarray *xa, unsigned long index, gfp_t gfp)
{
	if (!(gfp & (GFP_NOWAIT | GFP_ATOMIC)))
		model_might_sleep();
	return xa_at(xa, index) || xa_make(xa, index) ? 0 : -ENOMEM;
}

void xa_release(struct xarray *xa, unsigned long index)
{
	struct model_xa_entry *e = xa_at(xa, index);

	if (e && !e->entry)
		xa_remove(xa, e);
}

void xa_set_mark(struct xarray *xa, unsigned long index, xa_mark_t mark)
{
	struct model_xa_entry *e = xa_at(xa, index);

	if (e && e->entry)
		e->marks |= 1U << mark;
}

void xa_clear_mark(struct xarray *xa, unsigned long index, xa_mark_t mark)
{
	struct model_xa_entry *e = xa_at(xa, index);

	if (e)
		e->marks &= ~(1U << mark);
}

static bool xa_has(const struct model_xa_entry *e, xa_mark_t mark)
{
	return e->entry && (mark == XA_PRESENT || e->marks >> mark & 1);
}

bool xa_get_mark(struct xarray *xa, unsigned long index, xa_mark_t mark)
{
	struct model_xa_entry *e = xa_at(xa, index);

	return e && xa_has(e, mark);
}

bool xa_marked(const struct xarray *xa, xa_mark_t mark)
{
	size_t i;

	for (i = 0; i < xa->nr; i++)
		if (xa_has(&xa->entries[i], mark))
			return true;
	return false;
}

void *xa_find(struct xarray *xa, unsigned long *index, unsigned long last, xa_mark_t mark)
{
	size_t i;

	for (i = xa_position(xa, *index); i < xa->nr && xa->entries[i].index <= last; i++)
		if (xa_has(&xa->entries[i], mark)) {
			*index = xa->entries[i].index;
			return xa->entries[i].entry;
		}
	return NULL;
}

void *xa_find_after(struct xarray *xa, unsigned long *index, unsigned long last, xa_mark_t mark)
{
	if (*index == ULONG_MAX)
		return NULL;
	++*index;
	return xa_find(xa, index, last, mark);
}

/* ---- Work items ---- */

struct workqueue_struct {
	struct list_head list;		/* in queues */
	struct list_head items;
	struct work_struct *running;
};

static struct list_head queues;

/* The kernel's own, for schedule_work(). */
static struct workqueue_struct system_queue = {
	.list = LIST_HEAD_INIT(queues),
	.items = LIST_HEAD_INIT(system_queue.items),
};

static struct list_head queues = LIST_HEAD_INIT(system_queue.list);

struct workqueue_struct *alloc_ordered_workqueue(const char *name, unsigned int flags)
{
	struct workqueue_struct *wq = kzalloc(sizeof(*wq), GFP_KERNEL);

	(void)name;
	(void)flags;
	if (!wq)
		return NULL;
	INIT_LIST_HEAD(&wq->items);
	list_add_tail(&wq->list, &queues);
	return wq;
}

bool queue_work(struct workqueue_struct *wq, struct work_struct *work)
{
	if (work->pending)
		return false;
	work->pending = true;
	list_add_tail(&work->entry, &wq->items);
	return true;
}

bool schedule_work(struct work_struct *work)
{
	return queue_work(&system_queue, work);
}

static void run_first(struct workqueue_struct *wq)
{
	struct work_struct *work = list_first_entry(&wq->items, struct work_struct, entry);

	list_del(&work->entry);
	work->pending = false;
	/* An item may free itself while it runs: nothing of it is touched afterwards. */
	wq->running = work;
	work->func(work);
	wq->running = NULL;
}

static struct workqueue_struct *ready_queue(void)
{
	struct workqueue_struct *wq;

	list_for_each_entry(wq, &queues, list)
		if (!wq->running && !list_empty(&wq->items))
			return wq;
	return NULL;
}

bool model_work_pending(void)
{
	return ready_queue();
}

void model_run_work(void)
{
	struct workqueue_struct *wq = ready_queue();

	model_assert(wq);
	run_first(wq);
}

void flush_workqueue(struct workqueue_struct *wq)
{
	model_might_sleep();
	while (!list_empty(&wq->items) || wq->running) {
		if (wq->running)
			model_step();
		else
			run_first(wq);
	}
}

bool flush_work(struct work_struct *work)
{
	struct workqueue_struct *wq;
	bool was = false;

	model_might_sleep();
	list_for_each_entry(wq, &queues, list)
		while (wq->running == work || work->pending) {
			was = true;
			model_step();
		}
	return was;
}

bool cancel_work_sync(struct work_struct *work)
{
	bool was = work->pending;

	if (was) {
		list_del(&work->entry);
		work->pending = false;
	}
	flush_work(work);
	return was;
}

void destroy_workqueue(struct workqueue_struct *wq)
{
	flush_workqueue(wq);
	list_del(&wq->list);
	kfree(wq);
}

bool model_clean(void)
{
	return !allocated && queues.next == queues.prev && list_empty(&system_queue.items) &&
	        !atomic_depth && !rcu_depth;
}
