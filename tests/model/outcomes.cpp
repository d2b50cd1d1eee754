// SPDX-License-Identifier: GPL-2.0-or-later
//
// Write outcomes: in a short life of a set every single metadata write fails without a trace, fails
// torn, or fails yet reaches the medium, alone and in pairs, with power cuts all along.
#include "workload.hpp"

namespace model {
namespace {

constexpr std::array<Extent::Kind, 3> outcomes{Extent::none, Extent::subset, Extent::all};
/// Pairs are this close together: within one activation or commit.
constexpr std::uint64_t pair_distance = 10;
constexpr std::uint64_t bad_block = 2050;
constexpr std::uint64_t other_bad_block = 2070;

struct Hit {
    std::uint64_t at;  ///< number of the metadata write
    Extent::Kind reached;
};

bool is_metadata(const SetLayout& layout, DiskId id, std::uint64_t sector) {
    if (id == spare_disk)
        return layout.table_copy(sector) || layout.superblock_copy(sector);
    return layout.hidden(sector / layout.block_sectors());
}

/// The first write of an activation, two remaps, writes of remapped blocks, a reload.
void live(const SetLayout& layout, World& world) {
    const auto reopen = [&] {
        const std::string reason = world.open();
        if (!reason.empty())
            throw Violation("3", "without a power cut the set does not load: " + reason);
    };
    const auto write = [&](std::uint64_t block) {
        world.user_write(block, 1, false, false);
        world.drain();
        world.user_flush();
        world.drain();
    };

    reopen();
    write(bad_block);
    write(other_bad_block);
    write(bad_block);
    write(layout.window.blocks.front());
    world.close();
    reopen();
    write(bad_block);
    world.close();
}

/// Returns how many metadata writes there were.
std::uint64_t run_one(const SetLayout& layout, const std::array<DiskTraits, 2>& traits,
                      std::array<Image*, 2> images, const std::vector<Hit>& hits,
                      Counters& counters, bool verbose) {
    Random random(hits.empty() ? 1 : hits.front().at * 1000 + hits.back().at);
    const Oracle start(layout.window, layout.lost);
    Oracle oracle = start;
    std::uint64_t writes = 0;
    Faults faults;
    Log log;

    faults.bad_write[main_disk] = {bad_block * layout.block_sectors(),
                                   other_bad_block * layout.block_sectors()};
    faults.script = [&](DiskId id, const model_io& io) -> std::optional<Outcome> {
        if (io.op != MODEL_WRITE || !is_metadata(layout, id, io.sector))
            return std::nullopt;
        const std::uint64_t number = writes++;
        for (const Hit& hit : hits) {
            if (hit.at == number)
                return Outcome{MODEL_IOERR, {hit.reached, 0, random.next()}, false};
        }
        return std::nullopt;
    };
    Scene scene{layout, traits, images, nullptr, {}, random, counters, verbose};
    {
        World world(layout, traits, images, random, counters);
        world.faults = &faults;
        world.log = &log;
        world.oracle = &oracle;
        live(layout, world);
    }
    for (Image* image : images)
        image->undo_to(0);
    check_crash_states(scene, log, start, 0, {hits.size() == 1 ? 60U : 6U, 10, 1});
    return writes;
}

}  // namespace

std::uint64_t run_outcomes(Counters& counters, bool verbose) {
    std::uint64_t runs = 0;

    for (const bool adopted : {true, false}) {
        for (const unsigned int copies : {2U, 3U}) {
            for (const bool fua : {true, false}) {
                if (copies == 3 && !fua)
                    continue;
                SetOptions options;
                options.adopted = adopted;
                options.nr_copies = static_cast<std::uint8_t>(copies);
                Random random(7);
                const SetLayout layout = plan_set(options, random);
                Image main(layout.main_sectors);
                Image spare(layout.options.spare_sectors);
                format_set(layout, random, main, spare);
                DiskTraits traits;
                traits.fua = fua;
                const auto run = [&](const std::vector<Hit>& hits) {
                    runs++;
                    return run_one(layout, {traits, traits}, {&main, &spare}, hits, counters,
                                   verbose);
                };
                const std::uint64_t writes = run({});
                for (std::uint64_t i = 0; i < writes; i++) {
                    for (const Extent::Kind first : outcomes) {
                        run({{i, first}});
                        for (std::uint64_t j = i + 1; j < i + pair_distance; j++) {
                            for (const Extent::Kind second : outcomes)
                                run({{i, first}, {j, second}});
                        }
                    }
                }
            }
        }
    }
    return runs;
}

}  // namespace model
