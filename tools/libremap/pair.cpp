// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/pair.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "libremap/adopt.hpp"
#include "libremap/error.hpp"
#include "libremap/metadata.hpp"
#include "libremap/probe.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

Error unrecognised(const std::string& device, const std::string& why) {
    return {Exit::unrecognised, cat(device, ": ", why)};
}

/// What the label places of a main hold.
struct Labels {
    std::vector<Label> of_this_set;
    std::optional<Label> foreign;
    std::uint64_t foreign_sector = 0;
    std::size_t unreadable = 0;
    bool newer = false;
};

bool is_of_set(const Label& label, const Superblock& superblock) {
    const Head& head = label.head;
    return head.set_uuid == superblock.head.set_uuid && head.nonce == superblock.head.nonce &&
           head.member_uuid == superblock.head.partner_uuid &&
           head.partner_uuid == superblock.head.member_uuid;
}

Labels read_labels(BlockIo& main, const Superblock& superblock) {
    Labels labels;
    for (const std::uint64_t sector : superblock.label_sector) {
        std::vector<std::uint8_t> bytes(superblock.block_size());
        if (main.try_read(sector, bytes) != 0) {
            ++labels.unreadable;
            continue;
        }
        const auto decoded = decode_label(ConstBytes(bytes).first(REMAP_LABEL_SIZE), sector);
        labels.newer = labels.newer || decoded.verdict == Verdict::newer_version;
        if (!decoded.valid()) {
            continue;
        }
        if (is_of_set(decoded.value, superblock)) {
            labels.of_this_set.push_back(decoded.value);
        } else {
            labels.foreign = decoded.value;
            labels.foreign_sector = sector;
        }
    }
    return labels;
}

/// Why there is no label of this set, in the words that help most.
Error missing_label(BlockIo& main, const std::string& spare, const Superblock& superblock,
                    const Labels& labels) {
    const Uuid& set = superblock.head.set_uuid;
    if (labels.newer) {
        return {Exit::operational,
                cat(main.name(), ": its label is in a newer format than this program knows")};
    }
    if (labels.foreign) {
        const Head& head = labels.foreign->head;
        const bool same_set = head.set_uuid == set;
        return unrecognised(
            main.name(), cat("sector ", labels.foreign_sector, ": expected the label of set ", set,
                             " (", spare, "), found that of ",
                             same_set ? cat("an earlier life of this set or of another pair in it")
                                      : cat("set ", head.set_uuid)));
    }
    if (labels.unreadable == superblock.label_sector.size()) {
        return {Exit::operational,
                cat(main.name(), ": none of the ", labels.unreadable,
                    " places for the label can be read; if it is the main of set ", set,
                    ", give --no-label to \"remapsetup open --main\" or \"remapsetup release "
                    "--to\"")};
    }
    return unrecognised(main.name(),
                        cat("expected the label of set ", set, " (", spare, "), found none"));
}

/// Instead of the label the hardware has to tell.
void require_hardware(const BlockIo& main, const Superblock& superblock, const Identity& identity) {
    const Identity recorded = recorded_identity(*superblock.member(REMAP_ROLE_MAIN));
    if (recorded.compare(identity) != Identity::Match::same) {
        throw unrecognised(main.name(),
                           cat("no label can be read, and the hardware does not tell that it is "
                               "the main of set ",
                               superblock.head.set_uuid, ": expected ", recorded.describe(),
                               ", found ", identity.describe()));
    }
}

void require_epoch(BlockIo& main, const std::string& spare, const Superblock& superblock,
                   const Labels& labels) {
    const auto newest =
        std::max_element(labels.of_this_set.begin(), labels.of_this_set.end(),
                         [](const Label& a, const Label& b) { return a.epoch < b.epoch; });
    if (newest->epoch > superblock.epoch) {
        throw unrecognised(spare,
                           cat("is an old copy: its epoch is ", superblock.epoch, ", the label on ",
                               main.name(), " is of epoch ", newest->epoch));
    }
    if (newest->epoch < superblock.label_epoch) {
        throw unrecognised(main.name(),
                           cat("is an old copy: its label is of epoch ", newest->epoch,
                               ", the spare ", spare, " knows epoch ", superblock.label_epoch));
    }
}

}  // namespace

Identity recorded_identity(const Member& member) {
    return {member.wwn, member.serial, member.partuuid, member.size};
}

Superblock require_openable(BlockIo& spare, bool read_only) {
    Superblock superblock;
    try {
        superblock = load_superblock(spare);
    } catch (const Error&) {
        const auto member = probe_member(spare);
        if (member && !member->newer && member->role == REMAP_ROLE_MAIN) {
            throw unrecognised(spare.name(), cat("expected a spare, found the main of set ",
                                                 member->set, "; are main and spare swapped?"));
        }
        throw;
    }
    if (const auto problem = check_geometry(superblock, spare.size())) {
        throw unrecognised(spare.name(), cat(problem->field, ": expected ", problem->expected,
                                             ", found ", problem->found));
    }
    if (superblock.head.state != REMAP_STATE_COMPLETE) {
        throw unrecognised(spare.name(),
                           cat("set ", superblock.head.set_uuid,
                               ": expected state complete, "
                               "found ",
                               set_state_name(superblock.head.state),
                               "; \"remap-fsck -p --main MAIN ", spare.name(), "\" finishes it"));
    }
    if ((superblock.head.ro_compat & ~REMAP_RO_COMPAT_KNOWN) != 0 && !read_only) {
        throw Error(Exit::operational, cat(spare.name(),
                                           ": has features that this program may "
                                           "not write; --read-only opens it"));
    }
    return superblock;
}

void require_pair(BlockIo& main, const std::string& spare, const Superblock& superblock,
                  const Identity& identity, bool no_label) {
    const auto member = probe_member(main);
    if (member && member->role == REMAP_ROLE_SPARE && !member->newer) {
        throw unrecognised(main.name(), cat("expected the main of set ", superblock.head.set_uuid,
                                            ", found the spare of set ", member->set,
                                            "; are main and spare swapped?"));
    }
    if (main.size() < superblock.main_size) {
        throw unrecognised(main.name(), cat("shorter than recorded: expected at least ",
                                            superblock.main_size, " sectors, found ", main.size()));
    }
    if (main.logical_block_size() > superblock.block_size()) {
        throw unrecognised(main.name(),
                           cat("expected logical blocks of at most ", superblock.block_size(),
                               " bytes, found ", main.logical_block_size()));
    }
    if (superblock.is_bare()) {
        if (member && member->newer) {
            throw Error(Exit::operational,
                        cat(main.name(),
                            ": has a label in a newer format than this program knows, "
                            "and cannot be the main of bare set ",
                            superblock.head.set_uuid));
        }
        if (member) {
            throw unrecognised(main.name(),
                               cat("expected the main of bare set ", superblock.head.set_uuid,
                                   ", which has no label, found a member of set ", member->set));
        }
        const Identity recorded = recorded_identity(*superblock.member(REMAP_ROLE_MAIN));
        if (recorded.compare(identity) == Identity::Match::different) {
            throw unrecognised(
                main.name(),
                cat("is not the main of bare set ", superblock.head.set_uuid, ": expected ",
                    recorded.describe(), ", found ", identity.describe(),
                    "; if it is a copy of that main, \"remapsetup open --main ", main.name(),
                    " --moved\" takes it"));
        }
        return;
    }
    const Labels labels = read_labels(main, superblock);
    if (no_label && labels.unreadable == superblock.label_sector.size()) {
        require_hardware(main, superblock, identity);
        return;
    }
    if (labels.of_this_set.empty()) {
        throw missing_label(main, spare, superblock, labels);
    }
    require_epoch(main, spare, superblock, labels);
}

bool record_main_identity(BlockIo& spare, const Identity& identity) {
    Superblock superblock = load_superblock(spare);
    const auto member =
        std::find_if(superblock.members.begin(), superblock.members.end(),
                     [](const Member& each) { return each.role == REMAP_ROLE_MAIN; });
    if (member == superblock.members.end() || identity.empty() ||
        recorded_identity(*member).compare(identity) == Identity::Match::same) {
        return false;
    }
    member->wwn = identity.wwn;
    member->serial = identity.serial;
    member->partuuid = identity.partuuid;
    // The size stays: it says how long the main was, and with it the set, when it was adopted.
    write_superblock(spare, next_superblock(spare, superblock));
    return true;
}

}  // namespace remap
