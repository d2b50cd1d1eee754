// SPDX-License-Identifier: GPL-2.0-or-later
//
// Everything that a power cut can leave of a job that writes to a set, and of its undo: each prefix
// of the writes, torn ones, and those of one flush window in any order.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "libremap/error.hpp"
#include "libremap/export.hpp"
#include "libremap/logged_job.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/undo.hpp"
#include "long_run.hpp"
#include "memory_sink.hpp"
#include "set_fixture.hpp"

namespace fixture {

using Holds = std::function<bool(const Pair&)>;

/// How many states there were, and how many were not as they must be.
struct Replayed {
    std::size_t states = 0;
    std::size_t wrong = 0;       ///< the state itself does not pass
    std::size_t unfinished = 0;  ///< what is called then does not bring it to its end

    bool good() const { return states > 0 && wrong == 0 && unfinished == 0; }
};

inline bool same(const Pair& a, const Pair& b) {
    return a.main == b.main && a.spare == b.spare;
}

/// Every state that a power cut leaves of `log` must pass `fits`, and `again` must lead from there
/// (in a short run: from every sixteenth) to one that is `finished`.
inline Replayed replay(const Pair& before, const std::vector<Event>& log, const Job& again,
                       const Holds& fits, const Holds& finished) {
    const bool every = remap::test::long_run();
    Replayed found;
    const auto ends = [&](const Pair& state) {
        try {
            return finished(run(state, again));
        } catch (const remap::Error&) {
            return false;
        }
    };
    each_crash(
        before, log,
        [&](const Pair& state) {
            ++found.states;
            found.wrong += fits(state) ? 0 : 1;
            if (every || found.states % 16 == 0) {
                found.unfinished += ends(state) ? 0 : 1;
            }
        },
        true);
    return found;
}

/// A job that was carried out with an undo file.
struct LoggedRun {
    std::vector<Event> log;
    Pair after;
    remap::UndoLog undo;
    unsigned int refused = 0;
};

inline LoggedRun run_with_undo(const Pair& before, const remap::SpareJob& job,
                               const std::vector<remap::SectorRun>& reserve = {}) {
    LoggedRun made;
    remap::MemoryIo spare("spare", before.spare, before.block);
    const remap::RehearsedJob rehearsed(spare, reserve, job);
    const remap::WriteJournal& journal = rehearsed.rehearsal.journal;
    remap::test::MemorySink sink;
    remap::write_undo(sink, rehearsed.header, journal, spare, nullptr);
    LoggedIo logged(spare, false, made.log);
    remap::GuardIo guarded(
        logged, journal, 0,
        [&](unsigned int member, std::uint64_t sector, const std::vector<std::uint32_t>& crcs) {
            remap::add_undo_images(sink, rehearsed.header.id, member, sector, crcs);
        });
    remap::Observer quiet;
    job(guarded, quiet);
    made.refused = guarded.refused();
    made.after = before;
    made.after.spare = spare.content();
    made.undo = remap::parse_undo(sink.bytes, "undo");
    return made;
}

/// An undo gives back the identical bytes after a power cut anywhere in the job, and after one
/// anywhere in the undo itself, when it is called again; on its way back every state must pass
/// `fits`.
inline Replayed replay_undo(const Pair& before, const LoggedRun& made, const Holds& fits) {
    const Job undo = [&made](remap::BlockIo& main, remap::BlockIo& spare) {
        remap::undo_repair(made.undo, spare, &main);
    };
    const Holds back = [&before](const Pair& state) { return same(state, before); };
    const Replayed job = replay(
        before, made.log, undo, [](const Pair&) { return true; }, back);
    const Replayed undone = replay(made.after, record(made.after, undo), undo, fits, back);
    return {job.states + undone.states, job.wrong + undone.wrong,
            job.unfinished + undone.unfinished};
}

/// State and slot of each block of the main that a spare says something about.
using Meaning = std::map<std::uint64_t, std::pair<std::uint8_t, std::uint64_t>>;

/// Nothing if there is no set that opens.
inline std::optional<Meaning> meaning(const Pair& pair) {
    constexpr std::uint8_t undecidable = 255;
    remap::MemoryIo spare("spare", pair.spare, pair.block);
    try {
        Meaning all;
        const remap::Superblock superblock = remap::load_superblock(spare);
        for (const remap::Mapping& m :
             remap::live_mappings(remap::load_intact_table(spare, superblock))) {
            all[m.block] = {m.undecidable ? undecidable : m.entry.state(), m.slot};
        }
        return all;
    } catch (const remap::Error&) {
        return std::nullopt;
    }
}

/// Is each block as in one of them?
inline bool between(const Meaning& now, const Meaning& before, const Meaning& after) {
    const auto in = [](const Meaning& all, std::uint64_t block) {
        const auto found = all.find(block);
        return found == all.end() ? std::pair<std::uint8_t, std::uint64_t>{} : found->second;
    };
    const auto fits = [&](const auto& entry) {
        const auto is = in(now, entry.first);
        return is == in(before, entry.first) || is == in(after, entry.first);
    };
    return std::all_of(now.begin(), now.end(), fits) &&
           std::all_of(before.begin(), before.end(), fits) &&
           std::all_of(after.begin(), after.end(), fits);
}

/// The set as a dump; empty if there is none.
inline std::string dump_text(const Pair& pair) {
    remap::MemoryIo spare("spare", pair.spare, pair.block);
    std::ostringstream out;
    const auto writer = remap::make_text_writer(out);
    try {
        remap::visit_set(spare, false, *writer);
    } catch (const remap::Error&) {
        return {};
    }
    return out.str();
}

}  // namespace fixture
