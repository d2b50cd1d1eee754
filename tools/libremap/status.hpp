// SPDX-License-Identifier: GPL-2.0-or-later
//
// The kernel target's status line as named fields.
#pragma once

#include <cstdint>
#include <string>

#include "libremap/report.hpp"
#include "libremap/uuid.hpp"

namespace remap {

/// What `dmsetup status` prints for the target, in its order.
struct KernelStatus {
    Uuid set;
    std::uint64_t block_sectors = 0;
    std::uint64_t slots_used = 0;
    std::uint64_t slots_total = 0;
    std::uint64_t mapped = 0;
    std::uint64_t lost = 0;
    std::uint64_t bad_slots = 0;
    std::uint64_t hidden = 0;
    std::uint64_t live_copies = 0;
    std::uint64_t copies = 0;
    std::uint64_t epoch = 0;
    std::uint64_t remaps = 0;  ///< since the device was opened
    std::uint64_t main_write_errors = 0;
    std::uint64_t main_read_errors = 0;
    std::uint64_t spare_errors = 0;
    std::uint64_t failed_writes = 0;  ///< that were passed up as errors
    std::uint64_t in_doubt = 0;       ///< blocks
    std::uint64_t table_length = 0;   ///< initialised table blocks
    std::uint64_t circuit = 0;        ///< writes failed at once because the main was gone
    std::uint64_t burst = 0;          ///< writes that max_burst kept from being remapped
    std::string health;               ///< ok, low-space, degraded, full, main-lost, spare-lost
    std::string mode;                 ///< rw, ro, fail

    bool healthy() const { return health == "ok" && mode != "fail"; }
};

/// Parses the line. Fields that a later kernel may add before the last two are ignored; those that
/// an earlier one does not have yet (circuit, burst) stay 0. Throws Error (unrecognised) naming the
/// field that is not as expected.
KernelStatus parse_status(const std::string& line);

/// The fields, for text and JSON alike.
void emit_status(const KernelStatus& status, Emitter& out);

}  // namespace remap
