// SPDX-License-Identifier: GPL-2.0-or-later
#include "terminal.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <iostream>

namespace remap_fsck {
namespace {

// A signal handler has nothing but globals to write to.
volatile std::sig_atomic_t noted = 0;
// Wakes a question up, also when the signal comes just before it waits.
std::array<int, 2> wake = {-1, -1};

void note(int) {
    const int error = errno;

    noted = 1;
    static_cast<void>(!write(wake[1], "", 1));
    errno = error;
}

/// The first character of a line of standard input; 0 at its end or after an interrupt.
char first_of_line() {
    char first = 0;
    bool any = false;

    while (!interrupted()) {
        std::array<pollfd, 2> from = {pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{wake[0], POLLIN, 0}};
        char c = 0;
        if (poll(from.data(), from.size(), -1) < 0 || from[0].revents == 0)
            continue;
        if (read(STDIN_FILENO, &c, 1) != 1)
            break;
        if (c == '\n')
            return first;
        if (!any)
            first = c;
        any = true;
    }
    return 0;
}

}  // namespace

bool on_terminal() {
    return isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
}

void note_interrupts() {
    struct sigaction action {};

    if (pipe2(wake.data(), O_CLOEXEC | O_NONBLOCK) != 0)
        return;  // then an interrupt ends the program, as it would without us
    // No SA_RESTART: whoever has stopped to read our progress must not keep us from noticing.
    action.sa_handler = note;
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
        struct sigaction before {};
        // What nohup(1) or a shell in the background ignores stays so.
        if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signal, &action, nullptr);
    }
}

bool interrupted() {
    return noted != 0;
}

bool ask(const std::string& question) {
    std::cout << question << " (y/n) " << std::flush;
    const char answer = first_of_line();
    if (interrupted())
        std::cout << "\n";
    return answer == 'y' || answer == 'Y';
}

}  // namespace remap_fsck
