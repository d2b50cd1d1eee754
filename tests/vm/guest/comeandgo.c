// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Creates and removes one device again and again, and writes to it in between:
 *
 *     comeandgo NAME TABLE <LISTS
 *
 * TABLE is a file with a line as dmsetup's: "0 SIZE TYPE PARAMETERS". Each line of the input is one
 * life of the device: sectors, separated by commas, written by THREADS threads with the pattern of
 * seed 1. Ends with "done lives=N", or at the first thing that fails.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "dm.h"
#include "pattern.h"

#define THREADS 4
#define MAX_SECTORS 64

static const char* name;
static unsigned int life;
static uint64_t sectors[MAX_SECTORS];
static unsigned int sector_count;
static int fd;

static void __attribute__((noreturn)) quit(const char* what) {
    fprintf(stderr, "comeandgo: life %u of %s: %s: %s\n", life, name, what, strerror(errno));
    exit(1);
}

static void* write_some(void* first) {
    uint8_t* buffer;

    if (posix_memalign((void**)&buffer, 4096, SECTOR))
        quit("posix_memalign");
    for (unsigned int i = (unsigned int)(uintptr_t)first; i < sector_count; i += THREADS) {
        fill_sector((uint64_t*)buffer, 1, sectors[i]);
        if (pwrite(fd, buffer, SECTOR, (off_t)(sectors[i] * SECTOR)) != SECTOR)
            quit("write");
    }
    free(buffer);
    return NULL;
}

static void one_life(uint64_t size, const char* type, const char* parameters) {
    pthread_t threads[THREADS];
    char path[64];

    if (!dm_create(name, size, type, parameters, path, sizeof(path)))
        quit("create");
    fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        quit(path);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, write_some, (void*)i))
            quit("pthread_create");
    for (unsigned int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    if (close(fd))
        quit("close");
    if (!dm_remove(name))
        quit("remove");
}

static void parse(char* line) {
    char* end;

    for (sector_count = 0; sector_count < MAX_SECTORS; line = end + 1) {
        sectors[sector_count++] = strtoull(line, &end, 10);
        if (*end != ',')
            break;
    }
}

int main(int argc, char** argv) {
    char type[DM_MAX_TYPE_NAME], parameters[256];
    char* line = NULL;
    size_t line_size = 0;
    uint64_t size;
    FILE* table;

    if (argc != 3) {
        fputs("usage: comeandgo NAME TABLE <LISTS\n", stderr);
        return 2;
    }
    name = argv[1];
    table = fopen(argv[2], "re");
    if (!table || fscanf(table, "0 %" SCNu64 " %15s %255[^\n]", &size, type, parameters) != 3)
        quit(argv[2]);
    fclose(table);
    if (!dm_open())
        quit("/dev/mapper/control");
    for (; getline(&line, &line_size, stdin) >= 0; life++) {
        parse(line);
        one_life(size, type, parameters);
    }
    free(line);
    printf("done lives=%u\n", life);
    return fflush(stdout) ? 1 : 0;
}
