/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One processor. */
#ifndef MODEL_LINUX_PERCPU_H
#define MODEL_LINUX_PERCPU_H

#include <linux/kernel.h>
#include <linux/slab.h>

#define alloc_percpu(type)		((type *)model_alloc(1, sizeof(type), GFP_KERNEL | __GFP_ZERO))
#define alloc_percpu_gfp(type, gfp)	((type *)model_alloc(1, sizeof(type), (gfp) | __GFP_ZERO))
#define free_percpu(p)			model_free(p)
#define per_cpu_ptr(p, cpu)		((void)(cpu), (p))
#define this_cpu_ptr(p)			(p)
#define get_cpu_ptr(p)			(p)
#define put_cpu_ptr(p)			((void)(p))
#define this_cpu_inc(x)			((void)(x)++)
#define this_cpu_dec(x)			((void)(x)--)
#define this_cpu_add(x, n)		((void)((x) += (n)))
#define raw_cpu_inc			this_cpu_inc
#define raw_cpu_dec			this_cpu_dec
#define for_each_possible_cpu(cpu)	for ((cpu) = 0; (cpu) < 1; (cpu)++)
#define preempt_disable()		barrier()
#define preempt_enable()		barrier()

#endif
