// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <csignal>

namespace remap {

/// Keeps signals from the keyboard and from a shutdown waiting while it lives: what is being
/// written could be recovered, but is better brought to its end.
class Uninterrupted {
  public:
    Uninterrupted();
    ~Uninterrupted();
    Uninterrupted(const Uninterrupted&) = delete;
    Uninterrupted& operator=(const Uninterrupted&) = delete;

  private:
    sigset_t before_{};
};

}  // namespace remap
