/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_SORT_H
#define MODEL_LINUX_SORT_H

#include <stdlib.h>

#include <linux/kernel.h>

#define sort(base, n, size, compare, swap)	qsort(base, n, size, compare)

#endif
