/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_BIO_H
#define MODEL_LINUX_BIO_H

#include <linux/blk_types.h>
#include <linux/highmem.h>

#define BIO_MAX_VECS		256U
#define BIO_POOL_SIZE		2

struct bio_set {
	unsigned int size;
	unsigned int in_use;
};

#define BIOSET_NEED_BVECS	1
#define BIOSET_NEED_RESCUER	2

int bioset_init(struct bio_set *bs, unsigned int size, unsigned int front_pad, int flags);
void bioset_exit(struct bio_set *bs);

void bio_init(struct bio *bio, struct block_device *bdev, struct bio_vec *table,
	      unsigned short max_vecs, blk_opf_t opf);
void bio_uninit(struct bio *bio);
struct bio *bio_alloc(struct block_device *bdev, unsigned short nr_vecs, blk_opf_t opf, gfp_t gfp);
struct bio *bio_alloc_bioset(struct block_device *bdev, unsigned short nr_vecs, blk_opf_t opf,
			     gfp_t gfp, struct bio_set *bs);
struct bio *bio_alloc_clone(struct block_device *bdev, struct bio *bio, gfp_t gfp,
			    struct bio_set *bs);
void bio_put(struct bio *bio);
void __bio_add_page(struct bio *bio, struct page *page, unsigned int len, unsigned int offset);
int bio_add_page(struct bio *bio, struct page *page, unsigned int len, unsigned int offset);
void bio_advance(struct bio *bio, unsigned int bytes);
void bio_endio(struct bio *bio);
void bio_io_error(struct bio *bio);
void submit_bio(struct bio *bio);
void submit_bio_noacct(struct bio *bio);
int submit_bio_wait(struct bio *bio);

#define bio_op(bio)		((enum req_op)((bio)->bi_opf & REQ_OP_MASK))
#define bio_sectors(bio)	((bio)->bi_iter.bi_size >> SECTOR_SHIFT)
#define bio_data_dir(bio)	(op_is_write(bio_op(bio)) ? 1 : 0)
#define bio_end_sector(bio)	((bio)->bi_iter.bi_sector + bio_sectors(bio))
#define op_is_write(op)		(((op) & 1) != 0)
#define op_is_flush(opf)	(((opf) & (REQ_FUA | REQ_PREFLUSH)) != 0)

static inline void bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio->bi_bdev = bdev;
}

struct bio_list {
	struct bio *head, *tail;
};

#define BIO_EMPTY_LIST		{ NULL, NULL }

static inline bool bio_list_empty(const struct bio_list *list)
{
	return !list->head;
}

static inline void bio_list_init(struct bio_list *list)
{
	list->head = NULL;
	list->tail = NULL;
}

static inline void bio_list_add(struct bio_list *list, struct bio *bio)
{
	bio->bi_next = NULL;
	if (list->tail)
		list->tail->bi_next = bio;
	else
		list->head = bio;
	list->tail = bio;
}

static inline void bio_list_merge(struct bio_list *list, struct bio_list *more)
{
	if (!more->head)
		return;
	if (list->tail)
		list->tail->bi_next = more->head;
	else
		list->head = more->head;
	list->tail = more->tail;
}

static inline void bio_list_merge_head(struct bio_list *list, struct bio_list *first)
{
	if (!first->head)
		return;
	if (list->head)
		first->tail->bi_next = list->head;
	else
		list->tail = first->tail;
	list->head = first->head;
}

static inline void bio_list_merge_init(struct bio_list *list, struct bio_list *more)
{
	bio_list_merge(list, more);
	bio_list_init(more);
}

static inline struct bio *bio_list_pop(struct bio_list *list)
{
	struct bio *bio = list->head;

	if (bio) {
		list->head = bio->bi_next;
		if (!list->head)
			list->tail = NULL;
		bio->bi_next = NULL;
	}
	return bio;
}

#define bio_list_peek(list)	((list)->head)
#define bio_list_for_each(bio, list) \
	for (bio = (list)->head; bio; bio = bio->bi_next)

#endif
