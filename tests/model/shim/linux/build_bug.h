/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_BUILD_BUG_H
#define MODEL_LINUX_BUILD_BUG_H

#define static_assert		_Static_assert
#define BUILD_BUG_ON(condition)	_Static_assert(!(condition), #condition)

#endif
