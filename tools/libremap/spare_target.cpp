// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/spare_target.hpp"

#include <sys/stat.h>

#include "libremap/error.hpp"
#include "libremap/identity.hpp"
#include "libremap/metadata.hpp"
#include "libremap/older_format.hpp"
#include "libremap/probe.hpp"
#include "libremap/text.hpp"

namespace remap {

std::unique_ptr<BlockIo> open_spare_target(const std::string& path) {
    std::string users;

    for (const std::string& user : users_of(path))
        users += cat(users.empty() ? "" : "; ", user);
    if (!users.empty())
        throw BusyError(cat(path, ": in use: ", users));
    return open_block_io(path, Mode::read_write);
}

TargetContent content_of_target(BlockIo& target) {
    TargetContent content;
    const auto add = [&content](const std::string& what) {
        content.anything = true;
        content.description += cat(content.description.empty() ? "" : ", ", what);
    };
    const auto member = probe_member(target);
    const SuperblockScan scan = scan_superblocks(target);

    content.usable = scan.winner.has_value();
    content.is_main = member && member->role == REMAP_ROLE_MAIN;
    if (member && member->newer)
        add("a member of a set in a newer format");
    else if (member)
        content.set = member->set;
    else if (scan.winner || scan.majority)
        content.set = (scan.winner ? scan.winner : scan.majority)->head.set_uuid;
    if (content.set)
        add(cat("the ", content.is_main ? "main" : "spare", " of set ", *content.set));
    else if (scan.newer_version || scan.ambiguous || scan.conflict)
        add(explain(scan));
    if (const auto older = recognise_older(target))
        add(cat("metadata of the older project (", older_kind_name(*older), ")"));
    if (const auto signatures = signatures_on(target); !signatures.empty())
        add(describe(signatures));
    return content;
}

void refuse_without_force(const std::string& device, const std::string& what) {
    throw Error(Exit::usage, cat(device, ": is ", what, "; --force overwrites it"));
}

bool same_device(const std::string& a, const std::string& b) {
    struct stat first {};
    struct stat second {};

    if (stat(a.c_str(), &first) != 0 || stat(b.c_str(), &second) != 0)
        return false;
    if (S_ISBLK(first.st_mode) && S_ISBLK(second.st_mode))
        return first.st_rdev == second.st_rdev;
    return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace remap
