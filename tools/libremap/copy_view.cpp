// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/copy_view.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <vector>

#include "libremap/crc.hpp"
#include "libremap/error.hpp"
#include "libremap/payload.hpp"
#include "libremap/places.hpp"
#include "libremap/probe.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

constexpr std::uint64_t chunk_sectors = (1U << 20) / sector_size;
/// At the end of a device libblkid and the payload's own tools look for it by the device's size.
constexpr std::uint64_t end_sectors = (1U << 20) / sector_size;

std::string kinds(const std::vector<Signature>& signatures) {
    std::set<std::string> names;
    for (const Signature& signature : signatures) {
        names.insert(cat(signature.type, " ", signature.uuid));
    }
    std::string text;
    for (const std::string& name : names) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text.empty() ? "nothing" : text;
}

/// One copy.
class Copy {
  public:
    Copy(SetView& view, BlockIo& target, const CopyOptions& options, Observer& observer)
        : view_(view),
          target_(target),
          options_(options),
          observer_(observer),
          sectors_(view.superblock().block_sectors()),
          signatures_(signatures_on(view)) {
        choose_places();
    }

    std::set<std::uint64_t> run() {
        wipe();
        copy_early();
        const auto last = contents(last_);
        const auto replicas = contents(replicas_);
        const auto deciding = contents({deciding_});
        require_nothing_lost();
        verify_early();
        try {
            put(last);
            put(deciding);
            put(replicas);
            require_same_kind();
        } catch (const Error&) {
            withdraw();
            throw;
        }
        return lost_;
    }

  private:
    struct Content {
        BlockRun run;
        std::vector<std::uint8_t> bytes;
    };

    /// What the payload is known by, which may be another one than was adopted.
    void choose_places() {
        const Superblock& superblock = view_.superblock();
        last_ = hidden_blocks_of(superblock);
        last_.merge(standard_places(superblock));
        deciding_ = deciding_block(superblock);
        bool first = true;
        for (const Signature& signature : signatures_) {
            hide_bytes(superblock, last_, signature.magic);
            if (const auto label = first_label_of(signature)) {
                hide_bytes(superblock, replicas_, *label);
            }
            if (first) {
                deciding_ = deciding_sector_of(signature) / superblock.block_sectors();
                first = false;
            }
        }
        const PayloadReader read = [this](std::uint64_t sector, Bytes to) {
            return view_.try_read(sector, to) == 0;
        };
        for (const ByteRange& range : replicas_of(read, superblock.main_size)) {
            hide_bytes(superblock, replicas_, range);
        }
        replicas_.erase(deciding_);
        last_.erase(deciding_);
        for (const std::uint64_t block : replicas_) {
            last_.erase(block);
        }
        late_ = last_;
        late_.insert(replicas_.begin(), replicas_.end());
        late_.insert(deciding_);
    }

    /// Whatever the target held must not be seen in what is copied: neither a payload of its own,
    /// nor places that would complete a copy cut short.
    void wipe() {
        std::set<std::uint64_t> blocks = late_;
        const std::uint64_t unit = sectors_ * sector_size;
        const std::uint64_t whole = target_.size() / sectors_;
        for (const Signature& signature : signatures_on(target_)) {
            const std::uint64_t end = signature.magic.offset + signature.magic.length;
            for (std::uint64_t block = signature.magic.offset / unit;
                 block * unit < end && block < whole; ++block) {
                blocks.insert(block);
            }
        }
        for (const BlockRun& run : runs_of(blocks, chunk_sectors / sectors_)) {
            target_.write(run.start * sectors_, std::vector<std::uint8_t>(run.count * unit));
        }
        target_.flush();
        const auto left = signatures_on(target_);
        if (!left.empty()) {
            throw Error(Exit::operational, cat(target_.name(), ": still shows ", describe(left),
                                               " after it was wiped; nothing was copied"));
        }
    }

    /// Takes back what the target is recognised by, as far as it can still be written.
    void withdraw() {
        const std::vector<std::uint8_t> zeroes(sectors_ * sector_size);
        static_cast<void>(target_.try_write(deciding_ * sectors_, zeroes));
        static_cast<void>(target_.try_flush());
        for (const std::uint64_t block : late_) {
            static_cast<void>(target_.try_write(block * sectors_, zeroes));
        }
        static_cast<void>(target_.try_flush());
    }

    /// Reads [sector, sector + size), block by block where a larger read fails; what cannot be read
    /// is zeroes, and noted.
    void read(std::uint64_t sector, Bytes to) {
        if (view_.try_read(sector, to) == 0) {
            return;
        }
        const std::size_t unit = sectors_ * static_cast<std::size_t>(sector_size);
        for (std::size_t at = 0; at < to.size(); at += unit, sector += sectors_) {
            const Bytes block = to.subspan(at, unit);
            if (view_.try_read(sector, block) != 0) {
                std::fill(block.begin(), block.end(), std::uint8_t{0});
                lost_.insert(sector / sectors_);
            }
        }
    }

    /// The late blocks of a chunk are zeroes until their time has come.
    void blank_late(std::uint64_t sector, Bytes bytes) const {
        const std::size_t unit = sectors_ * static_cast<std::size_t>(sector_size);
        const std::uint64_t first = sector / sectors_;
        const std::uint64_t end = first + bytes.size() / unit;
        for (auto it = late_.lower_bound(first); it != late_.end() && *it < end; ++it) {
            const Bytes block = bytes.subspan((*it - first) * unit, unit);
            std::fill(block.begin(), block.end(), std::uint8_t{0});
        }
    }

    void copy_early() {
        AlignedBuffer buffer(chunk_sectors * sector_size);
        for (std::uint64_t sector = 0; sector < view_.size(); sector += chunk_sectors) {
            const std::uint64_t count = std::min(chunk_sectors, view_.size() - sector);
            const Bytes bytes = buffer.bytes().first(count * sector_size);
            read(sector, bytes);
            blank_late(sector, bytes);
            target_.write(sector, bytes);
            checksums_.push_back(crc_of(bytes));
            observer_.progress("copying", sector + count, view_.size());
        }
        target_.flush();
    }

    void verify_early() {
        AlignedBuffer buffer(chunk_sectors * sector_size);
        std::size_t index = 0;
        for (std::uint64_t sector = 0; sector < view_.size(); sector += chunk_sectors) {
            const std::uint64_t count = std::min(chunk_sectors, view_.size() - sector);
            const Bytes bytes = buffer.bytes().first(count * sector_size);
            target_.read(sector, bytes);
            if (crc_of(bytes) != checksums_[index++]) {
                differs(sector, count);
            }
            observer_.progress("verifying", sector + count, view_.size());
        }
    }

    std::vector<Content> contents(const std::set<std::uint64_t>& blocks) {
        std::vector<Content> all;
        for (const BlockRun& run : runs_of(blocks, chunk_sectors / sectors_)) {
            std::vector<std::uint8_t> bytes(run.count * sectors_ * sector_size);
            read(run.start * sectors_, bytes);
            all.push_back({run, std::move(bytes)});
        }
        return all;
    }

    void put(const std::vector<Content>& all) {
        for (const Content& content : all) {
            target_.write(content.run.start * sectors_, content.bytes);
        }
        target_.flush();
        for (const Content& content : all) {
            std::vector<std::uint8_t> back(content.bytes.size());
            target_.read(content.run.start * sectors_, back);
            if (back != content.bytes) {
                differs(content.run.start * sectors_, content.run.count * sectors_);
            }
        }
    }

    [[noreturn]] void differs(std::uint64_t sector, std::uint64_t count) const {
        throw Error(Exit::operational,
                    cat(target_.name(), ": sector ", sector, " and the ", count - 1,
                        " after it: read back otherwise than written; this disk cannot be "
                        "trusted, and the set is as it was"));
    }

    void require_nothing_lost() const {
        if (lost_.empty() || options_.accept_loss) {
            return;
        }
        throw Error(
            Exit::operational,
            cat(view_.name(), ": these blocks cannot be read: ", block_list(lost_),
                " (in blocks of ", view_.superblock().block_size(), " bytes); ", target_.name(),
                " shows nothing, and the set is as it was; --accept-loss "
                "makes them zeroes"));
    }

    void require_same_kind() {
        const auto seen = signatures_on(target_);
        if (kinds(seen) != kinds(signatures_)) {
            throw Error(Exit::operational, cat(target_.name(),
                                               ": everything was copied, but it "
                                               "shows ",
                                               kinds(seen), " where the set shows ",
                                               kinds(signatures_), "; the set is as it was"));
        }
    }

    SetView& view_;
    BlockIo& target_;
    const CopyOptions& options_;
    Observer& observer_;
    std::uint64_t sectors_;
    std::vector<Signature> signatures_;
    std::uint64_t deciding_ = 0;
    std::set<std::uint64_t> last_;      ///< before the deciding one
    std::set<std::uint64_t> replicas_;  ///< after it
    std::set<std::uint64_t> late_;      ///< all of these
    std::set<std::uint64_t> lost_;
    std::vector<std::uint32_t> checksums_;  ///< of each chunk as written first
};

}  // namespace

void require_copyable(SetView& view, BlockIo& target, const CopyOptions& options) {
    if (target.size() < view.size()) {
        throw Error(Exit::usage, cat(target.name(), ": too small: expected at least ", view.size(),
                                     " sectors, found ", target.size()));
    }
    if (target.logical_block_size() > view.logical_block_size()) {
        throw Error(Exit::usage,
                    cat(target.name(), ": expected logical blocks of at most ",
                        view.logical_block_size(), " bytes, found ", target.logical_block_size(),
                        "; what was made for smaller blocks cannot be used there"));
    }
    if (target.size() != view.size()) {
        for (const Signature& signature : signatures_on(view)) {
            const std::uint64_t sector = signature.magic.offset / sector_size;
            if (sector + end_sectors >= view.size() && sector >= view.size() / 2) {
                throw Error(Exit::usage,
                            cat(target.name(), ": has ", target.size(), " sectors, but ",
                                signature.describe(),
                                " is found by the end of its device; give a partition of exactly ",
                                view.size(), " sectors"));
            }
        }
    }
    if (!options.force) {
        if (const auto member = probe_member(target)) {
            throw Error(Exit::usage,
                        cat(target.name(), ": is a member of ",
                            member->newer ? "a set in a newer format" : cat("set ", member->set),
                            "; --force overwrites it"));
        }
        const auto seen = signatures_on(target);
        if (!seen.empty()) {
            throw Error(Exit::usage,
                        cat(target.name(), ": holds ", describe(seen), "; --force overwrites it"));
        }
    }
    if (!view.lost().empty() && !options.accept_loss) {
        throw Error(Exit::usage,
                    cat(view.spare().name(), ": these blocks are lost: ", block_list(view.lost()),
                        " (in blocks of ", view.logical_block_size(),
                        " bytes); --accept-loss makes them zeroes on ", target.name()));
    }
}

std::set<std::uint64_t> copy_view(SetView& view, BlockIo& target, const CopyOptions& options,
                                  Observer& observer) {
    require_copyable(view, target, options);
    return Copy(view, target, options, observer).run();
}

}  // namespace remap
