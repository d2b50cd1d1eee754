// SPDX-License-Identifier: GPL-2.0-or-later
//
// Sets in memory for the tests of adoption, release and recovery: two devices whose writes are
// recorded in one order, and what a power cut can leave of them.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "libremap/adopt.hpp"
#include "libremap/io_doubles.hpp"
#include "libremap/metadata.hpp"
#include "libremap/pair.hpp"
#include "libremap/places.hpp"

namespace fixture {

using Image = std::vector<std::uint8_t>;

constexpr std::uint64_t main_sectors = 2048;
constexpr std::uint64_t spare_sectors = 2048;

inline Image random_image(std::uint64_t sectors, unsigned int seed) {
    std::mt19937 random(seed);
    Image image(sectors * remap::sector_size);
    for (std::uint8_t& byte : image) {
        byte = static_cast<std::uint8_t>(random());
    }
    return image;
}

/// One write or flush on one of the two devices.
struct Event {
    bool on_main = false;
    bool flush = false;
    std::uint64_t sector = 0;
    Image data;
};

/// Records into a log that both devices share.
class LoggedIo : public remap::StackedIo {
  public:
    LoggedIo(remap::BlockIo& below, bool is_main, std::vector<Event>& log)
        : StackedIo(below), main_(is_main), log_(log) {}

    int try_write(std::uint64_t sector, remap::ConstBytes from) override {
        const int error = StackedIo::try_write(sector, from);
        if (error == 0) {
            log_.push_back({main_, false, sector, {from.begin(), from.end()}});
        }
        return error;
    }
    int try_flush() override {
        const int error = StackedIo::try_flush();
        if (error == 0) {
            log_.push_back({main_, true, 0, {}});
        }
        return error;
    }

  private:
    bool main_;
    std::vector<Event>& log_;
};

/// An image to be read where it is: copies of all images would be most of what a test of power cuts
/// does.
class ImageIo : public remap::BlockIo {
  public:
    ImageIo(std::string name, const Image& image, std::uint32_t block)
        : name_(std::move(name)), image_(image), block_(block) {}

    int try_read(std::uint64_t sector, remap::Bytes to) override {
        const std::size_t start = sector * remap::sector_size;
        if (start + to.size() > image_.size()) {
            return EIO;
        }
        std::copy_n(image_.begin() + static_cast<std::ptrdiff_t>(start), to.size(), to.begin());
        return 0;
    }
    int try_write(std::uint64_t, remap::ConstBytes) override { return EROFS; }
    int try_flush() override { return 0; }
    std::uint64_t size() const override { return image_.size() / remap::sector_size; }
    std::uint32_t logical_block_size() const override { return block_; }
    std::uint32_t physical_block_size() const override { return block_; }
    const std::string& name() const override { return name_; }
    bool is_block_device() const override { return false; }

  private:
    std::string name_;
    const Image& image_;
    std::uint32_t block_;
};

/// Both members as bytes.
struct Pair {
    Image main;
    Image spare;
    std::uint32_t block = 512;  ///< logical block size of both
};

/// Puts down the bytes of a write from `from` to, not including, `to`.
inline void apply(Pair& pair, const Event& event, std::size_t from, std::size_t to) {
    Image& image = event.on_main ? pair.main : pair.spare;
    std::copy(
        event.data.begin() + static_cast<std::ptrdiff_t>(from),
        event.data.begin() + static_cast<std::ptrdiff_t>(to),
        image.begin() + static_cast<std::ptrdiff_t>(event.sector * remap::sector_size + from));
}

inline void apply(Pair& pair, const Event& event, std::size_t bytes) {
    apply(pair, event, 0, bytes);
}

/// Runs `job` on a copy of the pair and returns what it wrote, in order.
using Job = std::function<void(remap::BlockIo& main, remap::BlockIo& spare)>;
inline std::vector<Event> record(const Pair& before, const Job& job) {
    remap::MemoryIo main("main", before.main, before.block);
    remap::MemoryIo spare("spare", before.spare, before.block);
    std::vector<Event> log;
    LoggedIo logged_main(main, true, log);
    LoggedIo logged_spare(spare, false, log);
    job(logged_main, logged_spare);
    return log;
}

/// What is there after `job`.
inline Pair run(const Pair& before, const Job& job) {
    remap::MemoryIo main("main", before.main, before.block);
    remap::MemoryIo spare("spare", before.spare, before.block);
    job(main, spare);
    return {std::move(main.content()), std::move(spare.content()), before.block};
}

/// Everything that a power cut can leave after `log`: each prefix, the next write torn at each
/// block, and of the writes that were not flushed any subset where they are few, else a sample.
/// `tails`: a torn write may also have left its end and not its beginning. `check` gets each state
/// once.
inline void each_crash(const Pair& before, const std::vector<Event>& log,
                       const std::function<void(const Pair&)>& check, bool tails = false) {
    constexpr std::size_t few = 4;
    constexpr unsigned int sample = 12;
    std::mt19937 random(1);
    Pair durable = before;           // what flushes have made certain
    std::vector<std::size_t> loose;  // writes since, by index
    const auto with = [&](const std::function<bool(std::size_t)>& kept) {
        Pair state = durable;
        for (std::size_t i = 0; i < loose.size(); ++i) {
            if (kept(i)) {
                apply(state, log[loose[i]], log[loose[i]].data.size());
            }
        }
        return state;
    };
    for (std::size_t at = 0; at <= log.size(); ++at) {
        const Pair all = with([](std::size_t) { return true; });
        check(all);
        if (loose.size() <= few) {
            for (unsigned int mask = 0; mask + 1 < 1U << loose.size(); ++mask) {
                check(with([&](std::size_t i) { return (mask >> i & 1) != 0; }));
            }
        } else {
            for (unsigned int n = 0; n < sample; ++n) {
                check(with([&](std::size_t) { return (random() & 1) != 0; }));
            }
            check(with([&](std::size_t i) { return i + 1 == loose.size(); }));
        }
        if (at == log.size()) {
            break;
        }
        const Event& event = log[at];
        if (event.flush) {
            std::vector<std::size_t> rest;
            for (const std::size_t i : loose) {
                if (log[i].on_main == event.on_main) {
                    apply(durable, log[i], log[i].data.size());
                } else {
                    rest.push_back(i);
                }
            }
            loose = rest;
            continue;
        }
        // Long writes are torn at their first and last blocks and at a sample between.
        const std::size_t edge_bytes = std::size_t{4} * before.block;
        for (std::size_t torn = before.block; torn < event.data.size(); torn += before.block) {
            const bool edge = torn <= edge_bytes || torn + edge_bytes >= event.data.size();
            if (edge || random() % 8 == 0) {
                Pair state = all;
                apply(state, event, torn);
                check(state);
            }
            if (edge && tails) {
                Pair state = all;
                apply(state, event, torn, event.data.size());
                check(state);
            }
        }
        loose.push_back(at);
    }
}

/// What the remap device would show: the main with the mapped slots laid over it. Nothing if the
/// set is not one that opens.
inline std::optional<Image> composed_view(const Pair& pair) {
    ImageIo main("main", pair.main, pair.block);
    ImageIo spare("spare", pair.spare, pair.block);
    try {
        const remap::Superblock superblock = remap::require_openable(spare, false);
        remap::require_pair(main, "spare", superblock, {});
        const remap::Table table = remap::load_intact_table(spare, superblock);
        Image view = pair.main;
        const std::size_t bytes = superblock.block_size();
        for (const remap::Mapping& mapping : remap::live_mappings(table)) {
            if (mapping.undecidable || mapping.entry.state() != REMAP_ENTRY_MAPPED) {
                return std::nullopt;
            }
            const auto from = pair.spare.begin() + static_cast<std::ptrdiff_t>(
                                                       superblock.slot_sector(mapping.slot) * 512);
            std::copy_n(from, bytes,
                        view.begin() + static_cast<std::ptrdiff_t>(mapping.block * bytes));
        }
        return view;
    } catch (const remap::Error&) {
        return std::nullopt;
    }
}

/// Do all hidden places hold label or filler?
inline bool all_hidden(const Pair& pair) {
    ImageIo main("main", pair.main, pair.block);
    ImageIo spare("spare", pair.spare, pair.block);
    const remap::Superblock superblock = remap::load_superblock(spare);
    remap::MainBlocks blocks(main, superblock.block_sectors());
    const auto hidden = remap::hidden_blocks_of(superblock);
    return std::all_of(hidden.begin(), hidden.end(), [&](std::uint64_t block) {
        return remap::look_at_place(blocks, superblock, block) == remap::Place::ours;
    });
}

inline bool has_set(const Pair& pair) {
    ImageIo spare("spare", pair.spare, pair.block);
    return remap::scan_superblocks(spare).winner.has_value();
}

/// A payload like ext4's as far as adoption cares, with random contents.
inline remap::Payload ext_payload() {
    return {remap::PayloadKind::known, "ext4", 2, {{1080, 2}}, {}};
}

inline remap::AdoptRequest request_for(const remap::Payload& payload, std::uint32_t block_size) {
    remap::AdoptRequest request;
    request.block_size = block_size;
    request.label = "test";
    request.payload = payload;
    request.now = 1700000000;
    return request;
}

inline remap::AdoptResult adopt_now(remap::BlockIo& main, remap::BlockIo& spare,
                                    const remap::Payload& payload, std::uint32_t block_size) {
    remap::Observer quiet;
    const auto plan = remap::plan_adoption(main, spare, request_for(payload, block_size));
    return remap::adopt(
        main, spare, plan, [](const auto&, const auto&) {}, quiet);
}

/// Five blocks in the middle of the main are remapped; the main keeps what it held.
inline void remap_some(remap::BlockIo& spare, const remap::Superblock& superblock) {
    remap::Table table = remap::load_intact_table(spare, superblock);
    std::uint32_t sequence = 1000;
    std::uint64_t block = superblock.main_blocks() / 2 + 3;
    unsigned int wanted = 5;
    std::set<std::uint64_t> changed;
    for (std::uint64_t slot = 0; slot < table.entries.size() && wanted > 0; ++slot) {
        if (!table.entries[slot].is_free() || superblock.slot_reserved(slot)) {
            continue;
        }
        spare.write(superblock.slot_sector(slot),
                    random_image(superblock.block_sectors(), sequence));
        table.entries[slot] =
            remap::Entry::make(REMAP_ENTRY_MAPPED, block, REMAP_CAUSE_WRITE, 5, sequence++, 1);
        changed.insert(slot / REMAP_ENTRIES_PER_BLOCK);
        block += wanted == 3 ? 1 : 2;
        --wanted;
    }
    if (wanted != 0) {
        throw std::runtime_error("not enough free slots");
    }
    for (const std::uint64_t index : changed) {
        const auto first =
            table.entries.begin() + static_cast<std::ptrdiff_t>(index * REMAP_ENTRIES_PER_BLOCK);
        const auto count =
            std::min<std::ptrdiff_t>(REMAP_ENTRIES_PER_BLOCK, table.entries.end() - first);
        const std::vector<remap::Entry> entries(first, first + count);
        remap::write_table_block(
            spare, superblock, index,
            remap::next_generation(superblock.epoch, superblock.head.generation + index), entries);
    }
}

}  // namespace fixture
