// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/uuid.hpp"

#include <sys/random.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

void random_bytes(void* to, std::size_t size) {
    auto* at = static_cast<std::uint8_t*>(to);

    while (size > 0) {
        const ssize_t got = getrandom(at, size, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            throw Error(Exit::operational, cat("getrandom: ", std::strerror(errno)));
        }
        at += got;
        size -= static_cast<std::size_t>(got);
    }
}

int hex_value(char digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

bool dash_at(std::size_t index) {
    return index == 8 || index == 13 || index == 18 || index == 23;
}

}  // namespace

Uuid Uuid::random() {
    Uuid uuid;

    random_bytes(uuid.bytes.data(), uuid.bytes.size());
    uuid.bytes[6] = static_cast<std::uint8_t>((uuid.bytes[6] & 0x0f) | 0x40);
    uuid.bytes[8] = static_cast<std::uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);
    return uuid;
}

std::optional<Uuid> Uuid::parse(std::string_view text) {
    Uuid uuid;
    std::size_t nibble = 0;

    if (text.size() != 36)
        return std::nullopt;
    for (std::size_t i = 0; i < text.size(); i++) {
        if (dash_at(i)) {
            if (text[i] != '-')
                return std::nullopt;
            continue;
        }
        const int value = hex_value(text[i]);
        if (value < 0)
            return std::nullopt;
        auto& byte = uuid.bytes[nibble / 2];
        byte = static_cast<std::uint8_t>(byte << 4 | value);
        nibble++;
    }
    return uuid;
}

std::string Uuid::str() const {
    static const char digits[] = "0123456789abcdef";
    std::string text;

    for (const std::uint8_t byte : bytes) {
        if (dash_at(text.size()))
            text += '-';
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

std::ostream& operator<<(std::ostream& out, const Uuid& uuid) {
    return out << uuid.str();
}

std::uint64_t random_u64() {
    std::uint64_t value = 0;

    random_bytes(&value, sizeof(value));
    return value;
}

}  // namespace remap
