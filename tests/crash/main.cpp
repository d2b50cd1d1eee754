// SPDX-License-Identifier: GPL-2.0-or-later
//
// Replays a log of dm-log-writes power cut by power cut and checks each state: docs/testing.md.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "libremap/block_io.hpp"
#include "sample.hpp"
#include "states.hpp"

namespace {

struct Options {
    std::string before;
    std::string log;
    std::string journal;
    std::uint64_t seed = 1;
    std::uint64_t states = 0;
    std::vector<std::string> kinds;
    std::string state;
    std::string image;
    std::string prefix;
    std::size_t sample = 0;
    bool show_kinds = false;
};

crash::Journal read_journal(const std::string& path) {
    std::ifstream text(path);

    if (!text)
        throw std::runtime_error(path + ": cannot be read");
    return crash::Journal(text);
}

crash::Image read_image(const std::string& path, const crash::Journal& journal) {
    const auto device = remap::open_block_io(path, remap::Mode::read_only);

    return {device->read(0, journal.main_size() + journal.spare_size()), journal.main_size(),
            journal.spare_size()};
}

int check_one(crash::Campaign& campaign, crash::Replay& replay, const Options& options) {
    const crash::State state = crash::State::parse(options.state);
    const std::string wrong = campaign.check(state);

    if (!options.image.empty()) {
        replay.with(state, [&] {
            std::ofstream out(options.image, std::ios::binary);
            const auto& bytes = replay.image().bytes;
            out.write(reinterpret_cast<const char*>(bytes.data()),
                      static_cast<std::streamsize>(bytes.size()));
            if (!out.flush())
                throw std::runtime_error(options.image + ": cannot be written");
        });
    }
    std::cout << state.str() << ": " << (wrong.empty() ? "ok" : wrong) << "\n";
    return wrong.empty() ? 0 : 1;
}

void report(const crash::Tally& tally, const std::vector<std::string>& missing,
            const Options& options) {
    if (options.show_kinds) {
        for (const auto& [kind, count] : tally.kinds)
            std::cout << "kind " << count << " " << kind << "\n";
    }
    for (const crash::Violation& violation : tally.violations)
        std::cout << "violation \"" << violation.state << "\": " << violation.what << "\n";
    for (const std::string& kind : missing)
        std::cout << "missing no state of kind \"" << kind << "\"\n";
    std::cout << "done states=" << tally.states << " kinds=" << tally.kinds.size()
              << " errors=" << tally.errors << " violations=" << tally.violation_count
              << " seed=" << options.seed << "\n";
}

int check_all(crash::Campaign& campaign, crash::Replay& replay, const crash::Journal& journal,
              const Options& options) {
    constexpr std::size_t of_each_kind = 64;
    constexpr unsigned int random_each = 2;
    crash::Sample sample(of_each_kind, options.seed);
    crash::Tally tally;

    campaign.run(true, random_each, tally,
                 [&](const crash::State& state, const std::string& kind, const crash::View&) {
                     sample.offer(state, kind);
                 });
    while (tally.states < options.states && tally.violation_count == 0) {
        const std::uint64_t before = tally.states;
        const std::uint64_t each = (options.states - before) / replay.points().size() + 1;
        campaign.run(false, static_cast<unsigned int>(std::min<std::uint64_t>(each, 1000)), tally);
        if (tally.states == before)
            throw std::runtime_error("the log has no more states");
    }
    const auto missing = crash::missing_kinds(tally, options.kinds);
    report(tally, missing, options);
    if (options.sample > 0 && tally.violation_count == 0)
        crash::export_states(replay, journal, sample.take(options.sample), options.prefix + ".img",
                             options.prefix + ".plan", options.prefix + ".views");
    return tally.violation_count == 0 && missing.empty() && tally.states >= options.states ? 0 : 1;
}

int run(const Options& options) {
    const crash::Journal journal = read_journal(options.journal);
    const auto log = remap::open_block_io(options.log, remap::Mode::read_only);
    crash::Replay replay(read_image(options.before, journal), crash::read_write_log(*log));
    crash::Campaign campaign(replay, journal, options.seed);

    if (!options.state.empty())
        return check_one(campaign, replay, options);
    return check_all(campaign, replay, journal, options);
}

/// One image: `sectors` sectors with the pattern of a seed.
int fill(const std::string& path, std::uint64_t sectors, crash::Value seed) {
    std::vector<std::uint8_t> bytes(sectors * remap::sector_size);

    for (std::uint64_t sector = 0; sector < sectors; sector++)
        crash::fill_sector(
            remap::Bytes(bytes).subspan(sector * remap::sector_size, remap::sector_size), seed,
            sector);
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    if (!out.flush())
        throw std::runtime_error(path + ": cannot be written");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Check what a power cut can leave of a set whose writes dm-log-writes logged.",
                 "crash-states");
    Options o;
    std::uint64_t sectors = 0;
    int status = 0;

    app.require_subcommand(1);
    CLI::App* check = app.add_subcommand("check", "check the states of a log");
    check->add_option("BEFORE", o.before, "image of main and spare before the log")->required();
    check->add_option("LOG", o.log, "log device")->required();
    check->add_option("JOURNAL", o.journal, "what was done meanwhile")->required();
    check->add_option("--seed", o.seed, "of all that is random");
    check->add_option("--states", o.states, "check at least so many");
    check->add_option("--kind", o.kinds, "fail if no state is of this kind");
    check->add_flag("--show-kinds", o.show_kinds, "print how many states there were of each kind");
    check->add_option("--state", o.state, "only this one, as a violation names it");
    check->add_option("--image", o.image, "with --state: write main and spare to this file");
    check->add_option("--sample", o.sample, "choose about so many states for the kernel to load");
    check->add_option("--prefix", o.prefix, "of the three files that they are written to");
    check->callback([&] { status = run(o); });

    CLI::App* filler = app.add_subcommand("fill", "make an image with the initial pattern");
    filler->add_option("IMAGE", o.image)->required();
    filler->add_option("SECTORS", sectors)->required();
    filler->callback([&] { status = fill(o.image, sectors, crash::Journal::initial); });

    try {
        app.parse(argc, argv);
        return status;
    } catch (const CLI::ParseError& error) {
        return app.exit(error);
    } catch (const std::exception& error) {
        std::cerr << "crash-states: " << error.what() << "\n";
        return 2;
    }
}
