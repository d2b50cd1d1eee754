/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_COMPLETION_H
#define MODEL_LINUX_COMPLETION_H

#include <linux/kernel.h>

struct completion {
	unsigned int done;
};

#define COMPLETION_INITIALIZER_ONSTACK(name)	{ 0 }
#define DECLARE_COMPLETION_ONSTACK(name)	struct completion name = { 0 }

static inline void init_completion(struct completion *x)
{
	x->done = 0;
}

static inline void reinit_completion(struct completion *x)
{
	x->done = 0;
}

static inline void complete(struct completion *x)
{
	x->done++;
}

static inline bool completion_done(struct completion *x)
{
	return x->done;
}

static inline void wait_for_completion(struct completion *x)
{
	model_might_sleep();
	while (!x->done)
		model_step();
	x->done--;
}

#define wait_for_completion_io	wait_for_completion

#endif
