/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_UUID_H
#define MODEL_LINUX_UUID_H

#include <linux/types.h>

#define UUID_STRING_LEN		36

#endif
