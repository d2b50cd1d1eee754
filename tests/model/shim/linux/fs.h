/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_FS_H
#define MODEL_LINUX_FS_H

#include <linux/types.h>

#endif
