/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_HIGHMEM_H
#define MODEL_LINUX_HIGHMEM_H

#include <linux/mm.h>

#define invalidate_kernel_vmap_range(p, size)	((void)(p), (void)(size))
#define flush_kernel_vmap_range(p, size)	((void)(p), (void)(size))
#define kmap_local_page(page)			page_address(page)
#define kunmap_local(p)				((void)(p))

#endif
