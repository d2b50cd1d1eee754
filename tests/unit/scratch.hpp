// SPDX-License-Identifier: GPL-2.0-or-later
//
// Scratch files and programs for the tests that need real ones.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace scratch {

inline std::string slurp(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void spill(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

/// An empty file that may be executed.
inline void make_program(const std::string& path) {
    spill(path, "");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
}

/// A sparse file of `bytes` bytes.
inline void make_image(const std::string& path, std::uintmax_t bytes) {
    std::ofstream(path, std::ios::binary).close();
    std::filesystem::resize_file(path, bytes);
}

/// A folder that is gone at the end of its scope.
class Folder {
  public:
    Folder() {
        std::string name = (std::filesystem::temp_directory_path() / "remap-test.XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("no scratch folder");
        }
        path_ = name;
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    std::string file(const std::string& name) const { return (path_ / name).string(); }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

struct Result {
    int code = -1;  ///< exit code; -1 if a signal ended it
    std::string out;
    std::string err;
};

/// Runs a program with standard input from /dev/null. Programs in /sbin are found.
inline Result run(const std::vector<std::string>& words) {
    const Folder folder;
    const std::string out = folder.file("out");
    const std::string err = folder.file("err");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (const std::string& word : words) {
        argv.push_back(const_cast<char*>(word.c_str()));
    }
    argv.push_back(nullptr);
    std::string path = "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
    std::string locale = "LC_ALL=C";
    const char* folder_of_undo = ::getenv("REMAP_STATE_DIR");
    std::string state = std::string("REMAP_STATE_DIR=") + (folder_of_undo ? folder_of_undo : "");
    char* env[] = {path.data(), locale.data(), state.data(), nullptr};
    ::setenv("PATH", path.c_str() + 5, 1);
    pid_t pid = 0;
    const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), env);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
        throw std::runtime_error("cannot run " + words.front());
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(out), slurp(err)};
}

}  // namespace scratch
