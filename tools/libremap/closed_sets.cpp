// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/closed_sets.hpp"

#include <filesystem>
#include <fstream>
#include <system_error>

namespace remap {
namespace {

namespace fs = std::filesystem;

constexpr const char* folder = "/run/remapsetup.closed";

fs::path marker(const Uuid& set) {
    return fs::path(folder) / set.str();
}

}  // namespace

void remember_closed(const Uuid& set) {
    std::error_code ignored;
    fs::create_directory(folder, ignored);
    std::ofstream(marker(set)).close();
}

void forget_closed(const Uuid& set) {
    std::error_code ignored;
    fs::remove(marker(set), ignored);
}

bool was_closed(const Uuid& set) {
    std::error_code ignored;
    return fs::exists(marker(set), ignored);
}

}  // namespace remap
