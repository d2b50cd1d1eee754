// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/uninterrupted.hpp"

#include <initializer_list>

namespace remap {

Uninterrupted::Uninterrupted() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) {
        sigaddset(&signals, signal);
    }
    sigprocmask(SIG_BLOCK, &signals, &before_);
}

Uninterrupted::~Uninterrupted() {
    sigprocmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace remap
