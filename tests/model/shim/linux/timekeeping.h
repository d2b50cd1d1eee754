/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_TIMEKEEPING_H
#define MODEL_LINUX_TIMEKEEPING_H

#include <linux/jiffies.h>
#include <linux/types.h>

static inline s64 ktime_get_real_seconds(void)
{
	return (s64)model_seconds;
}

static inline s64 ktime_get_seconds(void)
{
	return (s64)(jiffies / HZ);
}

#endif
