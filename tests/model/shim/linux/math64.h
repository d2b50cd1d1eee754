/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_MATH64_H
#define MODEL_LINUX_MATH64_H

#include <linux/kernel.h>

#endif
