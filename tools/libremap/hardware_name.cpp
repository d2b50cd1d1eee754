// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/hardware_name.hpp"

#include <filesystem>
#include <fstream>

namespace remap {
namespace {

constexpr std::size_t max_length = 100;

/// One word of what a drive says of itself, which may be anything.
std::string one_word(const std::string& text) {
    std::string word;
    for (const char c : text) {
        const bool kept = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                          (c >= 'A' && c <= 'Z') || c == '.' || c == '-';
        if (kept) {
            word += c;
        } else if (!word.empty() && word.back() != '_') {
            word += '_';
        }
    }
    while (!word.empty() && word.back() == '_') {
        word.pop_back();
    }
    return word.substr(0, max_length);
}

std::string model_of(const BlockDevice& device, const MachineRoot& root) {
    std::ifstream in(std::filesystem::path(root.sys) / "class" / "block" / device.whole / "device" /
                     "model");
    std::string line;
    std::getline(in, line);
    return one_word(line);
}

}  // namespace

std::string hardware_name(const BlockDevice& device, const MachineRoot& root) {
    const std::string model = model_of(device, root);
    const Identity identity = identify(device, root);
    const std::string number = one_word(identity.serial.empty() ? identity.wwn : identity.serial);
    return model + (model.empty() || number.empty() ? "" : "_") + number;
}

std::string hardware_name(const std::string& path, const MachineRoot& root) {
    const auto device = block_device_of(path, root);
    return device ? hardware_name(*device, root) : "";
}

}  // namespace remap
