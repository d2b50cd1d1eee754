// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/assemble.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <thread>

#include "libremap/bare_main.hpp"
#include "libremap/check.hpp"
#include "libremap/closed_sets.hpp"
#include "libremap/device_events.hpp"
#include "libremap/dm.hpp"
#include "libremap/error.hpp"
#include "libremap/file_util.hpp"
#include "libremap/metadata.hpp"
#include "libremap/pair.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view uuid_prefix = "REMAP-";  ///< of device-mapper UUIDs
constexpr const char* lock_path = "/run/remapsetup.lock";
constexpr std::chrono::seconds lock_patience{60};
constexpr std::chrono::milliseconds lock_pause{50};
/// How long to wait for udev to tell of a device before looking again without being told.
constexpr std::chrono::milliseconds look_again{2000};

/// One assembly at a time: udev starts one for each member that arrives.
class AssemblyLock {
  public:
    AssemblyLock() : fd_(::open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
        const auto deadline = Clock::now() + lock_patience;
        while (fd_.get() >= 0 && ::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK && errno != EINTR) {
                break;
            }
            if (Clock::now() >= deadline) {
                throw BusyError(cat(lock_path, ": another assembly holds it for too long"));
            }
            std::this_thread::sleep_for(lock_pause);
        }
    }

    /// Without a writable /run there is no lock; the kernel still refuses a set twice.
    bool held() const { return fd_.get() >= 0; }

  private:
    FileHandle fd_;
};

std::string set_text(const Superblock& superblock) {
    return cat("set ", superblock.head.set_uuid,
               superblock.label.empty() ? "" : cat(" (", superblock.label, ")"));
}

std::string device_names(const std::vector<SeenMember>& members) {
    std::string text;
    for (const SeenMember& member : members) {
        text += (text.empty() ? "" : ", ") + member.device.path;
    }
    return text;
}

std::string member_text(const Member& member) {
    return cat("member ", member.uuid, ", ", recorded_identity(member).describe(), ", ",
               member.size / 2048, " MiB");
}

void require_unused(const std::string& path) {
    const auto users = users_of(path);
    if (!users.empty()) {
        throw BusyError(cat(path, ": in use: ", users.front()));
    }
}

BlockDevice require_block_device(const std::string& path) {
    auto device = block_device_of(path);
    if (device) {
        return *device;
    }
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) {
        const int error = errno;
        throw Error(Exit::operational, cat(path, ": cannot open: ", std::strerror(error)));
    }
    throw Error(Exit::usage,
                cat(path, ": expected a block device, found ",
                    S_ISREG(st.st_mode) ? "an image file; attach it with losetup(8) first"
                                        : "something else"));
}

/// Both devices of a set that are about to be put together.
struct Pair {
    BlockDevice main;
    BlockDevice spare;
};

Superblock read_superblock(const std::string& spare, bool read_only) {
    const auto io = open_block_io(spare, Mode::read_only);
    return require_openable(*io, read_only);
}

void verify_pair(const Pair& pair, const Superblock& superblock, const OpenOptions& options) {
    const auto io = open_block_io(pair.main.path, Mode::read_only);
    require_pair(*io, pair.spare.path, superblock, options.moved ? Identity{} : identify(pair.main),
                 options.no_label);
}

/// The kernel gets numbers, which may belong to other disks by now: time has gone by since they
/// were looked up.
void require_same_devices(const Pair& pair) {
    for (const BlockDevice& device : {pair.main, pair.spare}) {
        const auto now = block_device_of(device.path);
        if (!now || now->devno != device.devno) {
            throw Error(Exit::operational, cat(device.path, ": has gone while it was checked"));
        }
    }
}

/// For reading only nothing may be written, to neither member, so nothing is repaired.
void check_before_open(const Pair& pair, const OpenOptions& options, const Message& message) {
    const auto main = options.no_label ? std::nullopt : std::optional(pair.main.path);
    const int bits = options.read_only ? inspect(pair.spare.path, main, message)
                                       : preen(pair.spare.path, main, message);
    if ((bits & ~fsck::corrected) != 0) {
        throw Error(
            (bits & fsck::operational) != 0 ? Exit::operational : Exit::unrecognised,
            cat(pair.spare.path, ": not opened: the check ended with ", bits,
                "; see \"remap-fsck -n --main ", pair.main.path, " ", pair.spare.path, "\""));
    }
}

dm::CreateRequest create_request(const OpenOptions& options, const Pair& pair,
                                 const Superblock& superblock) {
    dm::CreateRequest request;
    request.name = options.name;
    request.set = superblock.head.set_uuid;
    request.size = superblock.main_size;
    request.main = pair.main.devno;
    request.spare = pair.spare.devno;
    request.read_only = options.read_only;
    request.udev_sync = !options.no_udev_sync;
    if (options.read_only) {
        request.features.emplace_back("read_only");
    }
    if (options.fua) {
        request.features.emplace_back("fua");
    }
    if (options.no_label) {
        request.features.emplace_back("no_label");
    }
    return request;
}

std::optional<dm::Device> open_device(const Uuid& set) {
    auto device = dm::find_set(set);
    return device && device->has_table ? device : std::nullopt;
}

/// It counts as open, but nobody can use it.
void report_suspended(const dm::Device& device, const Message& message) {
    if (device.has_table && device.suspended) {
        message(cat(device.name,
                    ": is suspended, and every access to it waits; if nobody is about to resume "
                    "it, \"dmsetup resume ",
                    device.name, "\""));
    }
}

/// The device of a set that is open. What is left of an opening that was interrupted holds the
/// members and the name, and goes; but another's opening may look so, if nothing keeps it away.
std::optional<dm::Device> open_device_at_last(const Uuid& set, const AssemblyLock& lock,
                                              bool udev_sync, const Message& message) {
    const auto device = dm::find_set(set);
    if (device) {
        report_suspended(*device, message);
    }
    if (!device || device->has_table) {
        return device;
    }
    if (!lock.held()) {
        throw BusyError(cat(device->name,
                            ": is being opened, or that was interrupted: then \"dmsetup remove ",
                            device->name, "\" first"));
    }
    dm::remove(device->name, udev_sync);
    message(cat(device->name, ": removed what an interrupted opening of the set had left"));
    return std::nullopt;
}

std::string mapper_path(const std::string& name) {
    return "/dev/mapper/" + name;
}

/// What remaptab needs for a bare set's main that has moved.
std::string hiding_advice(const BlockDevice& main) {
    try {
        return cat("to be hidden and opened by itself from now on, the set needs main=",
                   identity_text(hideable_identity(main)),
                   " in its line in remaptab(5), and a new initramfs");
    } catch (const Error& error) {
        return cat("the set cannot be hidden and opened by itself any more: ", error.what());
    }
}

/// The main was named by the user, and lies on other hardware than before: from now on that is the
/// one to be taken of several.
void record_main(const Pair& pair, const Superblock& superblock, const Message& message) {
    try {
        const auto io = open_block_io(pair.spare.path, Mode::read_write);
        if (record_main_identity(*io, identify(pair.main))) {
            message(cat(pair.main.path, ": is recorded as the main of the set now"));
        }
    } catch (const IoError& error) {
        // No reason not to open it.
        message(cat("the new main could not be recorded: ", error.what()));
    }
    if (superblock.is_bare()) {
        message(hiding_advice(pair.main));
    }
}

/// Everything from the pair to the device.
void put_together(const OpenOptions& options, const Pair& pair, const Message& message) {
    require_unused(pair.spare.path);
    require_unused(pair.main.path);
    if (options.fsck) {
        check_before_open(pair, options, message);
    }
    const Superblock superblock = read_superblock(pair.spare.path, options.read_only);
    verify_pair(pair, superblock, options);
    if ((pair.main.read_only || pair.spare.read_only) && !options.read_only) {
        throw Error(Exit::usage, cat(pair.main.read_only ? pair.main.path : pair.spare.path,
                                     ": the device is read-only; open it with --read-only"));
    }
    if (options.main && !options.read_only && (!superblock.is_bare() || options.moved)) {
        record_main(pair, superblock, message);
    }
    require_same_devices(pair);
    dm::create(create_request(options, pair, superblock));
    forget_closed(superblock.head.set_uuid);
}

/// The device on that hardware that was not looked at because it is suspended.
std::optional<BlockDevice> suspended_on(const Identity& hardware, const MachineRoot& root) {
    for (const BlockDevice& device : list_block_devices(root)) {
        if (!device.is_partition && waits_for_resume(device, root) &&
            hardware.compare(identify(device, root)) == Identity::Match::same) {
            return device;
        }
    }
    return std::nullopt;
}

/// Of several devices that carry the same member the one on the right hardware. `recorded` says
/// what is the right one for a candidate.
std::optional<BlockDevice> only_one(const std::vector<SeenMember>& candidates, const Member& member,
                                    const Uuid& set, const std::string& hardware,
                                    const MachineRoot& root,
                                    const std::function<Identity(const SeenMember&)>& recorded) {
    if (candidates.empty()) {
        return std::nullopt;
    }
    const auto is_right = [&](const SeenMember& candidate) {
        return recorded(candidate).compare(identify(candidate.device, root)) ==
               Identity::Match::same;
    };
    if (candidates.size() == 1) {
        const SeenMember& only = candidates.front();
        // It may be the copy for which the member is suspended.
        const auto suspended = is_right(only) ? std::nullopt : suspended_on(recorded(only), root);
        if (suspended) {
            throw SuspendedError(cat("set ", set, ": ", suspended->path,
                                     " has the recorded hardware of ", role_name(member.role), " ",
                                     member.uuid, ", but is suspended; ", only.device.path,
                                     " may be a copy of it"));
        }
        return only.device;
    }
    std::vector<SeenMember> same;
    std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(same), is_right);
    if (same.size() == 1) {
        return same.front().device;
    }
    throw Error(
        Exit::unrecognised,
        cat("set ", set, ": ", device_names(candidates), " all claim to be ",
            role_name(member.role), " ", member.uuid, ", and ",
            same.empty() ? "none has" : cat(device_names(same), " have"),
            " the recorded hardware (", hardware,
            "); disconnect the copies (one disk that is seen twice needs multipath), or open the "
            "set by hand: remapsetup open --main MAIN SPARE NAME"));
}

/// What the mains that are there say of the spare that is not.
std::string known_of_spare(const Uuid& set, const std::vector<SeenMember>& seen) {
    std::string text;
    for (const SeenMember& member : seen) {
        if (member.info.set == set && member.info.role == REMAP_ROLE_MAIN && !member.info.newer) {
            text += cat(text.empty() ? " (" : "; ", "member ", member.info.partner, ", its main ",
                        member.device.path, " is there");
        }
    }
    return text.empty() ? text : text + ")";
}

/// The spare of a set. Of several each says itself on which hardware it belongs.
std::optional<BlockDevice> find_spare(const Uuid& set, const std::vector<SeenMember>& seen,
                                      const MachineRoot& root) {
    const auto wanted = choose_spare(seen, set);
    if (!wanted) {
        return std::nullopt;
    }
    std::vector<SeenMember> spares;
    std::copy_if(seen.begin(), seen.end(), std::back_inserter(spares),
                 [&](const SeenMember& member) {
                     return member.info.role == REMAP_ROLE_SPARE && member.info.set == set &&
                            !member.info.newer && member.info.member == *wanted;
                 });
    Member member;
    member.uuid = *wanted;
    member.role = REMAP_ROLE_SPARE;
    const auto recorded = [](const SeenMember& spare) {
        const auto io = open_block_io(spare.device.path, Mode::read_only);
        const Superblock superblock = load_superblock(*io);
        return recorded_identity(*superblock.member(REMAP_ROLE_SPARE));
    };
    return only_one(spares, member, set, "that each of them names", root, recorded);
}

std::optional<BlockDevice> find_bare_main(const Superblock& superblock, const MachineRoot& root,
                                          const std::optional<Identity>& listed) {
    const Identity recorded = recorded_identity(*superblock.member(REMAP_ROLE_MAIN));
    std::optional<BlockDevice> found;
    for (const BlockDevice& device : list_block_devices(root)) {
        if (recorded.compare(identify(device, root)) != Identity::Match::same ||
            device.size != recorded.size || (listed && !is_listed_main(*listed, device, root))) {
            continue;
        }
        if (found) {
            throw Error(Exit::unrecognised,
                        cat(set_text(superblock), ": ", found->path, " and ", device.path,
                            " both have the recorded hardware identity"));
        }
        found = device;
    }
    return found;
}

/// What is said of the main of a bare set whose spare is missing.
std::string main_is_hidden(const RemaptabEntry& entry, const MachineRoot& root) {
    std::string text;
    for (const BlockDevice& device : list_block_devices(root)) {
        if (looks_like_main(*listed_main(entry), device, root)) {
            text += cat("; its main ", device.path,
                        " is there, and hidden: without the spare nobody knows which of its "
                        "blocks are stale");
        }
    }
    return text;
}

/// Why a bare set is not opened by itself, and what its line needs.
std::string unlisted_main(const Uuid& set, const ChosenPair& chosen, const MachineRoot& root) {
    std::string text = cat("set ", set,
                           " is a bare set, and nothing hides its main: the line in remaptab(5) "
                           "needs main=");
    if (!chosen.main) {
        return text;
    }
    try {
        text +=
            cat(identity_text(hideable_identity(*chosen.main, root)), " for ", chosen.main->path);
    } catch (const Error& error) {
        text += cat(", but ", error.what());
    }
    return text;
}

// --- open --all -------------------------------------------------------------------------------

/// What became of an attempt to open one known set.
struct Attempt {
    enum class Outcome {
        open,
        missing,  ///< a member is not there; may change
        failed,
    };
    Outcome outcome = Outcome::open;
    std::string text;  ///< why it is not open
    Exit code = Exit::ok;
};

class Assembly {
  public:
    Assembly(const OpenAllOptions& options, const Message& message)
        : options_(options), message_(message) {}

    /// One look at all known sets; the number that is not open afterwards. With `missing` it is
    /// said why; else it is not yet of interest.
    std::size_t round(const std::vector<RemaptabEntry>& known, const Message* missing) {
        std::vector<RemaptabEntry> closed;
        for (const RemaptabEntry& entry : known) {
            if (const auto open = open_device(entry.set)) {
                if (missing != nullptr) {
                    report_suspended(*open, message_);
                }
            } else {
                closed.push_back(entry);
            }
        }
        if (closed.empty()) {
            return 0;
        }
        const std::vector<SeenMember> seen = scan_members(options_.root);
        std::size_t not_open = 0;
        for (const RemaptabEntry& entry : closed) {
            const Attempt attempt = try_set(entry, seen);
            if (attempt.outcome == Attempt::Outcome::open) {
                continue;
            }
            ++not_open;
            if (missing != nullptr) {
                const bool absent = attempt.outcome == Attempt::Outcome::missing;
                (absent ? *missing : message_)(cat(entry.name, ": ", attempt.text));
            }
        }
        return not_open;
    }

    /// The same for one set, which may be open.
    Attempt try_one(const RemaptabEntry& entry) {
        if (const auto open = open_device(entry.set)) {
            if (open->name != entry.name) {
                return {Attempt::Outcome::failed,
                        cat("set ", entry.set, " is open already as ", open->name),
                        Exit::operational};
            }
            message_(cat(entry.name, ": is open already"));
            report_suspended(*open, message_);
            return {};
        }
        return try_set(entry, scan_members(options_.root));
    }

  private:
    Attempt try_set(const RemaptabEntry& entry, const std::vector<SeenMember>& seen) {
        try {
            return open_known(entry, seen);
        } catch (const SuspendedError& error) {
            return {Attempt::Outcome::missing, error.what(), Exit::damage};
        } catch (const Error& error) {
            return {Attempt::Outcome::failed, error.what(), error.code()};
        } catch (const std::exception& error) {
            // What is on this set's disks must not keep the others from opening.
            return {Attempt::Outcome::failed, error.what(), Exit::operational};
        }
    }

    Attempt open_known(const RemaptabEntry& entry, const std::vector<SeenMember>& seen) {
        const auto listed = listed_main(entry);
        const ChosenPair chosen = choose_pair(entry.set, seen, options_.root, listed);
        if (chosen.bare && !listed) {
            throw Error(Exit::unrecognised, unlisted_main(entry.set, chosen, options_.root));
        }
        if (!chosen.missing.empty()) {
            const auto spare = chosen.spare ? std::nullopt : entry.value("spare");
            return {Attempt::Outcome::missing,
                    chosen.missing + (spare ? cat("; when it was made, it was ", *spare) : "") +
                        (listed && !chosen.spare ? main_is_hidden(entry, options_.root) : ""),
                    Exit::damage};
        }
        const BlockDevice& main = *chosen.main;
        const BlockDevice& spare = *chosen.spare;
        // Not sooner: many may wait for members at the same time.
        std::optional<AssemblyLock> lock;
        try {
            lock.emplace();
        } catch (const BusyError& error) {
            // Another set's disks are slow, or udev is: no fault of this one.
            return {Attempt::Outcome::missing, error.what(), Exit::operational};
        }
        if (open_device_at_last(entry.set, *lock, !options_.no_udev_sync, message_)) {
            return {};
        }
        OpenOptions open;
        open.name = entry.name;
        open.fsck = true;
        open.read_only = entry.has("read-only");
        open.fua = entry.has("fua");
        open.no_udev_sync = options_.no_udev_sync;
        put_together(open, {main, spare}, message_);
        message_(cat(entry.name, ": opened, main ", main.path, ", spare ", spare.path));
        return {};
    }

    const OpenAllOptions& options_;
    const Message& message_;
};

std::optional<Uuid> set_of(const dm::Device& device) {
    return Uuid::parse(std::string_view(device.uuid).substr(uuid_prefix.size()));
}

void report_problems(const Remaptab& tab, const CommandLine& command_line, const Message& message) {
    for (const auto* problems : {&tab.problems(), &command_line.problems}) {
        for (const std::string& problem : *problems) {
            message(problem);
        }
    }
}

bool all_open(const std::vector<RemaptabEntry>& sets) {
    return std::all_of(sets.begin(), sets.end(), [](const RemaptabEntry& entry) {
        return open_device(entry.set).has_value();
    });
}

Clock::time_point after(double seconds) {
    constexpr double for_good = 1e9;  // more would not fit
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(
                              std::chrono::duration<double>(std::min(seconds, for_good)));
}

/// Does a file system that no shutdown unmounts lie on that device?
bool carries_the_system(const dm::Device& device, const MachineRoot& root) {
    const auto block_device = find_block_device(device.devno, root);
    return block_device &&
           (file_lies_on("/", *block_device, root) || file_lies_on("/usr", *block_device, root));
}

}  // namespace

std::vector<SeenMember> scan_members(const MachineRoot& root) {
    std::vector<SeenMember> members;
    for (const BlockDevice& device : list_block_devices(root)) {
        // All sets would wait with whoever reads it, perhaps for ever.
        if (device.dm_uuid.compare(0, uuid_prefix.size(), uuid_prefix) == 0 ||
            waits_for_resume(device, root) || is_leg_of_another_device(device, root)) {
            continue;
        }
        try {
            const auto io = open_block_io(device.path, Mode::read_only);
            const auto info = probe_member(*io);
            if (info && !is_leg(*info, udev_property(device, "ID_FS_TYPE", root), device.size)) {
                members.push_back({device, *info});
            }
        } catch (const Error&) {
            // Card readers without a card, devices that vanished: no member.
            continue;
        }
    }
    return members;
}

std::optional<BlockDevice> choose_member(const std::vector<SeenMember>& seen, const Member& member,
                                         const Uuid& set, const MachineRoot& root) {
    std::vector<SeenMember> candidates;
    std::copy_if(seen.begin(), seen.end(), std::back_inserter(candidates),
                 [&](const SeenMember& other) {
                     return !other.info.newer && other.info.member == member.uuid &&
                            other.info.set == set && other.info.role == member.role;
                 });
    const Identity recorded = recorded_identity(member);
    return only_one(candidates, member, set, recorded.describe(), root,
                    [&recorded](const SeenMember&) { return recorded; });
}

std::optional<Uuid> choose_spare(const std::vector<SeenMember>& seen, const Uuid& set) {
    const auto in_set = [&set](const SeenMember& member, std::uint8_t role) {
        return member.info.role == role && member.info.set == set && !member.info.newer;
    };
    const auto has_main = [&](const SeenMember& spare) {
        return std::any_of(seen.begin(), seen.end(), [&](const SeenMember& main) {
            return in_set(main, REMAP_ROLE_MAIN) && main.info.partner == spare.info.member &&
                   main.info.member == spare.info.partner && main.info.nonce == spare.info.nonce;
        });
    };
    std::vector<SeenMember> spares;
    std::copy_if(seen.begin(), seen.end(), std::back_inserter(spares),
                 [&](const SeenMember& member) { return in_set(member, REMAP_ROLE_SPARE); });
    if (spares.empty()) {
        return std::nullopt;
    }
    const auto one_member = [](const std::vector<SeenMember>& members) {
        return std::all_of(members.begin(), members.end(), [&](const SeenMember& other) {
            return other.info.member == members.front().info.member;
        });
    };
    if (one_member(spares)) {
        return spares.front().info.member;
    }
    std::vector<SeenMember> named;
    std::copy_if(spares.begin(), spares.end(), std::back_inserter(named), has_main);
    if (!named.empty() && one_member(named)) {
        return named.front().info.member;
    }
    throw Error(Exit::unrecognised,
                cat("set ", set, ": ", device_names(spares), " are different spares of it, and ",
                    named.empty() ? "none" : "more than one",
                    " has its main here; disconnect what does not belong to the set"));
}

ChosenPair choose_pair(const Uuid& set, const std::vector<SeenMember>& seen,
                       const MachineRoot& root, const std::optional<Identity>& listed) {
    ChosenPair chosen;
    chosen.spare = find_spare(set, seen, root);
    if (!chosen.spare) {
        chosen.missing = cat("the spare of set ", set, " is missing", known_of_spare(set, seen));
        return chosen;
    }
    const auto io = open_block_io(chosen.spare->path, Mode::read_only);
    const Superblock superblock = load_superblock(*io);
    const Member& member = *superblock.member(REMAP_ROLE_MAIN);
    chosen.bare = superblock.is_bare();
    chosen.main = chosen.bare ? find_bare_main(superblock, root, listed)
                              : choose_member(seen, member, set, root);
    if (!chosen.main) {
        chosen.missing = cat("the main of ", set_text(superblock), " is missing (",
                             member_text(member), "); its spare ", chosen.spare->path, " is there");
        if (superblock.head.state != REMAP_STATE_COMPLETE) {
            chosen.missing +=
                cat("; it was being adopted or released: \"remap-fsck -p --main MAIN ",
                    chosen.spare->path, "\" ends that");
        }
    }
    return chosen;
}

BlockDevice find_main(const std::string& spare, const Superblock& superblock,
                      const MachineRoot& root) {
    const Member& member = *superblock.member(REMAP_ROLE_MAIN);
    if (superblock.is_bare()) {
        throw Error(Exit::usage, cat(spare,
                                     ": its main carries no label (bare set); name it with "
                                     "--main"));
    }
    const auto main = choose_member(scan_members(root), member, superblock.head.set_uuid, root);
    if (!main) {
        throw Error(Exit::unrecognised,
                    cat(spare, ": the main of ", set_text(superblock), " was not found (",
                        member_text(member), "); name it with --main"));
    }
    return *main;
}

std::string open_set(const OpenOptions& options, const Message& message) {
    if (!valid_device_name(options.name)) {
        throw Error(Exit::usage, cat("\"", options.name, "\" is not a valid device name"));
    }
    const AssemblyLock lock;
    const BlockDevice spare = require_block_device(options.spare);
    if (options.main) {
        require_block_device(*options.main);
    }
    Superblock superblock;
    {
        const auto io = open_block_io(options.spare, Mode::read_only);
        superblock = options.fsck ? load_superblock(*io) : require_openable(*io, options.read_only);
    }
    if (const auto open =
            open_device_at_last(superblock.head.set_uuid, lock, !options.no_udev_sync, message)) {
        if (open->name == options.name) {
            message(cat(options.name, ": is open already"));
            return mapper_path(options.name);
        }
        throw BusyError(
            cat(options.spare, ": ", set_text(superblock), " is open already as ", open->name));
    }
    if (dm::find_name(options.name)) {
        throw BusyError(cat(options.name, ": another device has this name already"));
    }
    const BlockDevice main =
        options.main ? require_block_device(*options.main) : find_main(options.spare, superblock);
    if (main.devno == spare.devno) {
        throw Error(Exit::usage, cat(main.path, ": main and spare are the same device"));
    }
    put_together(options, {main, spare}, message);
    return mapper_path(options.name);
}

Exit open_all(const OpenAllOptions& options, const Message& message, const Message& missing) {
    const CommandLine command_line = running_command_line(options.root.proc);
    const Remaptab tab = Remaptab::load(options.remaptab);
    std::vector<RemaptabEntry> known = known_sets(tab, command_line);
    if (options.only_bare) {
        std::erase_if(known, [](const RemaptabEntry& entry) {
            return !entry.has("main") || entry.has("nofail");
        });
        if (known.empty()) {
            return Exit::ok;
        }
    }
    if (command_line.disabled) {
        message("rd.remap=0 on the kernel command line: nothing is opened");
        return options.only_bare && !all_open(known) ? Exit::damage : Exit::ok;
    }
    report_problems(tab, command_line, message);
    if (known.empty()) {
        missing(cat("no set is listed in ", options.remaptab,
                    " or named by rd.remap.uuid=; nothing is opened"));
        return Exit::ok;
    }
    Assembly assembly(options, message);
    DeviceEvents events(options.root.udev_db);
    const auto deadline = after(options.wait_seconds.value_or(0));
    for (;;) {
        const bool last = Clock::now() >= deadline;
        if (assembly.round(known, last ? &missing : nullptr) == 0) {
            return Exit::ok;
        }
        if (last) {
            return Exit::damage;
        }
        events.wait(look_again);
    }
}

void open_listed(const std::string& name, const OpenAllOptions& options, const Message& message) {
    // An event that comes while an attempt fails may be that of the right member.
    constexpr std::chrono::milliseconds linger{500};
    // A repair that was tried in vain makes such an event itself.
    constexpr unsigned int max_failures = 3;
    const CommandLine command_line = running_command_line(options.root.proc);
    const Remaptab tab = Remaptab::load(options.remaptab);
    const RemaptabEntry entry = set_named(name, tab, command_line);
    report_problems(tab, command_line, message);
    const double seconds =
        options.wait_seconds.value_or(entry.timeout().value_or(default_member_timeout));
    const bool for_ever = !options.wait_seconds && seconds == 0;
    const auto deadline = after(seconds);
    Assembly assembly(options, message);
    DeviceEvents events(options.root.udev_db);
    std::string said;
    unsigned int failures = 0;
    int last_looks = 3;
    for (;;) {
        const bool last = !for_ever && Clock::now() >= deadline;
        const Attempt attempt = assembly.try_one(entry);
        if (attempt.outcome == Attempt::Outcome::open) {
            return;
        }
        const bool absent = attempt.outcome == Attempt::Outcome::missing;
        failures += absent ? 0 : 1;
        if (absent ? !last : !last && failures < max_failures && events.wait(linger)) {
            if (attempt.text != said) {
                message(cat(name, ": ", attempt.text, absent ? "; waiting for it" : ""));
                said = attempt.text;
            }
            if (absent) {
                events.wait(look_again);
            }
            continue;
        }
        // It may have come while this looked for it, and this unit's start is all that its event
        // could ask for.
        if (absent && last_looks-- > 0 && events.wait(std::chrono::milliseconds{0})) {
            continue;
        }
        throw Error(attempt.code, cat(name, ": not opened: ", attempt.text,
                                      absent ? "; it is opened when that member appears" : ""));
    }
}

void close_set(const std::string& name, bool udev_sync) {
    const auto device = dm::find_name(name);
    if (!device) {
        throw Error(Exit::unrecognised, cat(name, ": no such device-mapper device"));
    }
    if (device->uuid.compare(0, uuid_prefix.size(), uuid_prefix) != 0) {
        throw Error(Exit::unrecognised, cat(name, ": expected a remap device, found one with UUID ",
                                            device->uuid.empty() ? "none" : device->uuid));
    }
    // Before: a member's event that finds it closed must not open it again.
    const auto set = set_of(*device);
    if (set) {
        remember_closed(*set);
    }
    try {
        dm::remove(name, udev_sync);
    } catch (...) {
        if (set) {
            forget_closed(*set);
        }
        throw;
    }
}

void close_all(const OpenAllOptions& options, const Message& message) {
    const Remaptab tab = Remaptab::load(options.remaptab);
    for (const dm::Device& device : dm::list_devices()) {
        const auto set = set_of(device);
        const RemaptabEntry* entry = set ? tab.find(*set) : nullptr;
        if ((entry != nullptr && entry->has("x-initrd.attach")) ||
            carries_the_system(device, options.root)) {
            continue;
        }
        try {
            require_unused(mapper_path(device.name));
            dm::remove(device.name, !options.no_udev_sync);
            message(cat(device.name, ": closed"));
        } catch (const Error& error) {
            // The others are to be closed all the same.
            message(cat(device.name, ": left open: ", error.what()));
        }
    }
}

}  // namespace remap
