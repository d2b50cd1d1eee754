// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What something costs, in ticks of the time-stamp counter. Under QEMU's -icount shift=0 one tick
 * is one instruction, exactly.
 *
 *   iocost read BYTES DEVICE... <OFFSETS
 *                                       O_DIRECT reads, in turn from each device; offsets are
 * 64-bit, native endian, one for each device, and so on iocost write DEVICE BYTES FIRST COUNT
 * [buffered] COUNT writes one behind the other from byte FIRST iocost run COMMAND [ARGUMENT...] a
 * whole command, its start and end included
 *
 * read prints "reads=N clean=N median=T mean=T max=T errors=N". A read hit by a timer's interrupt
 * takes thousands of ticks more and is not clean; median, mean and max are those of the clean ones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define WARM_UP 200
#define MAX_DEVICES 8
/* Nothing that is measured differs so much from one I/O to the next; an interrupt takes more. */
#define INTERRUPT 1500

static void __attribute__((noreturn, format(printf, 1, 2))) quit(const char* format, ...) {
    va_list args;

    va_start(args, format);
    fputs("iocost: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static int open_device(const char* path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);

    if (fd < 0)
        quit("%s: %s", path, strerror(errno));
    return fd;
}

static void* buffer(size_t bytes) {
    void* data = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (data == MAP_FAILED)
        quit("no memory");
    return data;
}

static size_t number(const char* text) {
    char* end;
    unsigned long long value = strtoull(text, &end, 10);

    if (!*text || *end)
        quit("not a number: %s", text);
    return value;
}

static uint64_t* read_offsets(size_t* count) {
    size_t room = 1 << 16;
    uint64_t* offsets = malloc(room * sizeof(*offsets));

    for (*count = 0; offsets && fread(&offsets[*count], sizeof(*offsets), 1, stdin) == 1;)
        if (++*count == room)
            offsets = realloc(offsets, (room *= 2) * sizeof(*offsets));
    if (!offsets)
        quit("no memory");
    if (*count / MAX_DEVICES <= WARM_UP)
        quit("more than %d offsets are needed", WARM_UP * MAX_DEVICES);
    return offsets;
}

static int compare(const void* a, const void* b) {
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void report(uint64_t* ticks, size_t count, size_t errors) {
    uint64_t sum = 0, median;
    size_t clean;

    qsort(ticks, count, sizeof(*ticks), compare);
    median = ticks[count / 2];
    for (clean = 0; clean < count && ticks[clean] < median + INTERRUPT; clean++)
        sum += ticks[clean];
    printf("requests=%zu clean=%zu median=%" PRIu64 " mean=%.2f max=%" PRIu64 " errors=%zu\n",
           count, clean, median, (double)sum / (double)clean, ticks[clean - 1], errors);
}

static int do_requests(bool write, size_t bytes, char** devices, size_t nr) {
    size_t count, i, d, errors[MAX_DEVICES] = {0}, all_errors = 0;
    uint64_t *offsets = read_offsets(&count), *ticks[MAX_DEVICES];
    char* data = buffer(bytes);
    int fd[MAX_DEVICES];

    count /= nr;
    for (d = 0; d < nr; d++) {
        ticks[d] = buffer(count * sizeof(**ticks));
        fd[d] = open_device(devices[d], (write ? O_WRONLY : O_RDONLY) | O_DIRECT);
    }
    for (i = 0; i < count; i++) {
        size_t first = (size_t)random() % nr;

        for (size_t n = 0; n < nr; n++) {
            uint64_t before, after;
            off_t offset;
            ssize_t done;

            d = (first + n) % nr;
            offset = (off_t)offsets[i * nr + d];
            before = __rdtsc();
            done = write ? pwrite(fd[d], data, bytes, offset) : pread(fd[d], data, bytes, offset);
            after = __rdtsc();
            errors[d] += done != (ssize_t)bytes;
            ticks[d][i] = after - before;
        }
    }
    for (d = 0; d < nr; d++) {
        report(ticks[d] + WARM_UP, count - WARM_UP, errors[d]);
        all_errors += errors[d];
    }
    return all_errors != 0;
}

static int do_fill(char** argv, bool buffered) {
    size_t bytes = number(argv[1]), first = number(argv[2]), count = number(argv[3]), errors = 0;
    int fd = open_device(argv[0], O_WRONLY | (buffered ? 0 : O_DIRECT));
    char* data = buffer(bytes);
    uint64_t before = __rdtsc();

    memset(data, 0x5a, bytes);
    for (size_t i = 0; i < count; i++)
        errors += pwrite(fd, data, bytes, (off_t)(first + i * bytes)) != (ssize_t)bytes;
    /* Not fsync, whose flush a disk that fails writes may fail as well. */
    if (buffered && ioctl(fd, BLKFLSBUF))
        errors++;
    printf("writes=%zu ticks=%" PRIu64 " errors=%zu\n", count, (uint64_t)__rdtsc() - before,
           errors);
    return errors != 0;
}

static int do_run(char** argv) {
    uint64_t before = __rdtsc();
    pid_t child = fork();
    int status;

    if (child < 0)
        quit("fork: %s", strerror(errno));
    if (!child) {
        execvp(argv[0], argv);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child)
        quit("waitpid: %s", strerror(errno));
    printf("ticks=%" PRIu64 " status=%d\n", (uint64_t)__rdtsc() - before, status);
    return status != 0;
}

int main(int argc, char** argv) {
    const char* what = argc > 1 ? argv[1] : "";
    bool write = !strcmp(what, "write");

    if ((write || !strcmp(what, "read")) && argc >= 4 && argc - 3 <= MAX_DEVICES)
        return do_requests(write, number(argv[2]), argv + 3, (size_t)argc - 3);
    if (!strcmp(what, "fill") && (argc == 6 || (argc == 7 && !strcmp(argv[6], "buffered"))))
        return do_fill(argv + 2, argc == 7);
    if (!strcmp(what, "run") && argc >= 3)
        return do_run(argv + 2);
    quit("see the head of its source");
}
