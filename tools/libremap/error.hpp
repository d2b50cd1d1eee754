// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace remap {

/// Exit codes of remapsetup and remap-dump; remap-fsck translates them to fsck(8)'s.
enum class Exit : int {
    ok = 0,
    damage = 1,        ///< done, but damage was seen, or some sets are not open
    unrecognised = 2,  ///< not ours, the wrong pair, or damaged beyond use
    operational = 8,   ///< I/O error, busy, newer format
    usage = 16,        ///< wrong use, or refused without --yes or --force
};

/// What went wrong, for the user, with the exit code that fits. The text names the device, the
/// place, what was expected and what was found, as far as they apply.
class Error : public std::runtime_error {
  public:
    Error(Exit code, const std::string& text) : std::runtime_error(text), code_(code) {}

    Exit code() const { return code_; }
    int exit_code() const { return static_cast<int>(code_); }

  private:
    Exit code_;
};

/// A read, write or flush that failed.
class IoError : public Error {
  public:
    /// `sector`: where the failed request began, in sectors. `error`: an errno value.
    IoError(const std::string& device, const char* what, std::uint64_t sector,
            std::uint64_t sectors, int error);

    std::uint64_t sector() const { return sector_; }
    int error() const { return error_; }

  private:
    std::uint64_t sector_;
    int error_;
};

/// The device or file is in use by somebody else.
class BusyError : public Error {
  public:
    explicit BusyError(const std::string& text) : Error(Exit::operational, text) {}
};

/// A device is suspended; it may be resumed at any time.
class SuspendedError : public Error {
  public:
    explicit SuspendedError(const std::string& text) : Error(Exit::operational, text) {}
};

/// An Error whose text reads "DEVICE: sector N: WHAT: expected E, found F".
Error mismatch(Exit code, const std::string& device, std::uint64_t sector, const std::string& what,
               const std::string& expected, const std::string& found);

}  // namespace remap
