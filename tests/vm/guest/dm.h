// SPDX-License-Identifier: GPL-2.0-or-later
/* Device-mapper, spoken to directly: a dmsetup for each step takes longer than the step. */
#ifndef GUEST_DM_H
#define GUEST_DM_H

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

static int dm_control = -1;

static union {
    struct dm_ioctl head;
    char bytes[16384];
} dm_request;

/* All of these set errno where they return false. */
static inline bool dm_open(void) {
    dm_control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    return dm_control >= 0;
}

static inline struct dm_ioctl* dm_prepare(const char* name) {
    memset(&dm_request, 0, sizeof(dm_request));
    dm_request.head.version[0] = DM_VERSION_MAJOR;
    dm_request.head.data_size = sizeof(dm_request);
    dm_request.head.data_start = sizeof(dm_request.head);
    snprintf(dm_request.head.name, sizeof(dm_request.head.name), "%s", name);
    return &dm_request.head;
}

static inline bool dm_remove(const char* name) {
    dm_prepare(name);
    return !ioctl(dm_control, DM_DEV_REMOVE, &dm_request);
}

/* A device of one target of @size sectors; @path gets that of its node. Where it is false, none is
 * left. */
static inline bool dm_create(const char* name, uint64_t size, const char* type, const char* params,
                             char* path, size_t path_size) {
    struct dm_target_spec* target =
        (struct dm_target_spec*)(dm_request.bytes + sizeof(dm_request.head));
    int error;

    dm_prepare(name);
    if (ioctl(dm_control, DM_DEV_CREATE, &dm_request))
        return false;
    snprintf(path, path_size, "/dev/dm-%u", minor((dev_t)dm_request.head.dev));

    dm_prepare(name)->target_count = 1;
    target->length = size;
    snprintf(target->target_type, sizeof(target->target_type), "%s", type);
    snprintf((char*)(target + 1), sizeof(dm_request) - sizeof(dm_request.head) - sizeof(*target),
             "%s", params);
    if (!ioctl(dm_control, DM_TABLE_LOAD, &dm_request)) {
        dm_prepare(name);
        if (!ioctl(dm_control, DM_DEV_SUSPEND, &dm_request)) /* without the flag: resume */
            return true;
    }
    error = errno;
    dm_remove(name);
    errno = error;
    return false;
}

#endif
