/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nothing runs between lock and unlock of a reader, as readers do not sleep:
 * so every grace period is over at once.
 */
#ifndef MODEL_LINUX_RCUPDATE_H
#define MODEL_LINUX_RCUPDATE_H

#include <linux/kernel.h>
#include <linux/slab.h>

#define __rcu

void rcu_read_lock(void);
void rcu_read_unlock(void);
void synchronize_rcu(void);
#define synchronize_rcu_expedited	synchronize_rcu
#define rcu_barrier			synchronize_rcu
#define kfree_rcu(p, member)		kfree(p)
#define kvfree_rcu(p, member)		kvfree(p)
#define rcu_dereference(p)		READ_ONCE(p)
#define rcu_dereference_protected(p, c)	READ_ONCE(p)
#define RCU_INIT_POINTER(p, v)	WRITE_ONCE(p, v)
#define rcu_dereference_check(p, c)	READ_ONCE(p)
#define rcu_access_pointer(p)	READ_ONCE(p)
#define rcu_assign_pointer(p, v)	smp_store_release(&(p), v)

#endif
