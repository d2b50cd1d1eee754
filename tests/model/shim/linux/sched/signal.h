/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_SCHED_SIGNAL_H
#define MODEL_LINUX_SCHED_SIGNAL_H

#include <linux/sched.h>

#define fatal_signal_pending(task)	((void)(task), false)

#endif
