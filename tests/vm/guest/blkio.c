// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Exact sector I/O for tests: O_DIRECT, one request per system call, and a report of what happened
 * to each.
 *
 * busybox dd will not do: its oflag=direct silently becomes buffered 4 KiB read-modify-write, which
 * reports errors on good neighbours of a bad sector.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pattern.h"

#define MAX_SEEDS 16

static const char usage[] =
    "usage: blkio OPERATION [OPTION...] DEVICE\n"
    "operations:\n"
    "  write     write the pattern of --seed\n"
    "  verify    read, and compare with the pattern of one of --seed A[,B...] (0: zeroes)\n"
    "  read      read, content to standard output (failed requests as zeroes), report to standard "
    "error\n"
    "  scan      read, and print the seed that each sector carries, \"?\" for none\n"
    "  flush     one cache flush (fsync)\n"
    "  discard, zeroout    the BLKDISCARD, BLKZEROOUT ioctls\n"
    "options, in sectors of 512 bytes:\n"
    "  --at LIST      where: N, N-M (last included) or N+LENGTH, separated by commas; \"-\" reads "
    "them from standard input\n"
    "                 (default: the whole device)\n"
    "  --bs BYTES     size of one request (default 512)\n"
    "  --seed LIST    see above (default 1)\n"
    "  --threads N    requests in flight (default 1)\n"
    "  --fua          write with RWF_DSYNC\n"
    "  --flush        flush at the end; counted as a request of its own\n"
    "  --ack          print \"ok SECTOR COUNT\" as each write is acknowledged\n"
    "  --stop         stop at the first error\n"
    "lines printed:\n"
    "  error SECTOR COUNT ERRNO NAME          this request failed from this sector on\n"
    "  differs SECTOR found SEED SECTOR|?     content is not what was asked for, but that of "
    "another seed or sector\n"
    "  seed SECTOR SEED|?                     (scan)\n"
    "  done requests=N failed=N differs=N\n"
    "exit status: 0 all well, 1 an error or a difference, 2 usage, 3 the device cannot be opened\n";

struct range {
    uint64_t start, count; /* sectors */
};

static struct options {
    const char *operation, *device;
    struct range* ranges;
    size_t range_count;
    uint64_t seeds[MAX_SEEDS];
    unsigned int seed_count;
    unsigned int request; /* sectors */
    unsigned int threads;
    bool fua, flush, ack, stop;
} opt = {.request = 1, .threads = 1};

static int fd;
static uint64_t request_count;
static uint64_t* range_first; /* number of the first request of each range */
static atomic_uint_fast64_t next_request, done_requests, failed, differs;
static atomic_bool stopped;

static void __attribute__((noreturn, format(printf, 2, 3)))
quit(int status, const char* format, ...) {
    va_list args;

    va_start(args, format);
    fputs("blkio: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(status);
}

/* The report: one write per line, so that a line is out before the next request goes in. */
static void __attribute__((format(printf, 1, 2))) report(const char* format, ...) {
    char line[160];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (write(opt.operation[0] == 'r' ? 2 : 1, line, (size_t)n) != n)
        exit(2);
}

static bool carries(const uint64_t* words, uint64_t seed, uint64_t sector) {
    uint64_t expected[SECTOR / 8];

    fill_sector(expected, seed, sector);
    return !memcmp(words, expected, SECTOR);
}

/* Whose pattern a sector holds, whatever its place; false when it is nobody's. */
static bool identify(const uint64_t* words, uint64_t* seed, uint64_t* sector) {
    *sector = words[0];
    *seed = words[1];
    return carries(words, *seed, *sector);
}

static void report_error(uint64_t sector, uint64_t count, int error) {
    atomic_fetch_add(&failed, 1);
    if (opt.stop)
        atomic_store(&stopped, true);
    report("error %" PRIu64 " %" PRIu64 " %d %s\n", sector, count, error, strerrorname_np(error));
}

static void check_sector(const uint64_t* words, uint64_t sector) {
    uint64_t seed, place;

    for (unsigned int i = 0; i < opt.seed_count; i++)
        if (carries(words, opt.seeds[i], sector))
            return;
    atomic_fetch_add(&differs, 1);
    if (carries(words, 0, sector))
        report("differs %" PRIu64 " found 0 %" PRIu64 "\n", sector, sector);
    else if (identify(words, &seed, &place))
        report("differs %" PRIu64 " found %" PRIu64 " %" PRIu64 "\n", sector, seed, place);
    else
        report("differs %" PRIu64 " found ?\n", sector);
}

static void scan_sector(const uint64_t* words, uint64_t sector) {
    uint64_t seed, place;

    if (carries(words, 0, sector))
        report("seed %" PRIu64 " 0\n", sector);
    else if (identify(words, &seed, &place) && place == sector)
        report("seed %" PRIu64 " %" PRIu64 "\n", sector, seed);
    else
        report("seed %" PRIu64 " ?\n", sector);
}

/*
 * Transfers sectors [start, start + count); returns how many went well before the first error,
 * which is left in *error. A short transfer is continued where it ended, so that the error is met
 * at its exact place.
 */
static uint64_t transfer(bool writing, uint8_t* data, uint64_t start, uint64_t count, int* error) {
    uint64_t done = 0;

    *error = 0;
    while (done < count) {
        struct iovec v = {.iov_base = data + done * SECTOR, .iov_len = (count - done) * SECTOR};
        off_t at = (off_t)((start + done) * SECTOR);
        ssize_t n =
            writing ? pwritev2(fd, &v, 1, at, opt.fua ? RWF_DSYNC : 0) : preadv2(fd, &v, 1, at, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            *error = n < 0 ? errno : ENOSPC;
            break;
        }
        done += (uint64_t)n / SECTOR;
    }
    return done;
}

static void one_write(uint8_t* data, uint64_t start, uint64_t count) {
    uint64_t done;
    int error;

    for (uint64_t i = 0; i < count; i++)
        fill_sector((uint64_t*)(data + i * SECTOR), opt.seeds[0], start + i);
    done = transfer(true, data, start, count, &error);
    if (error)
        report_error(start + done, count - done, error);
    else if (opt.ack)
        report("ok %" PRIu64 " %" PRIu64 "\n", start, count);
}

static void one_read(uint8_t* data, uint64_t start, uint64_t count) {
    uint64_t done;
    int error;

    memset(data, 0, count * SECTOR);
    done = transfer(false, data, start, count, &error);
    if (error)
        report_error(start + done, count - done, error);
    for (uint64_t i = 0; i < done && opt.operation[0] != 'r'; i++) {
        if (opt.operation[0] == 'v')
            check_sector((uint64_t*)(data + i * SECTOR), start + i);
        else
            scan_sector((uint64_t*)(data + i * SECTOR), start + i);
    }
    if (opt.operation[0] == 'r' && fwrite(data, SECTOR, count, stdout) != count)
        quit(2, "standard output: %s", strerror(errno));
}

static void one_ioctl(uint64_t start, uint64_t count) {
    uint64_t range[2] = {start * SECTOR, count * SECTOR};

    if (ioctl(fd, opt.operation[0] == 'd' ? BLKDISCARD : BLKZEROOUT, range))
        report_error(start, count, errno);
}

static void one_request(uint64_t number, uint8_t* data) {
    size_t low = 0, high = opt.range_count;
    uint64_t start, left;

    while (high - low > 1) {
        size_t middle = (low + high) / 2;

        if (range_first[middle] <= number)
            low = middle;
        else
            high = middle;
    }
    start = (number - range_first[low]) * opt.request;
    left = opt.ranges[low].count - start;
    start += opt.ranges[low].start;
    if (left > opt.request)
        left = opt.request;
    if (opt.operation[0] == 'w')
        one_write(data, start, left);
    else if (opt.operation[0] == 'd' || opt.operation[0] == 'z')
        one_ioctl(start, left);
    else
        one_read(data, start, left);
    atomic_fetch_add(&done_requests, 1);
}

static void* worker(void* unused) {
    uint8_t* data = NULL;
    uint64_t number;

    (void)unused;
    if (posix_memalign((void**)&data, 4096, (size_t)opt.request * SECTOR))
        quit(2, "out of memory");
    while (!atomic_load(&stopped) && (number = atomic_fetch_add(&next_request, 1)) < request_count)
        one_request(number, data);
    free(data);
    return NULL;
}

static void run_threads(void) {
    pthread_t* threads = calloc(opt.threads, sizeof(*threads));

    if (!threads)
        quit(2, "out of memory");
    for (unsigned int i = 1; i < opt.threads; i++)
        if (pthread_create(&threads[i], NULL, worker, NULL))
            quit(2, "cannot start a thread");
    worker(NULL);
    for (unsigned int i = 1; i < opt.threads; i++)
        pthread_join(threads[i], NULL);
    free(threads);
}

static uint64_t number(const char** text) {
    char* end;
    uint64_t value;

    errno = 0;
    value = strtoull(*text, &end, 0);
    if (end == *text || errno || **text == '-')
        quit(2, "not a number: %s", *text);
    *text = end;
    return value;
}

static void add_range(uint64_t start, uint64_t count) {
    static size_t room;

    if (opt.range_count == room) {
        room = room ? room * 2 : 64;
        opt.ranges = realloc(opt.ranges, room * sizeof(*opt.ranges));
        if (!opt.ranges)
            quit(2, "out of memory");
    }
    opt.ranges[opt.range_count++] = (struct range){start, count};
}

static void add_ranges(const char* text) {
    while (*text) {
        uint64_t start, count = 1;

        text += strspn(text, ", \t\n");
        if (!*text)
            break;
        start = number(&text);
        if (*text == '+') {
            text++;
            count = number(&text);
        } else if (*text == '-') {
            uint64_t last;

            text++;
            last = number(&text);
            if (last < start)
                quit(2, "range ends before it starts: %" PRIu64 "-%" PRIu64, start, last);
            count = last - start + 1;
        }
        if (*text && !strchr(", \t\n", *text))
            quit(2, "not a list of sectors: %s", text);
        if (count)
            add_range(start, count);
    }
}

static void add_ranges_from_input(void) {
    char* line = NULL;
    size_t size = 0;

    while (getline(&line, &size, stdin) >= 0)
        add_ranges(line);
    free(line);
}

static void parse_options(int argc, char** argv) {
    static const struct option names[] = {
        {"at", required_argument, NULL, 'a'},   {"bs", required_argument, NULL, 'b'},
        {"seed", required_argument, NULL, 's'}, {"threads", required_argument, NULL, 't'},
        {"fua", no_argument, NULL, 'f'},        {"flush", no_argument, NULL, 'F'},
        {"ack", no_argument, NULL, 'k'},        {"stop", no_argument, NULL, 'x'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    static const char* const operations[] = {"write", "verify",  "read",   "scan",
                                             "flush", "discard", "zeroout"};
    bool any_range = false, known = false;
    uint64_t bytes;
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        const char* text = optarg;

        switch (c) {
            case 'a':
                any_range = true;
                if (!strcmp(optarg, "-"))
                    add_ranges_from_input();
                else
                    add_ranges(optarg);
                break;
            case 'b':
                bytes = number(&text);
                if (!bytes || bytes % SECTOR || bytes > (64u << 20))
                    quit(2, "--bs must be a multiple of 512, at most 64 MiB: %s", optarg);
                opt.request = (unsigned int)(bytes / SECTOR);
                break;
            case 's':
                for (;;) {
                    if (opt.seed_count == MAX_SEEDS)
                        quit(2, "at most %d seeds", MAX_SEEDS);
                    opt.seeds[opt.seed_count++] = number(&text);
                    if (*text++ != ',')
                        break;
                }
                break;
            case 't':
                opt.threads = (unsigned int)number(&text);
                if (!opt.threads || opt.threads > 256)
                    quit(2, "--threads must be 1 to 256: %s", optarg);
                break;
            case 'f':
                opt.fua = true;
                break;
            case 'F':
                opt.flush = true;
                break;
            case 'k':
                opt.ack = true;
                break;
            case 'x':
                opt.stop = true;
                break;
            case 'h':
                fputs(usage, stdout);
                exit(0);
            default:
                fputs(usage, stderr);
                exit(2);
        }
    }
    if (argc - optind != 2) {
        fputs(usage, stderr);
        exit(2);
    }
    opt.operation = argv[optind];
    opt.device = argv[optind + 1];
    for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
        known |= !strcmp(opt.operation, operations[i]);
    if (!known)
        quit(2, "unknown operation: %s", opt.operation);
    if (!opt.seed_count)
        opt.seeds[opt.seed_count++] = 1;
    if (opt.operation[0] == 'r' && opt.threads > 1)
        quit(2, "read writes its output in order: one thread only");
    if (!strcmp(opt.operation, "flush"))
        opt.flush = true;
    else if (!any_range)
        add_range(0, UINT64_MAX); /* cut to the device below */
}

static void plan_requests(void) {
    uint64_t size = (uint64_t)lseek(fd, 0, SEEK_END) / SECTOR;

    range_first = calloc(opt.range_count + 1, sizeof(*range_first));
    if (!range_first)
        quit(2, "out of memory");
    for (size_t i = 0; i < opt.range_count; i++) {
        struct range* r = &opt.ranges[i];

        if (r->count == UINT64_MAX)
            r->count = size;
        range_first[i] = request_count;
        request_count += (r->count + opt.request - 1) / opt.request;
    }
}

int main(int argc, char** argv) {
    bool reading;

    parse_options(argc, argv);
    reading = strchr("vrs", opt.operation[0]) != NULL;
    fd = open(opt.device, (reading ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        quit(3, "%s: %s", opt.device, strerror(errno));
    plan_requests();
    run_threads();
    if (opt.flush && !atomic_load(&stopped)) {
        if (fsync(fd))
            report_error(0, 0, errno);
        atomic_fetch_add(&done_requests, 1);
    }
    if (fflush(stdout))
        quit(2, "standard output: %s", strerror(errno));
    report("done requests=%" PRIu64 " failed=%" PRIu64 " differs=%" PRIu64 "\n",
           atomic_load(&done_requests), atomic_load(&failed), atomic_load(&differs));
    return atomic_load(&failed) || atomic_load(&differs);
}
