// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Opens many small sets that lie side by side on one disk, one after the other, with the kernel's
 * target, and records what each of them shows.
 *
 *     crashload DISK RESULTS <PLAN
 *
 * A line of the plan is one set, in sectors:
 *
 *     MAIN_START MAIN_SIZE SPARE_START SPARE_SIZE WRITE,...
 *
 * Each is opened, read, written at the sectors WRITE with the pattern of seed FIRST_SEED + its
 * number, flushed, read, checked by message, closed, opened and read again. RESULTS gets three
 * numbers of 32 bits for each sector, all sectors of the first reading first: the seed that it
 * carries (see pattern.h), or one of those below. A line of output tells of what failed, or
 *
 *     set NUMBER check ANSWER
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dm.h"
#include "pattern.h"

#define CHUNK 128u /* sectors read at a time */
#define MAX_WRITES 16
#define FIRST_SEED 2000000u
#define UNREADABLE 0xffffffffu
#define UNKNOWN 0xfffffffeu

struct set {
    uint64_t main_start, main_size, spare_start, spare_size;
    uint64_t writes[MAX_WRITES];
    unsigned int write_count;
};

static unsigned int number; /* of the set at hand */
static uint8_t* buffer;     /* CHUNK sectors, aligned */

static void __attribute__((noreturn)) quit(const char* what) {
    fprintf(stderr, "crashload: set %u: %s: %s\n", number, what, strerror(errno));
    exit(2);
}

/* Returns false if the kernel refuses it; then there is none. */
static bool create(const char* name, uint64_t size, const char* type, const char* params,
                   char* path, size_t path_size) {
    if (dm_create(name, size, type, params, path, path_size))
        return true;
    printf("set %u refused: %s %s: %s\n", number, type, params, strerror(errno));
    return false;
}

static void destroy(const char* name) {
    if (!dm_remove(name))
        quit("DM_DEV_REMOVE");
}

static void check_by_message(void) {
    struct dm_target_msg* message;
    struct dm_ioctl* head = dm_prepare("set");

    message = (void*)(dm_request.bytes + head->data_start);
    strcpy(message->message, "check");
    if (ioctl(dm_control, DM_TARGET_MSG, &dm_request))
        printf("set %u check failed: %s\n", number, strerror(errno));
    else
        printf("set %u check %s\n", number,
               head->flags & DM_DATA_OUT_FLAG ? dm_request.bytes + head->data_start : "");
}

static uint32_t identify(const uint64_t* words, uint64_t sector) {
    uint64_t expected[SECTOR / 8] = {0};

    if (words[1])
        fill_sector(expected, words[1], sector);
    return memcmp(words, expected, SECTOR) ? UNKNOWN : (uint32_t)words[1];
}

static void read_part(int fd, uint64_t start, uint64_t count, uint32_t* values) {
    if (pread(fd, buffer, count * SECTOR, (off_t)(start * SECTOR)) == (ssize_t)(count * SECTOR)) {
        for (uint64_t i = 0; i < count; i++)
            values[i] = identify((uint64_t*)(buffer + i * SECTOR), start + i);
    } else if (count == 1) {
        *values = UNREADABLE;
    } else {
        read_part(fd, start, count / 2, values);
        read_part(fd, start + count / 2, count - count / 2, values + count / 2);
    }
}

static void read_all(int fd, uint64_t size, uint32_t* values) {
    for (uint64_t at = 0; at < size; at += CHUNK)
        read_part(fd, at, size - at < CHUNK ? size - at : CHUNK, values + at);
}

static void write_some(int fd, const struct set* set) {
    for (unsigned int i = 0; i < set->write_count; i++) {
        uint64_t sector = set->writes[i];

        fill_sector((uint64_t*)buffer, FIRST_SEED + number, sector);
        if (pwrite(fd, buffer, SECTOR, (off_t)(sector * SECTOR)) != SECTOR)
            printf("set %u write %" PRIu64 " failed: %s\n", number, sector, strerror(errno));
    }
    if (fsync(fd))
        printf("set %u flush failed: %s\n", number, strerror(errno));
}

static int open_device(const char* path) {
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

    if (fd < 0)
        quit(path);
    return fd;
}

/* Opens the set, reads it, and with @write, writes and reads it again. */
static bool visit(const struct set* set, const char* members, bool write, uint32_t* values) {
    char path[64];
    int fd;

    if (!create("set", set->main_size, "remap", members, path, sizeof(path)))
        return false;
    fd = open_device(path);
    read_all(fd, set->main_size, values);
    if (write) {
        write_some(fd, set);
        read_all(fd, set->main_size, values + set->main_size);
        check_by_message();
    }
    close(fd);
    destroy("set");
    return true;
}

static void one_set(const char* disk, int results, const struct set* set) {
    char main_path[64], spare_path[64], params[256];
    size_t size = 3 * set->main_size * sizeof(uint32_t);
    uint32_t* values = malloc(size);

    if (!values)
        quit("malloc");
    memset(values, 0xff, size);
    snprintf(params, sizeof(params), "%s %" PRIu64, disk, set->main_start);
    if (!create("main", set->main_size, "linear", params, main_path, sizeof(main_path)))
        exit(2);
    snprintf(params, sizeof(params), "%s %" PRIu64, disk, set->spare_start);
    if (!create("spare", set->spare_size, "linear", params, spare_path, sizeof(spare_path)))
        exit(2);
    snprintf(params, sizeof(params), "%s %s 0", main_path, spare_path);
    if (visit(set, params, true, values))
        visit(set, params, false, values + 2 * set->main_size);
    destroy("main");
    destroy("spare");
    if (write(results, values, size) != (ssize_t)size)
        quit("results");
    free(values);
}

static bool parse(const char* line, struct set* set) {
    int used;

    set->write_count = 0;
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %n", &set->main_start,
               &set->main_size, &set->spare_start, &set->spare_size, &used) != 4)
        return false;
    for (line += used; set->write_count < MAX_WRITES; line += used + 1) {
        if (sscanf(line, "%" SCNu64 "%n", &set->writes[set->write_count], &used) != 1)
            break;
        set->write_count++;
        if (line[used] != ',')
            break;
    }
    return true;
}

int main(int argc, char** argv) {
    char* line = NULL;
    size_t line_size = 0;
    struct set set;
    int results;

    if (argc != 3) {
        fputs("usage: crashload DISK RESULTS <PLAN\n", stderr);
        return 2;
    }
    if (!dm_open())
        quit("/dev/mapper/control");
    results = open(argv[2], O_WRONLY | O_CLOEXEC);
    if (results < 0)
        quit(argv[2]);
    if (posix_memalign((void**)&buffer, 4096, CHUNK * SECTOR))
        quit("posix_memalign");
    for (; getline(&line, &line_size, stdin) >= 0; number++) {
        if (!parse(line, &set)) {
            fprintf(stderr, "crashload: not a set: %s", line);
            return 2;
        }
        one_set(argv[1], results, &set);
    }
    free(line);
    if (fsync(results) || close(results))
        quit(argv[2]);
    printf("done sets=%u\n", number);
    return fflush(stdout) ? 2 : 0;
}
