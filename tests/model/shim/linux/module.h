/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_MODULE_H
#define MODEL_LINUX_MODULE_H

#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>

struct module;

#define THIS_MODULE		((struct module *)NULL)
#define MODULE_DESCRIPTION(x)	_Static_assert(1, "")
#define MODULE_AUTHOR(x)	_Static_assert(1, "")
#define MODULE_LICENSE(x)	_Static_assert(1, "")
#define MODULE_ALIAS(x)		_Static_assert(1, "")
#define MODULE_VERSION(x)	_Static_assert(1, "")

/* The one module of the model. */
int model_module_init(void);
void model_module_exit(void);
#define module_init(f)		int model_module_init(void) { return f(); }
#define module_exit(f)		void model_module_exit(void) { f(); }

#endif
