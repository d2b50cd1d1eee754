// SPDX-License-Identifier: GPL-2.0-or-later
#include <csignal>
#include <iostream>

#include "verbs.hpp"

namespace remap_dump {

void end_with_reader() {
    std::signal(SIGPIPE, SIG_DFL);
}

std::optional<std::string> wished_undo_file(const std::string& option) {
    return option.empty() ? std::nullopt : std::optional(option);
}

std::unique_ptr<remap::Emitter> make_emitter(bool json) {
    if (json)
        return std::make_unique<remap::JsonEmitter>(std::cout);
    return std::make_unique<remap::TextEmitter>(std::cout);
}

}  // namespace remap_dump
