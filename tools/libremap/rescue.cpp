// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/rescue.hpp"

#include <algorithm>
#include <ctime>

#include "libremap/assemble.hpp"
#include "libremap/error.hpp"
#include "libremap/payload.hpp"
#include "libremap/places.hpp"
#include "libremap/probe.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// The contents of neighbouring hidden blocks in a file.
ConstBytes content_of(const HiddenContent& content, const BlockRun& run) {
    const auto it = std::lower_bound(content.blocks.begin(), content.blocks.end(), run.start);
    const auto index = static_cast<std::size_t>(it - content.blocks.begin());
    return ConstBytes(content.bytes)
        .subspan(index * content.block_bytes, run.count * content.block_bytes);
}

/// Does the device hold that already?
bool holds(MainBlocks& main, std::uint64_t block, ConstBytes expected) {
    std::vector<std::uint8_t> there(main.bytes());
    return main.try_read(block, there) == 0 &&
           std::equal(there.begin(), there.end(), expected.begin());
}

/// Replicas of the signature that the file has for the payload: to be restored after it.
std::set<std::uint64_t> replicas_in(BlockIo& main, const RescueFile& file) {
    const Superblock& superblock = file.superblock;
    const auto hidden = hidden_blocks_of(superblock);
    const std::uint64_t block_sectors = superblock.block_sectors();
    const PayloadReader read = [&](std::uint64_t sector, Bytes to) {
        for (std::size_t done = 0; done < to.size(); done += sector_size, ++sector) {
            const Bytes part = to.subspan(done, sector_size);
            const std::uint64_t block = sector / block_sectors;
            if (hidden.count(block) == 0) {
                if (main.try_read(sector, part) != 0) {
                    return false;
                }
                continue;
            }
            const ConstBytes from = content_of(file.content, {block, 1})
                                        .subspan(sector % block_sectors * sector_size, sector_size);
            std::copy(from.begin(), from.end(), part.begin());
        }
        return true;
    };
    std::set<std::uint64_t> replicas;
    for (const ByteRange& range : replicas_of(read, superblock.main_size)) {
        hide_bytes(superblock, replicas, range);
    }
    replicas.erase(deciding_block(superblock));
    return replicas;
}

/// Writes, flushes and reads back; the blocks that failed.
std::set<std::uint64_t> put(MainBlocks& main, const RescueFile& file,
                            const std::set<std::uint64_t>& blocks, Observer& observer) {
    std::uint64_t done = 0;
    const auto runs = runs_of(blocks, main.chunk());
    for (const BlockRun& run : runs) {
        // Whether it failed shows when it is read back.
        if (main.try_write(run.start, content_of(file.content, run)) != 0) {
            for (std::uint64_t i = 0; i < run.count; ++i) {
                static_cast<void>(
                    main.try_write(run.start + i, content_of(file.content, {run.start + i, 1})));
            }
        }
        observer.progress("restoring", done += run.count, 2 * blocks.size());
    }
    main.io().flush();
    std::set<std::uint64_t> failed;
    for (const std::uint64_t block : blocks) {
        if (!holds(main, block, content_of(file.content, {block, 1}))) {
            failed.insert(block);
        }
        observer.progress("restoring", ++done, 2 * blocks.size());
    }
    return failed;
}

std::string date(std::uint64_t seconds) {
    const auto time = static_cast<std::time_t>(seconds);
    std::tm broken{};
    char text[32] = "?";
    if (::gmtime_r(&time, &broken) != nullptr) {
        static_cast<void>(std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M UTC", &broken));
    }
    return text;
}

}  // namespace

RescuePlan plan_rescue(BlockIo& main, const RescueFile& file) {
    const Superblock& superblock = file.superblock;
    const Uuid& set = superblock.head.set_uuid;
    if (main.size() < superblock.main_size) {
        throw Error(Exit::unrecognised,
                    cat(main.name(), ": too small for the main of set ", set, ": expected ",
                        superblock.main_size, " sectors, found ", main.size()));
    }
    if (main.logical_block_size() > superblock.block_size()) {
        throw Error(Exit::unrecognised,
                    cat(main.name(), ": expected logical blocks of at most ",
                        superblock.block_size(), " bytes, found ", main.logical_block_size()));
    }
    MainBlocks blocks(main, superblock.block_sectors());
    RescuePlan plan;
    std::size_t ours = 0;
    for (const std::uint64_t block : hidden_blocks_of(superblock)) {
        const Place place = look_at_place(blocks, superblock, block);
        ours += place == Place::ours ? 1 : 0;
        if (place == Place::ours || place == Place::unreadable) {
            plan.to_restore.insert(block);
        } else if (holds(blocks, block, content_of(file.content, {block, 1}))) {
            plan.same.insert(block);
        } else {
            plan.other.insert(block);
        }
    }
    // What was interrupted has the label left in the place that decides, or no label any more but
    // all that the file has, but for replicas.
    if (ours == 0 && (plan.same.empty() || !plan.other.empty())) {
        throw Error(Exit::unrecognised,
                    cat(main.name(), ": carries no label of set ", set,
                        ", which the rescue file is of; nothing is restored on it"));
    }
    const std::uint64_t deciding = deciding_block(superblock);
    if (plan.other.count(deciding) != 0) {
        throw Error(Exit::unrecognised,
                    cat(main.name(), ": sector ", blocks.sector(deciding),
                        ": expected the label of set ", set,
                        ", found something else: the device has been written to directly, or is of "
                        "another life of the set; nothing is restored on it"));
    }
    return plan;
}

std::set<std::uint64_t> restore_hidden(BlockIo& main, const RescueFile& file,
                                       const RescuePlan& plan, Observer& observer) {
    MainBlocks blocks(main, file.superblock.block_sectors());
    const std::uint64_t deciding = deciding_block(file.superblock);
    std::set<std::uint64_t> first = plan.to_restore;
    std::set<std::uint64_t> last;
    for (const std::uint64_t block : replicas_in(main, file)) {
        if (first.erase(block) != 0) {
            last.insert(block);
        }
    }
    const bool decide = first.erase(deciding) != 0;
    std::set<std::uint64_t> failed = put(blocks, file, first, observer);
    if (decide && !put(blocks, file, {deciding}, observer).empty()) {
        throw Error(Exit::operational,
                    cat(main.name(), ": sector ", blocks.sector(deciding),
                        ": cannot be written, and the payload is not found without it; copy the "
                        "device to a healthy disk with ddrescue(1) and do this there"));
    }
    failed.merge(put(blocks, file, last, observer));
    return failed;
}

RescueJob::RescueJob(RescueOptions options) : options_(std::move(options)) {
    if (options_.write && !options_.rescue_file) {
        throw Error(Exit::usage, "--write restores from a rescue file; name it with --rescue-file");
    }
    main_ = open_block_io(options_.main, options_.write ? Mode::read_write : Mode::read_only);
    const auto member = probe_member(*main_);
    if (member && member->newer) {
        throw Error(Exit::operational,
                    cat(options_.main, ": its label is in a newer format than this program knows"));
    }
    if (member && member->role != REMAP_ROLE_MAIN) {
        throw Error(Exit::unrecognised,
                    cat(options_.main, ": expected a main, found the spare of set ", member->set));
    }
    if (options_.rescue_file) {
        file_ = read_rescue_file(*options_.rescue_file);
        plan_ = plan_rescue(*main_, *file_);
        refuse_if_spare_is_there(file_->superblock.head.set_uuid);
        describe_restoring();
        return;
    }
    if (!member) {
        throw Error(Exit::unrecognised, cat(options_.main, ": carries no label of a set"));
    }
    refuse_if_spare_is_there(member->set);
    report_ = cat(options_.main, ": the main of set ", member->set,
                  "; without its spare and without a rescue file (--rescue-file) this is what the "
                  "data itself offers:\n");
    describe_backups();
}

void RescueJob::refuse_if_spare_is_there(const Uuid& set) const {
    if (!main_->is_block_device()) {
        return;
    }
    for (const SeenMember& member : scan_members(options_.machine)) {
        if (!member.info.newer && member.info.role == REMAP_ROLE_SPARE && member.info.set == set) {
            throw Error(Exit::usage,
                        cat(member.device.path, ": is the spare of set ", set,
                            " and has all of its data; repair it with remap-fsck(8), or use "
                            "\"remapsetup release\""));
        }
    }
}

void RescueJob::describe_restoring() {
    const Superblock& superblock = file_->superblock;
    const std::uint64_t kib = plan_.to_restore.size() * superblock.block_size() / 1024;
    report_ = cat(options_.main, ": the main of set ", superblock.head.set_uuid, "; ", kib,
                  " KiB that were hidden are to be restored as they were on ",
                  date(superblock.created), ".\n");
    if (!plan_.same.empty()) {
        report_ += cat(plan_.same.size(), " blocks hold that already.\n");
    }
    if (!plan_.other.empty()) {
        report_ += cat("Left alone, because they hold something else: blocks ",
                       block_list(plan_.other), ".\n");
    }
    if (!file_->content.lost.empty()) {
        report_ += cat("Could not be read when the file was made, and become zeroes: blocks ",
                       block_list(file_->content.lost), ".\n");
    }
    report_ +=
        "What was written there since then is lost, and sectors that had been remapped hold what "
        "they held before they failed, or nothing: check the data before it is used.\n";
}

void RescueJob::describe_backups() {
    const auto backups = find_backups(*main_, options_.main, options_.host_root);
    for (const Backup& backup : backups) {
        report_ += cat(backup.text, "\n");
        for (const std::string& command : backup.commands) {
            report_ += cat("    ", command, "\n");
        }
    }
    if (backups.empty()) {
        report_ +=
            "nothing was found: F2FS, swap, MD, ZFS and LUKS with default headers keep nothing "
            "outside the hidden places; look for a rescue file, or for a backup of the header\n";
    } else {
        report_ +=
            "Copy the device first (ddrescue): what these commands write cannot be undone.\n";
    }
}

RescueResult RescueJob::run(Observer& observer) {
    RescueResult result;
    result.failed = restore_hidden(*main_, file_.value(), plan_, observer);
    const auto seen = signatures_on(*main_);
    if (!seen.empty()) {
        result.commands = checks_after_rescue(seen.front().type, options_.main);
    }
    return result;
}

}  // namespace remap
