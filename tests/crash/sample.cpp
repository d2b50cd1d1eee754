// SPDX-License-Identifier: GPL-2.0-or-later
#include "sample.hpp"

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace crash {

void Sample::offer(const State& state, const std::string& kind) {
    Kept& kept = kinds_[kind];

    kept.offered++;
    if (kept.states.size() < limit_) {
        kept.states.push_back(state);
        return;
    }
    const std::uint64_t at = random_() % kept.offered;
    if (at < limit_)
        kept.states[at] = state;
}

std::vector<State> Sample::take(std::size_t count) {
    std::vector<State> taken;

    for (std::size_t round = 0; round < limit_ && taken.size() < count; round++) {
        for (const auto& [kind, kept] : kinds_) {
            if (round < kept.states.size() && taken.size() < count)
                taken.push_back(kept.states[round]);
        }
    }
    std::stable_sort(taken.begin(), taken.end(),
                     [](const State& a, const State& b) { return a.point < b.point; });
    return taken;
}

namespace {

/// Some sectors of each sort: lost, in a slot, and on the main.
std::vector<std::uint64_t> sectors_to_write(const View& view,
                                            const std::vector<std::uint64_t>& sectors,
                                            std::size_t turn) {
    std::vector<std::vector<std::uint64_t>> sorts(3);
    std::vector<std::uint64_t> chosen;

    for (const std::uint64_t sector : sectors) {
        const bool lost = !view.place(sector);
        sorts[lost ? 0 : view.mapped(sector) ? 1 : 2].push_back(sector);
    }
    for (const auto& sort : sorts) {
        if (!sort.empty())
            chosen.push_back(sort[turn * 7919 % sort.size()]);
    }
    return chosen;
}

void write_values(std::ostream& to, const View& view, std::uint64_t sectors) {
    for (std::uint64_t sector = 0; sector < sectors; sector++) {
        const Value value = view.read(sector);
        for (unsigned int byte = 0; byte < sizeof(value); byte++)
            to.put(static_cast<char>(value >> (8 * byte)));
    }
}

}  // namespace

void export_states(Replay& replay, const Journal& journal, const std::vector<State>& states,
                   const std::string& image_path, const std::string& plan_path,
                   const std::string& views_path) {
    std::ofstream image(image_path, std::ios::binary);
    std::ofstream plan(plan_path);
    std::ofstream views(views_path, std::ios::binary);
    const std::uint64_t size = journal.main_size() + journal.spare_size();
    const std::vector<std::uint64_t> sectors = journal.sectors();

    for (std::size_t i = 0; i < states.size(); i++) {
        replay.go(states[i].point);
        replay.with(states[i], [&] {
            const Image& now = replay.image();
            const View view(now);
            image.write(reinterpret_cast<const char*>(now.bytes.data()),
                        static_cast<std::streamsize>(now.bytes.size()));
            plan << i * size << " " << journal.main_size() << " " << i * size + journal.main_size()
                 << " " << journal.spare_size() << " ";
            const char* separator = "";
            for (const std::uint64_t sector : sectors_to_write(view, sectors, i)) {
                plan << separator << sector;
                separator = ",";
            }
            plan << "\n";
            write_values(views, view, journal.main_size());
        });
    }
    image.close();
    plan.close();
    views.close();
    if (!image || !plan || !views)
        throw std::runtime_error(image_path + ": cannot write the states");
}

}  // namespace crash
