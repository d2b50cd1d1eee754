// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

namespace remap {

/// A UUID as its 16 bytes in the order in which it is written.
struct Uuid {
    std::array<std::uint8_t, 16> bytes{};

    /// A new random (version 4) UUID. Throws Error if the kernel gives no random bytes.
    static Uuid random();

    /// From 8-4-4-4-12 hex digits of either case; nothing else is accepted.
    static std::optional<Uuid> parse(std::string_view text);

    /// Lower case, with dashes.
    std::string str() const;

    bool is_null() const { return *this == Uuid{}; }

    friend bool operator==(const Uuid&, const Uuid&) = default;
    friend bool operator<(const Uuid& a, const Uuid& b) { return a.bytes < b.bytes; }
};

std::ostream& operator<<(std::ostream& out, const Uuid& uuid);

/// 64 random bits, for a format nonce. Throws Error if the kernel gives none.
std::uint64_t random_u64();

}  // namespace remap
