// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel's uevents, one a line: ACTION@DEVPATH, then KEY=VALUE words. There is no udevd in the
 * test guest that could be asked.
 *
 * usage: uevents [KEY]    only those that have this key; "listening" is printed first
 */
#define _GNU_SOURCE
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int listen_to_kernel(void) {
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

    if (fd < 0 || bind(fd, (struct sockaddr*)&address, sizeof(address))) {
        perror("uevents");
        return -1;
    }
    return fd;
}

/* A message is a sequence of strings. */
static const char* next_string(const char* text) {
    return text + strlen(text) + 1;
}

static bool has_key(const char* text, const char* end, const char* key) {
    size_t length = strlen(key);

    for (; text < end; text = next_string(text))
        if (!strncmp(text, key, length) && text[length] == '=')
            return true;
    return false;
}

int main(int argc, char** argv) {
    char message[16384];
    ssize_t length;
    int fd = listen_to_kernel();

    if (fd < 0)
        return 1;
    puts("listening");
    fflush(stdout);
    while ((length = recv(fd, message, sizeof(message) - 1, 0)) > 0) {
        const char *text = message, *end = message + length;

        message[length] = '\0';
        if (argc > 1 && !has_key(message, end, argv[1]))
            continue;
        for (; text < end; text = next_string(text))
            printf("%s%s", text == message ? "" : " ", text);
        puts("");
        fflush(stdout);
    }
    perror("uevents");
    return 1;
}
