// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs one system call again and again; in the nth run the kernel's nth memory allocation in it
 * fails (CONFIG_FAULT_INJECTION, fail-nth). Ends with the first run that has no nth allocation.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SECTOR 512u
#define MAX_WORKERS 64
#define MAX_RUNS 10000
#define IOCTL_SIZE 16384u

static const char usage[] =
    "usage: failnth [OPTION...] SYSTEM-CALL\n"
    "system calls:\n"
    "  load NAME SECTORS TYPE PARAMETERS  load a table into the device; it is cleared again\n"
    "  resume NAME                        resume the device, with the table loaded before\n"
    "  message NAME TEXT                  each \"@\" in TEXT is replaced by a number, see --from\n"
    "  write DEVICE SOURCE COUNT          write COUNT sectors with FUA at the number of --from;\n"
    "                                     SOURCE has the data at the same place\n"
    "options:\n"
    "  --workers      let allocations of the kernel's unbound workers fail, and of whoever rescues\n"
    "                 dm-remap's work when none of them is free, not the caller's\n"
    "  --before LINE  a line for the shell before each run\n"
    "  --from N       the number for message and write in the first run (default 0)\n"
    "  --step N       what is added to it for each further one (default: 1, COUNT for write)\n"
    "lines printed:\n"
    "  run N NUMBER failed|spared RESULT  whether an allocation failed; \"ok\" or the error's "
    "name\n"
    "exit status: 0 all allocations had their turn, 1 something else went wrong, 2 usage\n";

struct fail_nth {
    int fd[MAX_WORKERS];
    unsigned int count;
};

static struct {
    bool workers;
    const char* before;
    uint64_t number, step;
    char** argv;
} opt;

static int control = -1, device = -1, source = -1;
static char* ioctl_buffer;

static void fatal(const char* what) {
    fprintf(stderr, "failnth: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_or_die(const char* path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);

    if (fd < 0)
        fatal(path);
    return fd;
}

/* Adds the file of one task; a worker that ended meanwhile does not count. */
static void add_task(struct fail_nth* fail, const char* task) {
    char path[300];
    int fd;

    snprintf(path, sizeof(path), "/proc/%s/fail-nth", task);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ESRCH))
        return;
    if (fd < 0)
        fatal(path);
    if (fail->count == MAX_WORKERS) {
        errno = E2BIG;
        fatal("workers");
    }
    fail->fd[fail->count++] = fd;
}

/* Both may get the target's work: a busy machine hands it to the rescuer of its work queue. */
static bool is_worker_or_rescuer(const char* task) {
    char path[300], name[32] = "";
    FILE* f;

    if (!isdigit((unsigned char)task[0]))
        return false;
    snprintf(path, sizeof(path), "/proc/%s/comm", task);
    f = fopen(path, "re");
    if (!f)
        return false;
    if (!fgets(name, sizeof(name), f))
        name[0] = 0;
    fclose(f);
    return !strncmp(name, "kworker/u", 9) || !strcmp(name, "dm-remap\n");
}

static void find_tasks(struct fail_nth* fail) {
    struct dirent* entry;
    DIR* dir;

    fail->count = 0;
    if (!opt.workers) {
        add_task(fail, "thread-self");
        return;
    }
    dir = opendir("/proc");
    if (!dir)
        fatal("/proc");
    while ((entry = readdir(dir)))
        if (is_worker_or_rescuer(entry->d_name))
            add_task(fail, entry->d_name);
    closedir(dir);
    if (!fail->count) {
        errno = ESRCH;
        fatal("workers");
    }
}

static void arm(const struct fail_nth* fail, unsigned int n) {
    char text[16];
    int length = snprintf(text, sizeof(text), "%u", n);

    for (unsigned int i = 0; i < fail->count; i++)
        if (pwrite(fail->fd[i], text, (size_t)length, 0) != length && errno != ESRCH)
            fatal("fail-nth");
}

/* Whether the count of any of them has reached 0: an allocation failed. */
static bool disarm(struct fail_nth* fail) {
    bool failed = false;

    for (unsigned int i = 0; i < fail->count; i++) {
        char text[16] = "";

        if (pread(fail->fd[i], text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0)
            failed = true;
        if (pwrite(fail->fd[i], "0", 1, 0) != 1 && errno != ESRCH)
            fatal("fail-nth");
        close(fail->fd[i]);
    }
    return failed;
}

static struct dm_ioctl* prepare_ioctl(void) {
    struct dm_ioctl* head = (struct dm_ioctl*)ioctl_buffer;

    memset(ioctl_buffer, 0, IOCTL_SIZE);
    head->version[0] = DM_VERSION_MAJOR;
    head->data_size = IOCTL_SIZE;
    head->data_start = sizeof(*head);
    snprintf(head->name, sizeof(head->name), "%s", opt.argv[1]);
    return head;
}

static void prepare_load(void) {
    struct dm_ioctl* head = prepare_ioctl();
    struct dm_target_spec* target = (struct dm_target_spec*)(ioctl_buffer + sizeof(*head));
    char* parameters = (char*)(target + 1);
    size_t room = IOCTL_SIZE - (size_t)(parameters - ioctl_buffer);

    head->target_count = 1;
    target->length = strtoull(opt.argv[2], NULL, 10);
    snprintf(target->target_type, sizeof(target->target_type), "%s", opt.argv[3]);
    snprintf(parameters, room, "%s", opt.argv[4]);
    target->next = (uint32_t)(sizeof(*target) + ((strlen(parameters) + 8) & ~(size_t)7));
}

static void prepare_message(void) {
    struct dm_ioctl* head = prepare_ioctl();
    struct dm_target_msg* message = (struct dm_target_msg*)(ioctl_buffer + sizeof(*head));
    char* end = ioctl_buffer + IOCTL_SIZE;
    char* out = message->message;

    for (const char* in = opt.argv[2]; *in && end - out > 24; in++) {
        if (*in == '@')
            out += snprintf(out, (size_t)(end - out), "%" PRIu64, opt.number);
        else
            *out++ = *in;
    }
}

static void* prepare_write(size_t size) {
    void* data;

    if (posix_memalign(&data, 4096, size))
        fatal("memory");
    if (pread(source, data, size, (off_t)(opt.number * SECTOR)) != (ssize_t)size)
        fatal("source");
    return data;
}

/* One run; returns 0 or the errno of the system call. */
static int run(unsigned int n, bool* failed) {
    bool is_write = !strcmp(opt.argv[0], "write");
    unsigned long request = 0;
    struct fail_nth fail;
    void* data = NULL;
    size_t size = 0;
    int error = 0;

    if (is_write) {
        size = SECTOR * strtoul(opt.argv[3], NULL, 10);
        data = prepare_write(size);
    } else if (!strcmp(opt.argv[0], "load")) {
        prepare_load();
        request = DM_TABLE_LOAD;
    } else if (!strcmp(opt.argv[0], "resume")) {
        prepare_ioctl();
        request = DM_DEV_SUSPEND;
    } else {
        prepare_message();
        request = DM_TARGET_MSG;
    }
    find_tasks(&fail);
    arm(&fail, n);
    if (is_write) {
        ssize_t written = pwrite(device, data, size, (off_t)(opt.number * SECTOR));

        error = written == (ssize_t)size ? 0 : written < 0 ? errno : EIO;
    } else if (ioctl(control, request, ioctl_buffer)) {
        error = errno;
    }
    *failed = disarm(&fail);
    free(data);
    if (request == DM_TABLE_LOAD && !error) {
        prepare_ioctl();
        if (ioctl(control, DM_TABLE_CLEAR, ioctl_buffer))
            fatal("clear");
    }
    return error;
}

static int run_all(void) {
    bool failed = true;

    for (unsigned int n = 1; failed && n <= MAX_RUNS; n++, opt.number += opt.step) {
        int error;

        if (opt.before && system(opt.before) != 0) {
            fprintf(stderr, "failnth: run %u: %s failed\n", n, opt.before);
            return 1;
        }
        error = run(n, &failed);
        printf("run %u %" PRIu64 " %s %s\n", n, opt.number, failed ? "failed" : "spared",
               error ? strerrorname_np(error) : "ok");
        fflush(stdout);
    }
    return failed;
}

/* The words after the options; false when they make no system call. */
static bool take_call(int argc, char** argv) {
    static const struct {
        const char* name;
        int words;
    } calls[] = {{"load", 5}, {"resume", 2}, {"message", 3}, {"write", 4}};

    opt.argv = argv;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (argc == calls[i].words && !strcmp(argv[0], calls[i].name))
            return true;
    return false;
}

int main(int argc, char** argv) {
    static const struct option options[] = {
        {"workers", no_argument, NULL, 'w'},
        {"before", required_argument, NULL, 'b'},
        {"from", required_argument, NULL, 'f'},
        {"step", required_argument, NULL, 's'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        switch (option) {
            case 'w':
                opt.workers = true;
                break;
            case 'b':
                opt.before = optarg;
                break;
            case 'f':
                opt.number = strtoull(optarg, NULL, 10);
                break;
            case 's':
                opt.step = strtoull(optarg, NULL, 10);
                break;
            default:
                fputs(usage, stderr);
                return 2;
        }
    }
    if (!take_call(argc - optind, argv + optind)) {
        fputs(usage, stderr);
        return 2;
    }
    if (!strcmp(opt.argv[0], "write")) {
        device = open_or_die(opt.argv[1], O_RDWR | O_DIRECT | O_DSYNC);
        source = open_or_die(opt.argv[2], O_RDONLY | O_DIRECT);
        if (!opt.step)
            opt.step = strtoull(opt.argv[3], NULL, 10);
    } else {
        control = open_or_die("/dev/mapper/control", O_RDWR);
        ioctl_buffer = malloc(IOCTL_SIZE);
        if (!ioctl_buffer)
            fatal("memory");
        if (!opt.step)
            opt.step = 1;
    }
    return run_all();
}
