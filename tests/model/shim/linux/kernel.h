/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What kernel code takes for granted, whatever it includes. */
#ifndef MODEL_LINUX_KERNEL_H
#define MODEL_LINUX_KERNEL_H

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>

#include "../model.h"

#define __init
#define __exit
#define __user
#define __percpu
#define __force
#define __always_unused		__attribute__((unused))
#define __maybe_unused		__attribute__((unused))
#define __must_check		__attribute__((warn_unused_result))
#define __printf(a, b)		__attribute__((format(printf, a, b)))
#define fallthrough		__attribute__((fallthrough))
#define noinline		__attribute__((noinline))
#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)
#define barrier()		__asm__ volatile("" ::: "memory")

#define READ_ONCE(x)		(*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v)	(*(volatile typeof(x) *)&(x) = (v))
#define smp_store_release(p, v)	do { barrier(); WRITE_ONCE(*(p), v); } while (0)
#define smp_load_acquire(p)	({ typeof(*(p)) v__ = READ_ONCE(*(p)); barrier(); v__; })
#define smp_mb()		barrier()
#define smp_rmb()		barrier()
#define smp_wmb()		barrier()
#define smp_mb__before_atomic()	barrier()
#define smp_mb__after_atomic()	barrier()

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define struct_size(p, member, n) (sizeof(*(p)) + sizeof((p)->member[0]) * (n))

#define min(a, b)	({ typeof(a) a__ = (a); typeof(b) b__ = (b); a__ < b__ ? a__ : b__; })
#define max(a, b)	({ typeof(a) a__ = (a); typeof(b) b__ = (b); a__ > b__ ? a__ : b__; })
#define min_t(t, a, b)	({ t a__ = (a); t b__ = (b); a__ < b__ ? a__ : b__; })
#define max_t(t, a, b)	({ t a__ = (a); t b__ = (b); a__ > b__ ? a__ : b__; })
#define min3(a, b, c)	min(min(a, b), c)
#define clamp(v, lo, hi) min(max(v, lo), hi)
#define clamp_t(t, v, lo, hi) min_t(t, max_t(t, v, lo), hi)
#define swap(a, b)	do { typeof(a) t__ = (a); (a) = (b); (b) = t__; } while (0)

#define DIV_ROUND_UP(n, d)	(((n) + (d) - 1) / (d))
#define DIV_ROUND_UP_ULL(n, d)	DIV_ROUND_UP((unsigned long long)(n), (d))
#define round_up(x, y)		((((x) - 1) | ((typeof(x))(y) - 1)) + 1)
#define round_down(x, y)	((x) & ~((typeof(x))(y) - 1))
#define upper_32_bits(n)	((u32)((u64)(n) >> 32))
#define lower_32_bits(n)	((u32)(n))

static inline u64 div_u64(u64 dividend, u32 divisor)
{
	return dividend / divisor;
}

static inline u64 div64_u64(u64 dividend, u64 divisor)
{
	return dividend / divisor;
}

static inline u64 mul_u64_u32_div(u64 a, u32 mul, u32 divisor)
{
	return a * mul / divisor;
}

#define BIT(n)			(1UL << (n))
#define BIT_ULL(n)		(1ULL << (n))
#define BITS_PER_LONG		64
#define BITS_TO_LONGS(n)	DIV_ROUND_UP(n, BITS_PER_LONG)
#define ilog2(n)		(63 - __builtin_clzll(n))
#define fls64(n)		({ u64 n__ = (n); n__ ? 64 - __builtin_clzll(n__) : 0; })
#define hweight32(n)		((unsigned int)__builtin_popcount(n))
#define hweight8(n)		((unsigned int)__builtin_popcount((u8)(n)))
#define hweight_long(n)		((unsigned int)__builtin_popcountl(n))

static inline bool test_bit(unsigned long n, const volatile unsigned long *p)
{
	return p[n / BITS_PER_LONG] >> (n % BITS_PER_LONG) & 1;
}

static inline void set_bit(unsigned long n, volatile unsigned long *p)
{
	p[n / BITS_PER_LONG] |= BIT(n % BITS_PER_LONG);
}

static inline void clear_bit(unsigned long n, volatile unsigned long *p)
{
	p[n / BITS_PER_LONG] &= ~BIT(n % BITS_PER_LONG);
}

static inline bool test_and_set_bit(unsigned long n, volatile unsigned long *p)
{
	bool was = test_bit(n, p);

	set_bit(n, p);
	return was;
}

static inline bool test_and_clear_bit(unsigned long n, volatile unsigned long *p)
{
	bool was = test_bit(n, p);

	clear_bit(n, p);
	return was;
}

#define __set_bit		set_bit
#define __clear_bit		clear_bit
#define __test_and_set_bit	test_and_set_bit
#define __test_and_clear_bit	test_and_clear_bit

/* The model runs on little-endian hosts. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian host");
#define cpu_to_le16(x)		((__le16)(x))
#define cpu_to_le32(x)		((__le32)(x))
#define cpu_to_le64(x)		((__le64)(x))
#define le16_to_cpu(x)		((u16)(x))
#define le32_to_cpu(x)		((u32)(x))
#define le64_to_cpu(x)		((u64)(x))

#define model_assert(condition) \
	do { if (!(condition)) model_bug(__FILE__, __LINE__, #condition); } while (0)

#define WARN_ON_ONCE(condition) \
	({ if (condition) model_bug(__FILE__, __LINE__, "WARN_ON_ONCE(" #condition ")"); false; })
#define WARN_ON(condition)	WARN_ON_ONCE(condition)
#define BUG_ON(condition) \
	do { if (condition) model_bug(__FILE__, __LINE__, "BUG_ON(" #condition ")"); } while (0)

#define MAX_ERRNO		4095
#define ERR_PTR(n)		((void *)(long)(n))
#define PTR_ERR(p)		((long)(p))
#define IS_ERR(p)		((unsigned long)(p) >= (unsigned long)-MAX_ERRNO)
#define IS_ERR_OR_NULL(p)	(!(p) || IS_ERR(p))

/* As the kernel's: %pU among the formats. */
int scnprintf(char *buf, size_t size, const char *fmt, ...) __printf(3, 4);
int vscnprintf(char *buf, size_t size, const char *fmt, va_list args);
#define snprintf	scnprintf
void model_printk(const char *fmt, ...) __printf(1, 2);
ssize_t model_strscpy(char *to, const char *from, size_t size);
#define strscpy(to, from, size)	model_strscpy(to, from, size)
int kstrtoull(const char *text, unsigned int base, unsigned long long *value);
int kstrtou64(const char *text, unsigned int base, u64 *value);
int kstrtouint(const char *text, unsigned int base, unsigned int *value);
int kstrtou32(const char *text, unsigned int base, u32 *value);

#define pr_err(...)		model_printk(__VA_ARGS__)
#define pr_warn(...)		model_printk(__VA_ARGS__)
#define pr_info(...)		model_printk(__VA_ARGS__)
#define pr_info_ratelimited(...) model_printk(__VA_ARGS__)

/* What may sleep calls this: an error under a spinlock or in an RCU reader. */
void model_might_sleep(void);
#define might_sleep()		model_might_sleep()

static inline void cond_resched(void)
{
	model_might_sleep();
}

#endif
