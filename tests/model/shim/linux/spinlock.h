/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One thread: a lock only proves that nobody sleeps or takes it twice. */
#ifndef MODEL_LINUX_SPINLOCK_H
#define MODEL_LINUX_SPINLOCK_H

#include <linux/kernel.h>

typedef struct {
	bool held;
} spinlock_t;

#define DEFINE_SPINLOCK(name)	spinlock_t name

void spin_lock_init(spinlock_t *lock);
void spin_lock(spinlock_t *lock);
void spin_unlock(spinlock_t *lock);

#define spin_lock_irq		spin_lock
#define spin_unlock_irq		spin_unlock
#define spin_lock_bh		spin_lock
#define spin_unlock_bh		spin_unlock
#define spin_lock_irqsave(lock, flags) do { (flags) = 0; spin_lock(lock); } while (0)
#define spin_unlock_irqrestore(lock, flags) do { (void)(flags); spin_unlock(lock); } while (0)

#define lockdep_assert_held(lock)	model_assert((lock)->held)

#endif
