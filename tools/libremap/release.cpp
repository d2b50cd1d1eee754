// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/release.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <set>

#include "libremap/adopt.hpp"
#include "libremap/assemble.hpp"
#include "libremap/error.hpp"
#include "libremap/metadata.hpp"
#include "libremap/pair.hpp"
#include "libremap/payload.hpp"
#include "libremap/places.hpp"
#include "libremap/probe.hpp"
#include "libremap/remaptab.hpp"
#include "libremap/spare_target.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr const char* copy_instead =
    "\"remapsetup release --to DEV\" copies the data to a healthy device and leaves the set as it "
    "is";

/// One release of a set that is mapped as its table says.
class Release {
  public:
    Release(BlockIo& main, BlockIo& spare, Superblock superblock, Observer& observer)
        : blocks_(main, superblock.block_sectors()),
          spare_(spare),
          superblock_(std::move(superblock)),
          observer_(observer),
          view_(main, spare, superblock_),
          mappings_(view_.mappings()) {}

    /// Blocks whose contents nobody has.
    const std::set<std::uint64_t>& lost() const { return view_.lost(); }

    /// Writes everything back and wipes the superblocks, or makes the set complete again and
    /// throws. Returns the number of blocks.
    std::uint64_t run() {
        superblock_.head.state = REMAP_STATE_RELEASING;
        superblock_ = next_superblock(spare_, superblock_);
        write_superblock(spare_, superblock_);

        std::set<std::uint64_t> hidden = hidden_blocks_of(superblock_);
        std::set<std::uint64_t> plain;
        for (const auto& [block, mapping] : mappings_) {
            if (hidden.count(block) == 0) {
                plain.insert(block);
            }
        }
        total_ = 2 * (plain.size() + hidden.size());
        // What is most likely to fail goes first: then the label has not been touched yet.
        put_back_all(plain);
        const std::uint64_t written = plain.size() + hidden.size();
        if (!superblock_.is_bare()) {
            const std::uint64_t deciding = deciding_block(superblock_);
            const std::set<std::uint64_t> late = late_blocks(hidden);
            hidden.erase(deciding);
            for (const std::uint64_t block : late) {
                hidden.erase(block);
            }
            put_back_all(hidden);
            const std::vector<RunContent> contents = contents_of(late);
            put_back_all({deciding});
            // It is decided; a power cut here leaves the rest to recovery.
            put_back_late(contents);
        }
        wipe_superblocks(spare_);
        return written;
    }

  private:
    /// What the main should hold; zeroes for what is lost. Nothing if the spare cannot be read.
    std::optional<std::vector<std::uint8_t>> content(std::uint64_t block) {
        std::vector<std::uint8_t> bytes(blocks_.bytes());
        const auto it = mappings_.find(block);
        const bool known = it != mappings_.end() && !it->second.undecidable &&
                           it->second.entry.state() == REMAP_ENTRY_MAPPED;
        if (known && spare_.try_read(superblock_.slot_sector(it->second.slot), bytes) != 0) {
            return std::nullopt;
        }
        return bytes;
    }

    std::set<std::uint64_t> blocks_of(const Signature& signature) const {
        std::set<std::uint64_t> blocks;
        hide_bytes(superblock_, blocks, signature.magic);
        if (const auto label = first_label_of(signature)) {
            hide_bytes(superblock_, blocks, *label);
        }
        return blocks;
    }

    /// Hidden blocks, but for the deciding one, by which what the set shows now is recognised; that
    /// may be another thing than was adopted, and found elsewhere. It must not be seen on the main
    /// while a power cut would hide it again, and what was written to it meanwhile. Replicas given
    /// back before the primary signature would be taken for it.
    std::set<std::uint64_t> late_blocks(const std::set<std::uint64_t>& hidden) {
        const PayloadReader read = [this](std::uint64_t sector, Bytes to) {
            return view_.try_read(sector, to) == 0;
        };
        for (const ByteRange& range : replicas_of(read, superblock_.main_size)) {
            hide_bytes(superblock_, replicas_, range);
        }
        std::set<std::uint64_t> blocks = replicas_;
        for (const Signature& signature : signatures_on(view_)) {
            blocks.merge(blocks_of(signature));
        }
        blocks.erase(deciding_block(superblock_));
        for (auto it = blocks.begin(); it != blocks.end();) {
            it = hidden.count(*it) != 0 ? std::next(it) : blocks.erase(it);
        }
        return blocks;
    }

    struct RunContent {
        BlockRun run;
        std::vector<std::uint8_t> bytes;
    };

    /// All contents of `blocks`, or gives up.
    std::vector<RunContent> contents_of(const std::set<std::uint64_t>& blocks) {
        std::vector<RunContent> contents;
        std::set<std::uint64_t> unreadable;
        for (const BlockRun& run : runs_of(blocks, blocks_.chunk())) {
            contents.push_back({run, content_of(run, unreadable)});
        }
        if (!unreadable.empty()) {
            give_up(cat(spare_.name(), ": these blocks cannot be read: "), unreadable);
        }
        return contents;
    }

    /// Without its replicas the payload is whole: where one fails that is told and does not stop
    /// it.
    void put_back_late(const std::vector<RunContent>& contents) {
        std::set<std::uint64_t> failed;
        for (const RunContent& content : contents) {
            write_run(content.run, content.bytes);
            blocks_.io().flush();
            verify_run(content.run, content.bytes, failed);
            step(2 * content.run.count);
        }
        std::set<std::uint64_t> needed;
        std::set_difference(failed.begin(), failed.end(), replicas_.begin(), replicas_.end(),
                            std::inserter(needed, needed.end()));
        if (!needed.empty()) {
            give_up(cat(blocks_.io().name(), ": these blocks cannot be written back: "), needed);
        }
        if (!failed.empty()) {
            observer_.warning(cat(blocks_.io().name(),
                                  ": replicas of the payload's signature could not be given back: "
                                  "blocks ",
                                  block_list(failed)));
        }
    }

    /// The contents of a run in one buffer; blocks that the spare does not give are noted.
    std::vector<std::uint8_t> content_of(const BlockRun& run, std::set<std::uint64_t>& unreadable) {
        std::vector<std::uint8_t> bytes;
        for (std::uint64_t i = 0; i < run.count; ++i) {
            const auto block = content(run.start + i);
            if (!block) {
                unreadable.insert(run.start + i);
            }
            bytes.resize((i + 1) * blocks_.bytes());
            if (block) {
                std::copy(block->begin(), block->end(),
                          bytes.end() - static_cast<std::ptrdiff_t>(blocks_.bytes()));
            }
        }
        return bytes;
    }

    void write_run(const BlockRun& run, ConstBytes bytes) {
        if (blocks_.try_write(run.start, bytes) == 0) {
            return;
        }
        // Which of them failed shows when they are read back.
        for (std::uint64_t i = 0; i < run.count; ++i) {
            static_cast<void>(blocks_.try_write(
                run.start + i, bytes.subspan(i * blocks_.bytes(), blocks_.bytes())));
        }
    }

    void verify_run(const BlockRun& run, ConstBytes bytes, std::set<std::uint64_t>& failed) {
        std::vector<std::uint8_t> back(blocks_.bytes());
        for (std::uint64_t i = 0; i < run.count; ++i) {
            const ConstBytes expected = bytes.subspan(i * blocks_.bytes(), blocks_.bytes());
            if (blocks_.try_read(run.start + i, back) != 0 ||
                std::memcmp(back.data(), expected.data(), back.size()) != 0) {
                failed.insert(run.start + i);
            }
        }
    }

    void step(std::uint64_t blocks) {
        done_ += blocks;
        observer_.progress("writing back to the main", done_, total_);
    }

    /// Writes, flushes, reads back.
    void put_back_all(const std::set<std::uint64_t>& blocks) {
        const auto runs = runs_of(blocks, blocks_.chunk());
        std::set<std::uint64_t> unreadable;
        std::set<std::uint64_t> failed;
        for (const BlockRun& run : runs) {
            const auto bytes = content_of(run, unreadable);
            // The run goes on to be read only, for the list.
            if (unreadable.empty()) {
                write_run(run, bytes);
            }
            step(run.count);
        }
        if (!unreadable.empty()) {
            give_up(cat(spare_.name(), ": these blocks cannot be read: "), unreadable);
        }
        blocks_.io().flush();
        for (const BlockRun& run : runs) {
            verify_run(run, content_of(run, unreadable), failed);
            step(run.count);
        }
        if (!failed.empty()) {
            give_up(cat(blocks_.io().name(), ": these blocks cannot be written back: "), failed);
        }
    }

    /// Makes the set complete again. Never decided by what the main holds, as recovery does: what
    /// failed may be the deciding block, and the spare has the only copy of it.
    void restore_set() {
        if (superblock_.is_bare()) {
            superblock_.head.state = REMAP_STATE_COMPLETE;
            superblock_ = next_superblock(spare_, superblock_);
            write_superblock(spare_, superblock_);
            return;
        }
        Observer quiet;
        finish_adoption(blocks_.io(), spare_, superblock_, quiet);
    }

    [[noreturn]] void give_up(const std::string& why, const std::set<std::uint64_t>& blocks) {
        const std::string text = cat(why, block_list(blocks), " (in blocks of ",
                                     superblock_.block_size(), " bytes). Not released: ");
        try {
            restore_set();
        } catch (const Error& error) {
            throw Error(Exit::operational,
                        cat(text, "set ", superblock_.head.set_uuid,
                            " could not be made complete again either, its data is still on ",
                            spare_.name(), ": ", error.what()));
        }
        throw Error(Exit::operational,
                    cat(text, "set ", superblock_.head.set_uuid, " is complete; ", copy_instead));
    }

    MainBlocks blocks_;
    BlockIo& spare_;
    Superblock superblock_;
    Observer& observer_;
    SetView view_;
    const std::map<std::uint64_t, Mapping>& mappings_;
    std::set<std::uint64_t> replicas_;  ///< blocks with replicas of the payload's signature
    std::uint64_t done_ = 0;
    std::uint64_t total_ = 0;
};

Identity identity_of(const BlockIo& io) {
    return io.is_block_device() ? identify_path(io.name()) : Identity{};
}

}  // namespace

ReleaseJob::ReleaseJob(ReleaseOptions options) : options_(std::move(options)) {
    // A copy changes nothing on the set, and may well be made because nothing can be any more.
    const Mode mode = options_.to ? Mode::read_exclusive : Mode::read_write;
    spare_ = open_block_io(options_.spare, mode);
    superblock_ = require_openable(*spare_, options_.to.has_value());
    if (!options_.main && !spare_->is_block_device()) {
        throw Error(Exit::usage,
                    cat(options_.spare, ": for an image file name its main with --main"));
    }
    const std::string main =
        options_.main ? *options_.main : find_main(options_.spare, superblock_).path;
    main_ = open_block_io(main, mode);
    require_pair(*main_, options_.spare, superblock_, identity_of(*main_),
                 options_.no_label && options_.to);
    if (options_.to) {
        open_target();
    } else if (options_.force) {
        throw Error(Exit::usage, "--force is for --to: what it overwrites is the other disk");
    }
}

void ReleaseJob::open_target() {
    for (const std::string& member : {main_->name(), options_.spare}) {
        if (same_device(*options_.to, member)) {
            throw Error(Exit::usage, cat(*options_.to, ": is ", member,
                                         ", a member of the set; --to wants another disk"));
        }
    }
    const auto users = users_of(*options_.to);
    if (!users.empty()) {
        throw BusyError(cat(*options_.to, ": in use: ", users.front()));
    }
    target_ = open_block_io(*options_.to, Mode::read_write);
    view_.emplace(*main_, *spare_, superblock_);
    require_copyable(*view_, *target_, copy_options());
}

CopyOptions ReleaseJob::copy_options() const {
    return {options_.accept_loss, options_.force};
}

std::string ReleaseJob::consequences() const {
    if (target_) {
        return cat(target_->name(), ": everything on it will be lost; it gets what set ",
                   superblock_.head.set_uuid, " shows, and is to be used directly from then on.\n",
                   main_->name(), ", ", options_.spare,
                   ": are not changed, but the set is no longer opened by itself.");
    }
    return cat(main_->name(), ": gets back everything that lies on ", options_.spare,
               "; sectors that have failed are in use again.\n", options_.spare, ": set ",
               superblock_.head.set_uuid, " on it ceases to exist.");
}

void ReleaseJob::unlist(Observer& observer) const {
    const std::string file = options_.remaptab.value_or(
        spare_->is_block_device() && main_->is_block_device() ? default_remaptab : "none");
    if (file == "none") {
        return;
    }
    try {
        update_remaptab(file,
                        [this](Remaptab& tab) { return tab.remove(superblock_.head.set_uuid); });
    } catch (const Error& error) {
        observer.warning(cat("the set is released, but still listed: ", error.what()));
    }
}

ReleaseResult ReleaseJob::run(Observer& observer) {
    ReleaseResult result;
    if (target_) {
        const auto lost = copy_view(*view_, *target_, copy_options(), observer);
        result.written = superblock_.main_blocks();
        result.lost.assign(lost.begin(), lost.end());
    } else {
        result = release_set(*main_, *spare_, options_.accept_loss, observer);
    }
    unlist(observer);
    return result;
}

ReleaseResult release_set(BlockIo& main, BlockIo& spare, bool accept_loss, Observer& observer) {
    const Superblock superblock = require_openable(spare, false);
    require_pair(main, spare.name(), superblock, identity_of(main));
    Release release(main, spare, superblock, observer);
    const auto lost = release.lost();
    if (!lost.empty() && !accept_loss) {
        throw Error(Exit::usage,
                    cat(spare.name(), ": these blocks are lost and cannot be written back: ",
                        block_list(lost), " (in blocks of ", superblock.block_size(),
                        " bytes); --accept-loss makes them zeroes; ", copy_instead));
    }
    ReleaseResult result;
    result.written = release.run();
    result.lost.assign(lost.begin(), lost.end());
    return result;
}

}  // namespace remap
