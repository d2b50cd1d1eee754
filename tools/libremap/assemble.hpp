// SPDX-License-Identifier: GPL-2.0-or-later
//
// Finding the members of sets among the block devices and putting them together: `remapsetup
// open`, by hand and at boot, and `remapsetup list`.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libremap/error.hpp"
#include "libremap/format.hpp"
#include "libremap/identity.hpp"
#include "libremap/known.hpp"
#include "libremap/probe.hpp"
#include "libremap/remaptab.hpp"

namespace remap {

/// Where messages for the user go, one line each.
using Message = std::function<void(const std::string&)>;

/// A block device that carries a superblock or a label.
struct SeenMember {
    BlockDevice device;
    MemberInfo info;
};

/// All members among the block devices, legs of MD and multipath and remap devices left out. What
/// cannot be opened is no member.
std::vector<SeenMember> scan_members(const MachineRoot& root = {});

/// Of several devices with one member UUID the one that has the recorded hardware identity. Nothing
/// if there is no device with that UUID. Throws Error (unrecognised) when it cannot be decided.
std::optional<BlockDevice> choose_member(const std::vector<SeenMember>& seen, const Member& member,
                                         const Uuid& set, const MachineRoot& root = {});

/// The member UUID of the set's spare. If spares with several UUIDs claim to be of this set, it is
/// the one that the label of a main that is there names as its partner. Nothing if there is no
/// spare. Throws Error (unrecognised) when it cannot be decided.
std::optional<Uuid> choose_spare(const std::vector<SeenMember>& seen, const Uuid& set);

/// Both members of a known set, or what is said about the one that is not there.
struct ChosenPair {
    std::optional<BlockDevice> main;
    std::optional<BlockDevice> spare;
    std::string missing;  ///< empty if both are there
    bool bare = false;    ///< known if the spare is there
};

/// The members of a set among those that were seen. Whether they really belong together and neither
/// is an old copy, require_pair() tells. Throws Error (unrecognised) when it cannot be decided
/// which of several devices is meant. With `listed` only that is taken for the main of a bare set.
ChosenPair choose_pair(const Uuid& set, const std::vector<SeenMember>& seen,
                       const MachineRoot& root = {},
                       const std::optional<Identity>& listed = std::nullopt);

/// The main of the set whose spare is `spare`, found by its label. Throws Error (unrecognised) if
/// there is none, or more than one and none with the recorded hardware.
BlockDevice find_main(const std::string& spare, const Superblock& superblock,
                      const MachineRoot& root = {});

struct OpenOptions {
    std::string spare;
    std::string name;
    std::optional<std::string> main;
    bool moved =
        false;  ///< `main` of a bare set, which nothing else tells, is on other hardware now
    bool no_label = false;  ///< `main` is the right one if its labels cannot be read at all
    bool fsck = false;
    bool read_only = false;
    bool fua = false;
    bool no_udev_sync = false;
};

/// Opens one set; a set that is already open under that name is left as it is. A main that is named
/// and lies on other hardware than is recorded is recorded. Returns the path of the device. Throws
/// Error.
std::string open_set(const OpenOptions& options, const Message& message);

struct OpenAllOptions {
    std::string remaptab = default_remaptab;
    /// How long to wait for members. Not given: not at all for all sets, and as remaptab(5) says
    /// for one.
    std::optional<double> wait_seconds;
    bool no_udev_sync = false;
    /// Only the bare sets without `nofail`: those whose raw mains would be taken for them. With
    /// rd.remap=0 they count as not open.
    bool only_bare = false;
    MachineRoot root;
};

/// Opens every known set that is not open and whose members are present, after checking and
/// repairing it as `remap-fsck -p`. `missing` gets what is said about sets whose members are not
/// there (yet), `message` everything else. Returns Exit::ok if all known sets are open,
/// Exit::damage if not. Throws Error for what concerns no single set.
Exit open_all(const OpenAllOptions& options, const Message& message, const Message& missing);

/// Opens the set that remaptab calls so, or the kernel command line under its default name, after
/// checking and repairing it. Waits for members that are not there, saying which; what else is
/// wrong ends it at once, unless something has happened to a device meanwhile. Throws Error
/// (damage) if a member is still missing, and what is wrong with the set.
void open_listed(const std::string& name, const OpenAllOptions& options, const Message& message);

/// Closes every remap device that nobody uses and that the running system does not lie on; for what
/// is left open it is said why. Throws Error for what concerns no single device.
void close_all(const OpenAllOptions& options, const Message& message);

/// Closes the remap device of that name, and remembers that it was closed by hand. Throws Error.
void close_set(const std::string& name, bool udev_sync);

}  // namespace remap
