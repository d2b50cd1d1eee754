// SPDX-License-Identifier: GPL-2.0-or-later
//
// What lies on a disk. Changes can be taken back, so that thousands of crash states need no copies.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

namespace model {

constexpr std::size_t sector_size = 512;

/// What is in a sector that was being written when the power failed, if it is neither old nor new.
inline const std::uint8_t* garbage() {
    static const std::array<std::uint8_t, sector_size> bytes = [] {
        std::array<std::uint8_t, sector_size> all;
        all.fill(0xa5);
        return all;
    }();
    return bytes.data();
}

class Image {
  public:
    explicit Image(std::uint64_t sectors) : bytes_(sectors * sector_size) {}

    std::uint64_t sectors() const { return bytes_.size() / sector_size; }
    const std::uint8_t* at(std::uint64_t sector) const { return &bytes_[sector * sector_size]; }

    void write(std::uint64_t sector, const void* data) {
        Undo undo;
        undo.sector = sector;
        std::memcpy(undo.old.data(), at(sector), sector_size);
        undo_.push_back(undo);
        std::memcpy(&bytes_[sector * sector_size], data, sector_size);
    }

    std::size_t mark() const { return undo_.size(); }

    /// Takes back everything since `mark`.
    void undo_to(std::size_t mark) {
        while (undo_.size() > mark) {
            const Undo& undo = undo_.back();
            std::memcpy(&bytes_[undo.sector * sector_size], undo.old.data(), sector_size);
            undo_.pop_back();
        }
    }
    /// What was written so far is for good.
    void forget_undo() { undo_.clear(); }

  private:
    struct Undo {
        std::uint64_t sector;
        std::array<std::uint8_t, sector_size> old;
    };

    std::vector<std::uint8_t> bytes_;
    std::vector<Undo> undo_;
};

}  // namespace model
