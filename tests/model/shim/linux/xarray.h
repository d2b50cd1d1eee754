/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_XARRAY_H
#define MODEL_LINUX_XARRAY_H

#include <linux/kernel.h>
#include <linux/slab.h>

struct model_xa_entry {
	unsigned long index;
	void *entry;		/* NULL: reserved */
	unsigned int marks;
};

struct xarray {
	struct model_xa_entry *entries;	/* sorted by index */
	size_t nr, capacity;
};

typedef unsigned int xa_mark_t;

#define XA_MARK_0		0U
#define XA_MARK_1		1U
#define XA_MARK_2		2U
#define XA_PRESENT		8U

void xa_init(struct xarray *xa);
void xa_destroy(struct xarray *xa);
void *xa_load(struct xarray *xa, unsigned long index);
void *xa_store(struct xarray *xa, unsigned long index, void *entry, gfp_t gfp);
void *xa_erase(struct xarray *xa, unsigned long index);
int xa_reserve(struct xarray *xa, unsigned long index, gfp_t gfp);
void xa_release(struct xarray *xa, unsigned long index);
void xa_set_mark(struct xarray *xa, unsigned long index, xa_mark_t mark);
void xa_clear_mark(struct xarray *xa, unsigned long index, xa_mark_t mark);
bool xa_get_mark(struct xarray *xa, unsigned long index, xa_mark_t mark);
bool xa_marked(const struct xarray *xa, xa_mark_t mark);
/* The first entry with @mark at or after *@index. */
void *xa_find(struct xarray *xa, unsigned long *index, unsigned long max, xa_mark_t mark);
void *xa_find_after(struct xarray *xa, unsigned long *index, unsigned long max, xa_mark_t mark);

static inline bool xa_is_err(const void *entry)
{
	return IS_ERR(entry);
}

static inline int xa_err(const void *entry)
{
	return IS_ERR(entry) ? (int)PTR_ERR(entry) : 0;
}

#define xa_for_each_marked(xa, index, entry, mark) \
	for ((index) = 0, (entry) = xa_find(xa, &(index), ULONG_MAX, mark); (entry); \
	     (entry) = xa_find_after(xa, &(index), ULONG_MAX, mark))
#define xa_for_each(xa, index, entry) xa_for_each_marked(xa, index, entry, XA_PRESENT)
#define xa_for_each_start(xa, index, entry, start) \
	for ((index) = (start), (entry) = xa_find(xa, &(index), ULONG_MAX, XA_PRESENT); (entry); \
	     (entry) = xa_find_after(xa, &(index), ULONG_MAX, XA_PRESENT))

#endif
