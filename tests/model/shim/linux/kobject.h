/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MODEL_LINUX_KOBJECT_H
#define MODEL_LINUX_KOBJECT_H

#include <linux/kernel.h>

enum kobject_action { KOBJ_ADD, KOBJ_REMOVE, KOBJ_CHANGE };

struct kobject {
	int unused;
};

struct device {
	struct kobject kobj;
};

int kobject_uevent_env(struct kobject *kobj, enum kobject_action action, char *env[]);

#endif
