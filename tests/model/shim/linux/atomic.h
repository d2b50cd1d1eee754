/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_ATOMIC_H
#define MODEL_LINUX_ATOMIC_H

#include <linux/kernel.h>

#define ATOMIC_INIT(n)		{ (n) }
#define ATOMIC64_INIT(n)	{ (n) }

#define atomic_read(a)		READ_ONCE((a)->counter)
#define atomic_read_acquire(a)	smp_load_acquire(&(a)->counter)
#define atomic_set(a, n)	WRITE_ONCE((a)->counter, n)
#define atomic_inc(a)		((void)(a)->counter++)
#define atomic_dec(a)		((void)(a)->counter--)
#define atomic_add(n, a)	((void)((a)->counter += (n)))
#define atomic_sub(n, a)	((void)((a)->counter -= (n)))
#define atomic_inc_return(a)	(++(a)->counter)
#define atomic_dec_return(a)	(--(a)->counter)
#define atomic_dec_return_release(a)	atomic_dec_return(a)
#define atomic_dec_and_test(a)	(!--(a)->counter)
#define atomic_xchg(a, n)	({ int old__ = (a)->counter; (a)->counter = (n); old__; })

#define atomic64_read(a)	READ_ONCE((a)->counter)
#define atomic64_set(a, n)	WRITE_ONCE((a)->counter, n)
#define atomic64_inc(a)		((void)(a)->counter++)
#define atomic64_dec(a)		((void)(a)->counter--)
#define atomic64_add(n, a)	((void)((a)->counter += (s64)(n)))
#define atomic64_sub(n, a)	((void)((a)->counter -= (s64)(n)))
#define atomic64_inc_return(a)	(++(a)->counter)
#define atomic64_xchg(a, n)	({ s64 old__ = (a)->counter; (a)->counter = (n); old__; })

#endif
