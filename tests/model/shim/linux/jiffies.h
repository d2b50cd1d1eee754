/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_JIFFIES_H
#define MODEL_LINUX_JIFFIES_H

#include <linux/kernel.h>

#define HZ			250
#define MSEC_PER_SEC		1000L

#define time_after(a, b)	((long)((b) - (a)) < 0)
#define get_jiffies_64()	((u64)jiffies)
#define time_after64(a, b)	((s64)((b) - (a)) < 0)
#define time_before64(a, b)	time_after64(b, a)
#define time_before(a, b)	time_after(b, a)
#define time_after_eq(a, b)	((long)((a) - (b)) >= 0)
#define time_before_eq(a, b)	time_after_eq(b, a)
#define time_is_before_jiffies(a) time_after(jiffies, a)
#define time_is_after_jiffies(a) time_before(jiffies, a)
#define msecs_to_jiffies(ms)	((unsigned long)(ms) * HZ / 1000)
#define jiffies_to_msecs(j)	((unsigned int)((j) * 1000 / HZ))

#endif
