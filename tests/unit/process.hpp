// SPDX-License-Identifier: GPL-2.0-or-later
//
// A program that is talked to while it runs, on a terminal of its own or without one.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace scratch {

class Process {
  public:
    /// On a new terminal, which is its input and output.
    static Process on_terminal(const std::vector<std::string>& words) {
        Process process;
        process.terminal_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (process.terminal_ < 0 || ::grantpt(process.terminal_) != 0 ||
            ::unlockpt(process.terminal_) != 0)
            throw std::runtime_error("no terminal");
        const std::string name = ::ptsname(process.terminal_);
        process.start(words, [&name] {
            ::setsid();
            const int slave = ::open(name.c_str(), O_RDWR);
            for (const int fd : {0, 1, 2})
                ::dup2(slave, fd);
        });
        return process;
    }

    /// Input from /dev/null, output to `out`; `pass` becomes descriptor 7.
    static Process without_terminal(const std::vector<std::string>& words, const std::string& out,
                                    int pass) {
        Process process;
        process.start(words, [&] {
            ::setsid();
            ::dup2(::open("/dev/null", O_RDONLY), 0);
            ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
            ::dup2(1, 2);
            ::dup2(pass, 7);
        });
        return process;
    }

    Process(Process&& other) noexcept : pid_(other.pid_), terminal_(other.terminal_) {
        other.pid_ = other.terminal_ = -1;
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            ::waitpid(pid_, nullptr, 0);
        }
        if (terminal_ >= 0)
            ::close(terminal_);
    }

    /// Reads from the terminal until `text` has appeared; false at the end, or after 30 s.
    bool saw(const std::string& text) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (seen_.find(text) == std::string::npos) {
            pollfd from{terminal_, POLLIN, 0};
            char buffer[512];
            if (std::chrono::steady_clock::now() > end)
                return false;
            if (::poll(&from, 1, 100) <= 0)
                continue;
            const ssize_t n = ::read(terminal_, buffer, sizeof(buffer));
            if (n <= 0)
                return false;
            seen_.append(buffer, static_cast<std::size_t>(n));
        }
        seen_.erase(0, seen_.find(text) + text.size());
        return true;
    }

    void type(const std::string& text) {
        if (::write(terminal_, text.data(), text.size()) < 0)
            throw std::runtime_error("cannot type");
    }

    /// Waits until the program itself runs, and sleeps: in a read or a write that nobody answers.
    bool sleeps() const {
        for (int tries = 0; tries < 3000; tries++, ::usleep(10000)) {
            std::ifstream stat("/proc/" + std::to_string(pid_) + "/stat");
            std::string line;
            std::getline(stat, line);
            if (line.find("(remap") != std::string::npos && line.find(") S ") != std::string::npos)
                return true;
        }
        return false;
    }

    /// Waits until the program has opened this file; false if it ends before, or after 30 s.
    bool opened(const std::string& path) const {
        const std::string folder = "/proc/" + std::to_string(pid_) + "/fd";
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (std::chrono::steady_clock::now() < end) {
            std::error_code gone;
            for (const auto& fd : std::filesystem::directory_iterator(folder, gone)) {
                if (std::filesystem::read_symlink(fd, gone) == path)
                    return true;
            }
            if (::waitid(P_PID, static_cast<id_t>(pid_), nullptr, WEXITED | WNOHANG | WNOWAIT) ==
                    0 &&
                ::access(folder.c_str(), R_OK) != 0)
                return false;
        }
        return false;
    }

    void send(int signal) { ::kill(pid_, signal); }

    /// Exit code, or -1 if a signal ended it.
    int wait() {
        int status = 0;
        // Nobody is left to read what it says: a terminal must not fill up.
        if (terminal_ >= 0)
            saw("\1 never said");
        ::waitpid(pid_, &status, 0);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

  private:
    Process() = default;

    template <typename Prepare>
    void start(const std::vector<std::string>& words, const Prepare& prepare) {
        std::vector<char*> argv;
        for (const std::string& word : words)
            argv.push_back(const_cast<char*>(word.c_str()));
        argv.push_back(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            prepare();
            ::execv(argv[0], argv.data());
            ::_exit(127);
        }
    }

    pid_t pid_ = -1;
    int terminal_ = -1;
    std::string seen_;
};

}  // namespace scratch
