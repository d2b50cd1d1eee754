/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_MUTEX_H
#define MODEL_LINUX_MUTEX_H

#include <linux/kernel.h>

struct mutex {
	bool held;
};

#define DEFINE_MUTEX(name)	struct mutex name

void mutex_init(struct mutex *mutex);
void mutex_lock(struct mutex *mutex);
void mutex_unlock(struct mutex *mutex);
#define mutex_destroy(mutex)	model_assert(!(mutex)->held)

#endif
