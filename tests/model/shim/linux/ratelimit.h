/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nothing is held back: the model wants to see all of it. */
#ifndef MODEL_LINUX_RATELIMIT_H
#define MODEL_LINUX_RATELIMIT_H

#include <linux/jiffies.h>

struct ratelimit_state {
	int unused;
};

#define RATELIMIT_MSG_ON_RELEASE	1
#define DEFINE_RATELIMIT_STATE(name, interval, burst) struct ratelimit_state name

static inline void ratelimit_state_init(struct ratelimit_state *rs, int interval, int burst)
{
	(void)rs;
	(void)interval;
	(void)burst;
}

static inline void ratelimit_set_flags(struct ratelimit_state *rs, unsigned long flags)
{
	(void)rs;
	(void)flags;
}

static inline int __ratelimit(struct ratelimit_state *rs)
{
	(void)rs;
	return 1;
}

#endif
