// SPDX-License-Identifier: GPL-2.0-or-later
#include "terminal.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <iostream>

#include "libremap/error.hpp"
#include "libremap/report.hpp"

namespace cli {
namespace {

// What is soon over needs no bar.
constexpr std::chrono::milliseconds first{500};
constexpr std::chrono::milliseconds refresh{100};
constexpr unsigned int bar_width = 30;

/// Text that may quote what is on a disk (labels, serial numbers): nothing in it may drive the
/// terminal. The ends of its lines stay.
std::string printable_lines(const std::string& text) {
    std::string shown;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        shown += (at == 0 ? "" : "\n") + remap::printable(text.substr(at, end - at));
        at = end + 1;
    }
    return shown;
}

}  // namespace

bool confirmed(const std::string& consequences, const std::string& question) {
    if (isatty(STDIN_FILENO) == 0 || isatty(STDERR_FILENO) == 0) {
        throw remap::Error(remap::Exit::usage,
                           consequences + "\nNot done: without a terminal this needs --yes");
    }
    std::cerr << printable_lines(consequences) << "\n"
              << printable_lines(question) << " (type \"yes\") " << std::flush;
    std::string answer;
    std::getline(std::cin, answer);
    return answer == "yes" || answer == "YES";
}

void message(const std::string& text) {
    std::cerr << program_invocation_short_name << ": " << printable_lines(text) << "\n";
}

int exit_status_of(const std::function<int()>& run) {
    try {
        return run();
    } catch (const remap::Error& error) {
        message(error.what());
        return error.exit_code();
    } catch (const std::exception& error) {
        message(error.what());
        return static_cast<int>(remap::Exit::operational);
    }
}

TerminalObserver::TerminalObserver()
    : terminal_(isatty(STDERR_FILENO) != 0), next_(std::chrono::steady_clock::now() + first) {}

TerminalObserver::~TerminalObserver() {
    clear_line();
}

void TerminalObserver::clear_line() {
    if (shown_) {
        std::cerr << "\r\033[K" << std::flush;
        shown_ = false;
    }
}

void TerminalObserver::progress(const std::string& what, std::uint64_t done, std::uint64_t total) {
    if (done >= total) {
        clear_line();
        return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || now < next_) {
        return;
    }
    next_ = now + refresh;
    const std::uint64_t filled = done * bar_width / total;
    std::cerr << "\r[" << std::string(filled, '#') << std::string(bar_width - filled, ' ') << "] "
              << done * 100 / total << " % " << remap::printable(what) << "\033[K" << std::flush;
    shown_ = true;
}

void TerminalObserver::warning(const std::string& text) {
    clear_line();
    message("warning: " + text);
}

}  // namespace cli
