/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_VMALLOC_H
#define MODEL_LINUX_VMALLOC_H

#include <linux/mm.h>

#define vmalloc(size)		model_alloc(1, size, GFP_KERNEL)
#define vzalloc(size)		model_alloc(1, size, GFP_KERNEL | __GFP_ZERO)
#define vfree(p)		model_free(p)
#define vmalloc_to_page(p)	virt_to_page(p)

#endif
