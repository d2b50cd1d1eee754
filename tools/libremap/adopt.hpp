// SPDX-License-Identifier: GPL-2.0-or-later
//
// Putting a main under dm-remap with its data in place, and bringing to an end what a power cut
// left half done. The order of writes is that of docs/design.md: everything on the spare first,
// then one sector on the main that decides, then the rest.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/error.hpp"
#include "libremap/format.hpp"
#include "libremap/identity.hpp"
#include "libremap/observer.hpp"
#include "libremap/payload.hpp"
#include "libremap/places.hpp"
#include "libremap/probe.hpp"
#include "libremap/uuid.hpp"

namespace remap {

struct AdoptRequest {
    std::uint32_t block_size = sector_size;  ///< bytes: 512 or 4096
    bool bare = false;                       ///< no label, nothing hidden
    bool zfs = false;                        ///< hide the places of ZFS as well
    std::string label;                       ///< UTF-8, at most 64 bytes
    std::optional<Uuid> set;                 ///< the set's UUID; not given: a random one
    Payload payload;                         ///< not looked at for a bare set
    Identity main_identity;
    Identity spare_identity;
    std::uint64_t now = 0;  ///< unix seconds
};

/// Everything that is decided before the first write.
struct AdoptPlan {
    Superblock superblock;          ///< state: adopting (bare: complete)
    std::set<std::uint64_t> vital;  ///< main blocks that must be writable
    /// Of these, those that are hidden before the deciding one.
    std::set<std::uint64_t> replicas;
    std::vector<ByteRange> wipe;   ///< on the spare
    std::uint32_t entry_time = 0;  ///< unix seconds
    /// Slots left free at the start of the data area, so that what is copied there does not lie
    /// where it would be recognised on the raw spare.
    std::uint64_t skip_slots = 0;
};

/// Chooses hidden extents, label places and layout. Reads both devices, writes nothing. Throws
/// Error when the main or the spare is too small, or when something would still be recognised on
/// either of them.
AdoptPlan plan_adoption(BlockIo& main, BlockIo& spare, const AdoptRequest& request);

struct AdoptResult {
    Superblock superblock;            ///< as it is on the spare now
    std::set<std::uint64_t> exposed;  ///< hidden blocks that could not be overwritten on the main
    std::set<std::uint64_t> lost;     ///< hidden blocks that could not be read
    std::uint64_t bad_slots = 0;      ///< slots of the spare that failed at once
};

/// Called with the superblock and the contents of the hidden blocks before anything is changed;
/// writes the rescue file.
using RescueWriter = std::function<void(const Superblock&, const HiddenContent&)>;

/// Carries out the plan. Throws Error; up to the deciding write nothing on the main has changed
/// then, and after it adopt_recover() finishes. Whatever it throws, the rescue file has to stay:
/// the test of the places writes to a failing disk already, and later the spare may have died.
/// `deciding` is called when the set is on the spare and the next write may make it complete; it
/// must not throw.
AdoptResult adopt(BlockIo& main, BlockIo& spare, const AdoptPlan& plan, const RescueWriter& rescue,
                  Observer& observer, const std::function<void()>& deciding = {});

enum class Recovery {
    nothing_to_do,  ///< the set is complete
    finished,       ///< the set is complete now
    rolled_back,    ///< there is no set any more; the main is as if there never had been one
};

struct RecoveryResult {
    Recovery outcome = Recovery::nothing_to_do;
    std::string text;                 ///< what was found and done, for the user
    std::set<std::uint64_t> exposed;  ///< after finishing: as in AdoptResult
};

/// Ends an adoption or a release that was interrupted: if the deciding sector of the main holds
/// label or filler, or cannot be read, by hiding everything and declaring the set complete;
/// otherwise by restoring the places that still hold label or filler, and wiping the superblocks.
/// A main that is not plausibly the one of the set, by its label, its hardware or its contents, is
/// refused. Throws Error (unrecognised) for what is not ours or not
/// this main, and IoError; calling it again is always safe.
RecoveryResult adopt_recover(BlockIo& main, BlockIo& spare);

/// The deciding sector could not be overwritten and still holds the payload's: "before".
class NotDecided : public Error {
  public:
    explicit NotDecided(const std::string& text) : Error(Exit::operational, text) {}
};

/// Hides everything (again) and declares the set complete: the common end of adoption, of its
/// recovery, and of a release that is given up. Returns the exposed blocks. Throws NotDecided if
/// the deciding sector still holds the payload's, Error if no label place could be written, or the
/// superblock could not.
std::set<std::uint64_t> finish_adoption(BlockIo& main, BlockIo& spare, Superblock& superblock,
                                        Observer& observer);

/// The superblock with the next generation, for a change of it.
Superblock next_superblock(BlockIo& spare, Superblock superblock);

}  // namespace remap
