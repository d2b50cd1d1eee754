// SPDX-License-Identifier: GPL-2.0-or-later
//
// Device-mapper devices of our target, through libdevmapper.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libremap/uuid.hpp"

namespace remap::dm {

/// A device-mapper device whose UUID begins with "REMAP-".
struct Device {
    std::string name;
    std::string uuid;
    dev_t devno = 0;
    std::int32_t open_count = 0;
    bool suspended = false;
    bool read_only = false;
    bool has_table = false;  ///< that is in use, not only loaded
};

/// The device-mapper UUID of a set.
std::string device_uuid(const Uuid& set);

/// All devices of our target; none where the kernel has no device-mapper. Throws Error.
std::vector<Device> list_devices();

/// The device of that set, if there is one; without a table it is what an interrupted create() has
/// left. Nothing where the kernel has no device-mapper.
std::optional<Device> find_set(const Uuid& set);

/// Any device of that name, of our target or not.
std::optional<Device> find_name(const std::string& name);

struct CreateRequest {
    std::string name;
    Uuid set;
    std::uint64_t size = 0;  ///< sectors
    dev_t main = 0;
    dev_t spare = 0;
    std::vector<std::string> features;  ///< of the table line
    bool read_only = false;
    bool udev_sync = true;
};

/// Everything after "<start> <length> remap " in the table line.
std::string table_parameters(const CreateRequest& request);

/// Creates, loads and resumes in one step and waits for udev; a device that could not be completed
/// is removed again. Throws Error (operational) with what the kernel logged.
void create(const CreateRequest& request);

/// Removes the device, retrying while something still has it open for a moment, and waits for udev.
/// Throws BusyError, Error.
void remove(const std::string& name, bool udev_sync);

/// The target's status and table parameters as the kernel prints them. Throws Error.
std::string status_line(const std::string& name);
std::string table_line(const std::string& name);

}  // namespace remap::dm
