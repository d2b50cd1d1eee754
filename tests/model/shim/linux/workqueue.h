/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_WORKQUEUE_H
#define MODEL_LINUX_WORKQUEUE_H

#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/list.h>

struct work_struct;
typedef void (*work_func_t)(struct work_struct *work);

struct work_struct {
	struct list_head entry;
	work_func_t func;
	bool pending;
	struct workqueue_struct *running_on;
};

struct workqueue_struct;

#define WQ_MEM_RECLAIM		1U
#define WQ_UNBOUND		2U
#define WQ_HIGHPRI		4U

#define INIT_WORK(work, f) \
	do { *(work) = (struct work_struct) { .func = (f) }; } while (0)
#define INIT_WORK_ONSTACK	INIT_WORK
#define destroy_work_on_stack(work)	((void)(work))

struct workqueue_struct *alloc_ordered_workqueue(const char *name, unsigned int flags);
void destroy_workqueue(struct workqueue_struct *wq);
bool schedule_work(struct work_struct *work);
bool queue_work(struct workqueue_struct *wq, struct work_struct *work);
void flush_workqueue(struct workqueue_struct *wq);
bool flush_work(struct work_struct *work);
bool cancel_work_sync(struct work_struct *work);
#define drain_workqueue		flush_workqueue

#endif
