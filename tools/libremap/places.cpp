// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/places.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// Bytes at either end of a main that are hidden whatever it holds: with 128 KiB libblkid finds
/// none of the payloads that it knows, with 64 KiB it still finds btrfs.
constexpr std::uint64_t hidden_end = 128U << 10;
/// Where LUKS2 looks for its second header, beyond the first 128 KiB.
constexpr std::array<std::uint64_t, 6> luks2_places = {0x20000,  0x40000,  0x80000,
                                                       0x100000, 0x200000, 0x400000};
/// Bytes that are hidden at each of these.
constexpr std::uint64_t hidden_place = 4096;

std::uint64_t blocks_of(const Superblock& superblock, std::uint64_t bytes) {
    return (bytes + superblock.block_size() - 1) / superblock.block_size();
}

constexpr const char* rewriting = "testing the places to hide";
constexpr const char* hiding = "hiding the payload";

/// Reads a run block by block; `bad` is called for the blocks that fail, whose bytes become zero.
template <typename Bad>
void read_run(MainBlocks& main, const BlockRun& run, Bytes to, Bad bad) {
    if (main.try_read(run.start, to) == 0) {
        return;
    }
    for (std::uint64_t i = 0; i < run.count; ++i) {
        const Bytes one = to.subspan(i * main.bytes(), main.bytes());
        if (main.try_read(run.start + i, one) != 0) {
            std::fill(one.begin(), one.end(), std::uint8_t{0});
            bad(run.start + i);
        }
    }
}

template <typename Bad>
void write_run(MainBlocks& main, const BlockRun& run, ConstBytes from, Bad bad) {
    if (main.try_write(run.start, from) == 0) {
        return;
    }
    for (std::uint64_t i = 0; i < run.count; ++i) {
        if (main.try_write(run.start + i, from.subspan(i * main.bytes(), main.bytes())) != 0) {
            bad(run.start + i);
        }
    }
}

std::vector<std::uint8_t> bytes_of_run(const Superblock& superblock, const BlockRun& run) {
    std::vector<std::uint8_t> bytes;
    for (std::uint64_t i = 0; i < run.count; ++i) {
        const auto block = place_bytes(superblock, run.start + i);
        bytes.insert(bytes.end(), block.begin(), block.end());
    }
    return bytes;
}

/// Index of a block in an ascending list.
std::size_t index_of(const std::vector<std::uint64_t>& blocks, std::uint64_t block) {
    return static_cast<std::size_t>(std::lower_bound(blocks.begin(), blocks.end(), block) -
                                    blocks.begin());
}

template <typename T>
Place classify(const Decoded<T>& decoded, const Superblock& superblock) {
    const bool whole = decoded.verdict == Verdict::current ||
                       decoded.verdict == Verdict::implausible ||
                       decoded.verdict == Verdict::misplaced;
    if (!whole) {
        return decoded.verdict == Verdict::newer_version ? Place::foreign : Place::other;
    }
    const Head& head = decoded.value.head;
    const bool same =
        head.set_uuid == superblock.head.set_uuid && head.nonce == superblock.head.nonce;
    return same && decoded.valid() ? Place::ours : Place::foreign;
}

}  // namespace

std::vector<BlockRun> runs_of(const std::set<std::uint64_t>& blocks, std::uint64_t limit) {
    std::vector<BlockRun> runs;
    for (const std::uint64_t block : blocks) {
        if (!runs.empty() && runs.back().start + runs.back().count == block &&
            runs.back().count < limit) {
            ++runs.back().count;
        } else {
            runs.push_back({block, 1});
        }
    }
    return runs;
}

std::string block_list(const std::set<std::uint64_t>& blocks) {
    std::string text;
    for (const BlockRun& run : runs_of(blocks, std::numeric_limits<std::uint64_t>::max())) {
        text += cat(text.empty() ? "" : ", ", run.start);
        if (run.count > 1) {
            text += cat("-", run.start + run.count - 1);
        }
    }
    return cat(text, " (", blocks.size(), " in all)");
}

void hide_bytes(const Superblock& superblock, std::set<std::uint64_t>& blocks, ByteRange range) {
    const std::uint64_t first = range.offset / superblock.block_size();
    const std::uint64_t end =
        std::min(blocks_of(superblock, range.offset + range.length), superblock.main_blocks());
    for (std::uint64_t block = first; block < end; ++block) {
        blocks.insert(block);
    }
}

std::set<std::uint64_t> standard_places(const Superblock& superblock) {
    std::set<std::uint64_t> blocks;
    const std::uint64_t size = superblock.main_size * sector_size;
    hide_bytes(superblock, blocks, {0, hidden_end});
    hide_bytes(superblock, blocks, {size - hidden_end, hidden_end});
    for (const std::uint64_t place : luks2_places) {
        hide_bytes(superblock, blocks, {place, hidden_place});
    }
    return blocks;
}

std::set<std::uint64_t> zfs_places(const Superblock& superblock) {
    std::set<std::uint64_t> blocks;
    const std::uint64_t size = superblock.main_size * sector_size;
    for (const ByteRange& label : zfs_labels(size)) {
        hide_bytes(superblock, blocks, label);
    }
    return blocks;
}

std::vector<ByteRange> zfs_labels(std::uint64_t size) {
    const std::uint64_t end = size / zfs_label * zfs_label;
    return {{0, zfs_label},
            {zfs_label, zfs_label},
            {end - 2 * zfs_label, zfs_label},
            {end - zfs_label, zfs_label}};
}

std::vector<Hidden> extents_of(const std::set<std::uint64_t>& blocks) {
    std::vector<Hidden> extents;
    for (const BlockRun& run : runs_of(blocks, UINT32_MAX)) {
        extents.push_back({run.start, static_cast<std::uint32_t>(run.count), 0});
    }
    if (extents.size() > REMAP_MAX_HIDDEN) {
        throw Error(Exit::unrecognised,
                    cat("the payload shows itself at ", extents.size(), " places, at most ",
                        REMAP_MAX_HIDDEN, " can be hidden"));
    }
    return extents;
}

std::set<std::uint64_t> hidden_blocks_of(const Superblock& superblock) {
    std::set<std::uint64_t> blocks;
    for (const Hidden& extent : superblock.hidden) {
        for (std::uint64_t i = 0; i < extent.count; ++i) {
            blocks.insert(extent.start + i);
        }
    }
    return blocks;
}

std::uint64_t deciding_block(const Superblock& superblock) {
    return superblock.deciding_sector / superblock.block_sectors();
}

HiddenContent read_hidden(MainBlocks& main, const Superblock& superblock) {
    HiddenContent content;
    content.block_bytes = main.bytes();
    const auto blocks = hidden_blocks_of(superblock);
    content.blocks.assign(blocks.begin(), blocks.end());
    content.bytes.resize(blocks.size() * main.bytes());
    std::size_t done = 0;
    for (const BlockRun& run : runs_of(blocks, main.chunk())) {
        const std::size_t length = run.count * main.bytes();
        read_run(main, run, Bytes(content.bytes).subspan(done, length),
                 [&](std::uint64_t block) { content.lost.insert(block); });
        done += length;
    }
    return content;
}

std::set<std::uint64_t> rewrite_hidden(MainBlocks& main, const HiddenContent& content,
                                       Observer& observer) {
    std::set<std::uint64_t> readable;
    std::set_difference(content.blocks.begin(), content.blocks.end(), content.lost.begin(),
                        content.lost.end(), std::inserter(readable, readable.end()));
    std::set<std::uint64_t> failed;
    const auto note = [&](std::uint64_t block) { failed.insert(block); };
    const auto runs = runs_of(readable, main.chunk());
    const auto expected = [&](const BlockRun& run) {
        return ConstBytes(content.bytes)
            .subspan(index_of(content.blocks, run.start) * main.bytes(), run.count * main.bytes());
    };
    std::size_t done = 0;
    for (const BlockRun& run : runs) {
        write_run(main, run, expected(run), note);
        observer.progress(rewriting, ++done, 2 * runs.size());
    }
    if (const int error = main.io().try_flush(); error != 0) {
        return readable;
    }
    for (const BlockRun& run : runs) {
        std::vector<std::uint8_t> back(run.count * main.bytes());
        read_run(main, run, back, note);
        for (std::uint64_t i = 0; i < run.count; ++i) {
            if (std::memcmp(back.data() + i * main.bytes(), expected(run).data() + i * main.bytes(),
                            main.bytes()) != 0) {
                note(run.start + i);
            }
        }
        observer.progress(rewriting, ++done, 2 * runs.size());
    }
    return failed;
}

std::vector<std::uint8_t> place_bytes(const Superblock& superblock, std::uint64_t block) {
    const std::uint64_t sector = block * superblock.block_sectors();
    const auto& labels = superblock.label_sector;
    const auto label = std::find(labels.begin(), labels.end(), sector);
    std::vector<std::uint8_t> bytes(superblock.block_size());
    if (label == labels.end()) {
        const LabelBytes filler = encode_filler(make_filler(superblock), sector);
        std::copy(filler.begin(), filler.end(), bytes.begin());
        return bytes;
    }
    // A label says that the main is hidden, which is true as soon as it is there; whether the
    // set is complete its superblock says.
    Label content = make_label(superblock);
    content.head.state = REMAP_STATE_COMPLETE;
    const LabelBytes encoded =
        encode_label(content, static_cast<unsigned int>(label - labels.begin()), sector);
    std::copy(encoded.begin(), encoded.end(), bytes.begin());
    return bytes;
}

Place look_at_place(MainBlocks& main, const Superblock& superblock, std::uint64_t block) {
    std::vector<std::uint8_t> bytes(main.bytes());
    if (main.try_read(block, bytes) != 0) {
        return Place::unreadable;
    }
    const ConstBytes head = ConstBytes(bytes).first(REMAP_LABEL_SIZE);
    const std::uint64_t sector = main.sector(block);
    const Place label = classify(decode_label(head, sector), superblock);
    return label != Place::other ? label : classify(decode_filler(head, sector), superblock);
}

std::set<std::uint64_t> newest_labels(MainBlocks& main, const Superblock& superblock) {
    std::set<std::uint64_t> newest;
    std::uint32_t epoch = 0;
    std::vector<std::uint8_t> bytes(main.bytes());
    for (const std::uint64_t sector : superblock.label_sector) {
        const std::uint64_t block = sector / superblock.block_sectors();
        if (main.try_read(block, bytes) != 0) {
            continue;
        }
        const auto label = decode_label(ConstBytes(bytes).first(REMAP_LABEL_SIZE), sector);
        if (classify(label, superblock) != Place::ours || label.value.epoch < epoch) {
            continue;
        }
        if (label.value.epoch > epoch) {
            newest.clear();
        }
        epoch = label.value.epoch;
        newest.insert(block);
    }
    return newest;
}

int conceal_block(MainBlocks& main, const Superblock& superblock, std::uint64_t block) {
    return main.try_write(block, place_bytes(superblock, block));
}

void conceal(MainBlocks& main, const Superblock& superblock, const std::set<std::uint64_t>& blocks,
             Observer& observer) {
    std::uint64_t done = 0;
    for (const BlockRun& run : runs_of(blocks, main.chunk())) {
        write_run(main, run, bytes_of_run(superblock, run), [](std::uint64_t) {});
        done += run.count;
        observer.progress(hiding, done, blocks.size());
    }
}

std::set<std::uint64_t> unconcealed(MainBlocks& main, const Superblock& superblock) {
    std::set<std::uint64_t> bad;
    for (const BlockRun& run : runs_of(hidden_blocks_of(superblock), main.chunk())) {
        std::vector<std::uint8_t> back(run.count * main.bytes());
        read_run(main, run, back, [&](std::uint64_t block) { bad.insert(block); });
        const auto expected = bytes_of_run(superblock, run);
        for (std::uint64_t i = 0; i < run.count; ++i) {
            if (std::memcmp(back.data() + i * main.bytes(), expected.data() + i * main.bytes(),
                            main.bytes()) != 0) {
                bad.insert(run.start + i);
            }
        }
    }
    return bad;
}

void mark_exposed(Superblock& superblock, const std::set<std::uint64_t>& blocks) {
    for (Hidden& extent : superblock.hidden) {
        const auto first = blocks.lower_bound(extent.start);
        const bool exposed = first != blocks.end() && *first < extent.start + extent.count;
        extent.flags = static_cast<std::uint8_t>(exposed ? extent.flags | REMAP_HIDDEN_EXPOSED
                                                         : extent.flags & ~REMAP_HIDDEN_EXPOSED);
    }
}

}  // namespace remap
