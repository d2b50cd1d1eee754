/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_SLAB_H
#define MODEL_LINUX_SLAB_H

#include <linux/kernel.h>

#define GFP_KERNEL		0x01U
#define GFP_NOIO		0x02U
#define GFP_NOWAIT		0x04U
#define GFP_ATOMIC		0x08U
#define GFP_NOFS		0x10U
#define __GFP_ZERO		0x20U
#define __GFP_NOWARN		0x40U
#define __GFP_NORETRY		0x80U
#define __GFP_NOFAIL		0x100U
#define __GFP_NOMEMALLOC	0x200U
#define __GFP_HIGH		0x400U

/* Aligned to its size if that is a power of two, as the kernel's. */
void *model_alloc(size_t n, size_t size, gfp_t gfp);
void model_free(const void *p);

#define kmalloc(size, gfp)		model_alloc(1, size, gfp)
#define kzalloc(size, gfp)		model_alloc(1, size, (gfp) | __GFP_ZERO)
#define kmalloc_array(n, size, gfp)	model_alloc(n, size, gfp)
#define kcalloc(n, size, gfp)		model_alloc(n, size, (gfp) | __GFP_ZERO)
#define kvmalloc(size, gfp)		model_alloc(1, size, gfp)
#define kvzalloc(size, gfp)		model_alloc(1, size, (gfp) | __GFP_ZERO)
#define kvmalloc_array(n, size, gfp)	model_alloc(n, size, gfp)
#define kvcalloc(n, size, gfp)		model_alloc(n, size, (gfp) | __GFP_ZERO)
#define kfree(p)			model_free(p)
#define kvfree(p)			model_free(p)

char *kasprintf(gfp_t gfp, const char *fmt, ...) __printf(2, 3);

#endif
