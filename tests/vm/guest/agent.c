// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's end of the test harness: runs commands for the host over a virtio-serial port
 * or a serial line.
 *
 * Many commands may run at a time; each is named by an id that the host chooses. A frame is,
 * little-endian, u32 payload length, u32 id, u8 type, payload:
 *
 *   host to guest   'E' start: u32 number of arguments, then the arguments, then environment
 * settings, each ended by NUL 'I' data for its standard input     'C' end of its standard input 'K'
 * kill its process group guest to host   'H' the agent is up (payload: kernel release; id 0) 'O'
 * 'R' data from its standard output, error 'X' it has ended: i32 wait status   'F' it could not be
 * started: i32 errno
 *
 * A command has ended when its first process has: what that left running in the background does not
 * hold it up.
 *
 * usage: vm-agent [PORT]          serve on that virtio-serial port (default: remapvm.agent), or on
 *                                 the serial line with this path
 *        vm-agent --find SERIAL   print the device with that serial number, /dev/vda say; exit 1
 * when there is none
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MAX_COMMANDS 64
#define CHUNK 32768

/* A queue of bytes: `used` of them from data + start; size is what is allocated. */
struct buffer {
    uint8_t* data;
    size_t start, used, size;
};

struct command {
    bool active;
    uint32_t id;
    pid_t pid;
    int in, out, err;    /* our ends of its pipes, -1 when closed */
    struct buffer input; /* what it has not read yet */
    bool input_ends;
};

static int port = -1;
static struct command commands[MAX_COMMANDS];

static void fatal(const char* what) {
    fprintf(stderr, "vm-agent: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void append(struct buffer* b, const void* data, size_t n) {
    if (b->start + b->used + n > b->size) {
        if (b->start)
            memmove(b->data, b->data + b->start, b->used);
        b->start = 0;
        b->size = (b->used + n) * 2;
        b->data = realloc(b->data, b->size);
        if (!b->data)
            fatal("out of memory");
    }
    if (n)
        memcpy(b->data + b->start + b->used, data, n);
    b->used += n;
}

static void consume(struct buffer* b, size_t n) {
    b->start += n;
    b->used -= n;
}

static void write_all(int fd, const void* data, size_t n) {
    const char* p = data;

    while (n) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            fatal("write to the port");
        p += w;
        n -= (size_t)w;
    }
}

static void send_frame(char type, uint32_t id, const void* payload, uint32_t n) {
    uint8_t head[9];

    memcpy(head, &n, 4);
    memcpy(head + 4, &id, 4);
    head[8] = (uint8_t)type;
    write_all(port, head, sizeof(head));
    write_all(port, payload, n);
}

static void send_number(char type, uint32_t id, int32_t value) {
    send_frame(type, id, &value, sizeof(value));
}

static void close_fd(int* fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* The child's side of start(): never returns. */
static void run_child(char** argv, char** settings, int in, int out, int err, int failed) {
    sigset_t none;
    int error;

    setsid();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    for (; *settings; settings++)
        putenv(*settings);
    execvp(argv[0], argv);
    error = errno;
    write_all(failed, &error, sizeof(error));
    _exit(127);
}

static struct command* free_command(void) {
    for (int i = 0; i < MAX_COMMANDS; i++)
        if (!commands[i].active)
            return &commands[i];
    return NULL;
}

static struct command* find_command(uint32_t id) {
    for (int i = 0; i < MAX_COMMANDS; i++)
        if (commands[i].active && commands[i].id == id)
            return &commands[i];
    return NULL;
}

static void start(uint32_t id, char** argv, char** settings) {
    struct command* c = free_command();
    int in[2], out[2], err[2], failed[2], error;
    pid_t pid;

    if (!c) {
        send_number('F', id, EAGAIN);
        return;
    }
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) ||
        pipe2(failed, O_CLOEXEC))
        fatal("pipe");
    pid = fork();
    if (pid < 0)
        fatal("fork");
    if (pid == 0)
        run_child(argv, settings, in[0], out[1], err[1], failed[1]);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    close(failed[1]);
    if (read(failed[0], &error, sizeof(error)) == sizeof(error)) {
        waitpid(pid, NULL, 0);
        close(in[1]);
        close(out[0]);
        close(err[0]);
        send_number('F', id, error);
    } else {
        fcntl(in[1], F_SETFL, O_NONBLOCK);
        fcntl(out[0], F_SETFL, O_NONBLOCK);
        fcntl(err[0], F_SETFL, O_NONBLOCK);
        *c = (struct command){
            .active = true, .id = id, .pid = pid, .in = in[1], .out = out[0], .err = err[0]};
    }
    close(failed[0]);
}

/* Payload of 'E': u32 count, count NUL-ended arguments, then NUL-ended NAME=VALUE. */
static void start_from(uint32_t id, uint8_t* payload, uint32_t n) {
    uint32_t argc, strings = 0;
    char** list;

    if (n < 5 || payload[n - 1] != 0) {
        send_number('F', id, EPROTO);
        return;
    }
    memcpy(&argc, payload, 4);
    for (uint32_t i = 4; i < n; i++)
        strings += payload[i] == 0;
    if (argc == 0 || argc > strings) {
        send_number('F', id, EPROTO);
        return;
    }
    list = calloc(strings + 2, sizeof(*list));
    if (!list)
        fatal("out of memory");
    for (uint32_t i = 0, at = 4; i < strings; i++) {
        /* argv and the settings are two NULL-ended lists in one */
        list[i < argc ? i : i + 1] = (char*)payload + at;
        at += (uint32_t)strlen((char*)payload + at) + 1;
    }
    start(id, list, list + argc + 1);
    free(list);
}

static void feed_input(struct command* c) {
    while (c->in >= 0 && c->input.used) {
        ssize_t n = write(c->in, c->input.data + c->input.start, c->input.used);

        if (n > 0) {
            consume(&c->input, (size_t)n);
        } else if (n < 0 && errno == EAGAIN) {
            return;
        } else if (n < 0 && errno != EINTR) {
            close_fd(&c->in); /* it does not want any more */
            c->input.used = 0;
        }
    }
    if (c->input_ends)
        close_fd(&c->in);
}

/* Pass on what one of the command's outputs holds; false when there is nothing left to read now. */
static bool pass_output(struct command* c, int* fd, char type) {
    static uint8_t chunk[CHUNK];
    ssize_t n;

    if (*fd < 0)
        return false;
    n = read(*fd, chunk, sizeof(chunk));
    if (n > 0) {
        send_frame(type, c->id, chunk, (uint32_t)n);
        return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_fd(fd);
    return false;
}

static void finish(struct command* c, int status) {
    while (pass_output(c, &c->out, 'O'))
        ;
    while (pass_output(c, &c->err, 'R'))
        ;
    close_fd(&c->in);
    close_fd(&c->out);
    close_fd(&c->err);
    free(c->input.data);
    c->active = false;
    send_number('X', c->id, status);
}

static void reap(void) {
    for (int i = 0; i < MAX_COMMANDS; i++) {
        int status;

        if (commands[i].active && waitpid(commands[i].pid, &status, WNOHANG) == commands[i].pid)
            finish(&commands[i], status);
    }
}

static void handle_frame(char type, uint32_t id, uint8_t* payload, uint32_t n) {
    struct command* c = find_command(id);

    if (type == 'E')
        start_from(id, payload, n);
    if (!c)
        return; /* it ended while this was under way */
    if (type == 'I')
        append(&c->input, payload, n);
    else if (type == 'C')
        c->input_ends = true;
    else if (type == 'K')
        kill(-c->pid, SIGKILL);
    feed_input(c);
}

static void receive(struct buffer* b) {
    static uint8_t chunk[CHUNK];
    ssize_t n = read(port, chunk, sizeof(chunk));

    if (n == 0) { /* the host is not listening yet */
        usleep(10000);
        return;
    }
    if (n < 0) {
        if (errno == EINTR || errno == EAGAIN)
            return;
        fatal("read from the port");
    }
    append(b, chunk, (size_t)n);
    while (b->used >= 9) {
        uint8_t* frame = b->data + b->start;
        uint32_t length, id;

        memcpy(&length, frame, 4);
        memcpy(&id, frame + 4, 4);
        if (b->used - 9 < length)
            break;
        handle_frame((char)frame[8], id, frame + 9, length);
        consume(b, 9 + (size_t)length);
    }
}

static void serve(int signals) {
    struct buffer incoming = {0};

    for (;;) {
        struct pollfd fds[2 + 3 * MAX_COMMANDS];
        nfds_t n = 2;

        fds[0] = (struct pollfd){.fd = port, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = signals, .events = POLLIN};
        for (int i = 0; i < MAX_COMMANDS; i++) {
            struct command* c = &commands[i];

            if (!c->active)
                continue;
            if (c->in >= 0 && c->input.used)
                fds[n++] = (struct pollfd){.fd = c->in, .events = POLLOUT};
            if (c->out >= 0)
                fds[n++] = (struct pollfd){.fd = c->out, .events = POLLIN};
            if (c->err >= 0)
                fds[n++] = (struct pollfd){.fd = c->err, .events = POLLIN};
        }
        if (poll(fds, n, -1) < 0 && errno != EINTR)
            fatal("poll");
        for (int i = 0; i < MAX_COMMANDS; i++) {
            struct command* c = &commands[i];

            if (!c->active)
                continue;
            feed_input(c);
            pass_output(c, &c->out, 'O');
            pass_output(c, &c->err, 'R');
        }
        if (fds[1].revents) {
            struct signalfd_siginfo info;

            if (read(signals, &info, sizeof(info)) > 0)
                reap();
        }
        if (fds[0].revents)
            receive(&incoming);
    }
}

/* First line of a file in sysfs, trailing blanks cut; empty when it cannot be read. */
static void read_line(const char* path, char* line, size_t size) {
    FILE* f = fopen(path, "re");

    line[0] = 0;
    if (!f)
        return;
    if (fgets(line, (int)size, f)) {
        size_t n = strlen(line);

        while (n && (line[n - 1] == '\n' || line[n - 1] == ' '))
            line[--n] = 0;
    }
    fclose(f);
}

/* The serial number of a disk: virtio, nvme, then a SCSI disk's vital product data page 0x80 (4
 * bytes of header). */
static void disk_serial(const char* disk, char* serial, size_t size) {
    char path[512];
    uint8_t page[256];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/sys/block/%s/serial", disk);
    read_line(path, serial, size);
    if (serial[0])
        return;
    snprintf(path, sizeof(path), "/sys/block/%s/device/serial", disk);
    read_line(path, serial, size);
    if (serial[0])
        return;
    snprintf(path, sizeof(path), "/sys/block/%s/device/vpd_pg80", disk);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    n = read(fd, page, sizeof(page));
    close(fd);
    if (n > 4 && (size_t)n - 4 < size) {
        memcpy(serial, page + 4, (size_t)n - 4);
        serial[n - 4] = 0;
    }
}

static int find_disk(const char* wanted) {
    DIR* dir = opendir("/sys/block");
    struct dirent* entry;
    char serial[256];

    if (!dir)
        fatal("/sys/block");
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        disk_serial(entry->d_name, serial, sizeof(serial));
        if (!strcmp(serial, wanted)) {
            printf("/dev/%s\n", entry->d_name);
            closedir(dir);
            return 0;
        }
    }
    closedir(dir);
    fprintf(stderr, "vm-agent: no disk has the serial number %s\n", wanted);
    return 1;
}

/* Opens the virtio-serial port of that name; waits for its driver and its node. */
static int open_port(const char* name) {
    for (int tries = 0; tries < 6000; tries++, usleep(10000)) {
        DIR* dir = opendir("/sys/class/virtio-ports");
        struct dirent* entry;
        int fd = -1;

        while (dir && fd < 0 && (entry = readdir(dir))) {
            char path[512], found[128];

            snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
            read_line(path, found, sizeof(found));
            if (strcmp(found, name) != 0)
                continue;
            snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
            fd = open(path, O_RDWR | O_CLOEXEC);
        }
        if (dir)
            closedir(dir);
        if (fd >= 0)
            return fd;
    }
    errno = ENODEV;
    fatal(name);
    return -1;
}

/* Opens a serial line; it passes every byte on as it is. */
static int open_line(const char* path) {
    struct termios mode;
    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || tcgetattr(fd, &mode))
        fatal(path);
    cfmakeraw(&mode);
    if (tcsetattr(fd, TCSANOW, &mode))
        fatal(path);
    return fd;
}

int main(int argc, char** argv) {
    const char* place = argc > 1 ? argv[1] : "remapvm.agent";
    struct utsname system;
    sigset_t set;
    int signals;

    if (argc == 3 && !strcmp(argv[1], "--find"))
        return find_disk(argv[2]);
    port = place[0] == '/' ? open_line(place) : open_port(place);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        fatal("signalfd");
    uname(&system);
    send_frame('H', 0, system.release, (uint32_t)strlen(system.release));
    serve(signals);
}
