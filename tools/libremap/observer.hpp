// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>

namespace remap {

/// What a long job tells whoever asked for it. The default says nothing.
class Observer {
  public:
    virtual ~Observer() = default;
    Observer() = default;
    Observer(const Observer&) = delete;
    Observer& operator=(const Observer&) = delete;

    /// `done` of `total` sectors of the step called `what` are through.
    virtual void progress(const std::string& what, std::uint64_t done, std::uint64_t total) {
        static_cast<void>(what);
        static_cast<void>(done);
        static_cast<void>(total);
    }

    /// Something the user should know; the job goes on.
    virtual void warning(const std::string& text) { static_cast<void>(text); }
};

}  // namespace remap
