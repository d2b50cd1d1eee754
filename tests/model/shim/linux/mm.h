/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A page is known by its address. */
#ifndef MODEL_LINUX_MM_H
#define MODEL_LINUX_MM_H

#include <linux/kernel.h>
#include <linux/slab.h>

#define PAGE_SHIFT		12
#define PAGE_SIZE		(1UL << PAGE_SHIFT)
#define PAGE_MASK		(~(PAGE_SIZE - 1))

struct page;

#define virt_to_page(p)		((struct page *)((unsigned long)(p) & PAGE_MASK))
#define page_address(page)	((void *)(page))
#define offset_in_page(p)	((unsigned int)((unsigned long)(p) & ~PAGE_MASK))

#define __get_free_page(gfp)	((unsigned long)model_alloc(1, PAGE_SIZE, gfp))
#define free_page(p)		model_free((void *)(p))
#define alloc_page(gfp)		((struct page *)model_alloc(1, PAGE_SIZE, gfp))
#define __free_page(page)	model_free(page)

#endif
