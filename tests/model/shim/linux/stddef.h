/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_STDDEF_H
#define MODEL_LINUX_STDDEF_H

#include_next <linux/stddef.h>

#include <stddef.h>

#endif
