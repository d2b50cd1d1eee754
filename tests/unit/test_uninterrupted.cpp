// SPDX-License-Identifier: GPL-2.0-or-later
// Signals that wait until something is done.

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "catch.hpp"
#include "libremap/uninterrupted.hpp"

TEST_CASE("A signal waits until what must not be interrupted is done", "[uninterrupted]") {
    const int signal = GENERATE(SIGINT, SIGTERM, SIGHUP, SIGQUIT);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        std::signal(signal, SIG_DFL);
        {
            const remap::Uninterrupted outer;
            {
                const remap::Uninterrupted inner;
                raise(signal);
            }
            // The end of the inner one is not the end of the outer one.
            if (write(ends[1], "x", 1) != 1) {
                _exit(1);
            }
        }
        _exit(0);
    }
    close(ends[1]);
    char done = 0;
    CHECK(read(ends[0], &done, 1) == 1);
    close(ends[0]);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == signal);
}
