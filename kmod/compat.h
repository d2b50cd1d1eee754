/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that dm-remap builds on (6.1 and newer).
 * Features are probed, never version numbers.
 */
#ifndef DM_REMAP_COMPAT_H
#define DM_REMAP_COMPAT_H

#include <linux/blkdev.h>
#include <linux/fs.h>

/* blk_mode_t took the place of fmode_t in 6.5. */
#ifndef BLK_OPEN_WRITE
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

#endif /* DM_REMAP_COMPAT_H */
