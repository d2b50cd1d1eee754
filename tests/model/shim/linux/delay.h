/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_DELAY_H
#define MODEL_LINUX_DELAY_H

#include <linux/jiffies.h>

static inline void msleep(unsigned int ms)
{
	model_might_sleep();
	jiffies += msecs_to_jiffies(ms) + 1;
	model_step();
}

#endif
