/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who waits lets the world go on, step by step. */
#ifndef MODEL_LINUX_WAIT_H
#define MODEL_LINUX_WAIT_H

#include <linux/kernel.h>

typedef struct {
	int unused;
} wait_queue_head_t;

#define DECLARE_WAIT_QUEUE_HEAD(name)	wait_queue_head_t name
#define init_waitqueue_head(wq)		((void)(wq))
#define wake_up(wq)			((void)(wq))
#define wake_up_all(wq)			((void)(wq))
#define wq_has_sleeper(wq)		((void)(wq), true)
#define waitqueue_active(wq)		((void)(wq), true)

#define wait_event(wq, condition) \
	do { \
		(void)(wq); \
		model_might_sleep(); \
		while (!(condition)) \
			model_step(); \
	} while (0)

#endif
