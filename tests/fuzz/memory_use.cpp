// SPDX-License-Identifier: GPL-2.0-or-later
#include "memory_use.hpp"

#include <sanitizer/allocator_interface.h>

#include <algorithm>

namespace fuzz {
namespace {

// The sanitizer calls plain functions, so this cannot be a member.
bool counting = false;
std::ptrdiff_t now = 0;
std::ptrdiff_t highest = 0;

void allocated(const volatile void* at, std::size_t size) {
    static_cast<void>(at);
    if (counting) {
        now += static_cast<std::ptrdiff_t>(size);
        highest = std::max(highest, now);
    }
}

void freed(const volatile void* at) {
    if (counting && at != nullptr) {
        now -= static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(at));
    }
}

}  // namespace

MemoryUse::MemoryUse() {
    static const int hooks = __sanitizer_install_malloc_and_free_hooks(allocated, freed);
    static_cast<void>(hooks);
    now = highest = 0;
    counting = true;
}

MemoryUse::~MemoryUse() {
    counting = false;
}

std::size_t MemoryUse::most() const {
    return static_cast<std::size_t>(highest);
}

}  // namespace fuzz
