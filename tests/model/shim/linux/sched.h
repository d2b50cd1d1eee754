/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_SCHED_H
#define MODEL_LINUX_SCHED_H

#include <linux/jiffies.h>
#include <linux/kernel.h>

struct task_struct;

#define current			((struct task_struct *)NULL)

/* Time passes, and the world goes on. */
static inline long schedule_timeout_uninterruptible(long timeout)
{
	model_might_sleep();
	jiffies += timeout;
	model_step();
	return 0;
}

#endif
