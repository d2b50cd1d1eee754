// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the tools have in common as programs that somebody calls.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "libremap/observer.hpp"

namespace cli {

/// Asks a question on the terminal; true for "yes". Throws remap::Error (usage) when there is no
/// terminal to ask on, saying that --yes is needed.
bool confirmed(const std::string& consequences, const std::string& question);

/// A message on standard error, as all tools write them: the tool's name, a colon, the text.
void message(const std::string& text);

/// What a program ends with: what `run` returns, or the exit code of the error that it throws,
/// which is shown as a message.
int exit_status_of(const std::function<int()>& run);

/// Warnings as messages, and a progress bar on standard error if that is a terminal. The bar is
/// there for what takes longer than half a second, from this being made on, and goes away at the
/// end of it.
class TerminalObserver : public remap::Observer {
  public:
    TerminalObserver();
    ~TerminalObserver() override;
    void progress(const std::string& what, std::uint64_t done, std::uint64_t total) override;
    void warning(const std::string& text) override;

  private:
    void clear_line();

    bool terminal_;
    bool shown_ = false;
    std::chrono::steady_clock::time_point next_;  ///< when the bar is drawn, not before
};

}  // namespace cli
