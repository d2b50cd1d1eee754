// SPDX-License-Identifier: GPL-2.0-or-later
//
// Memory that is not there: in a life that does a little of everything each allocation fails, alone
// or with all others from then on. Nothing may be lost, left over or used after it was freed.
#include <cerrno>
#include <iostream>

#include "stage.hpp"
#include "workload.hpp"

namespace model {
namespace {

constexpr std::uint64_t bad_block = 2050;
constexpr std::uint64_t good_block = 2100;
constexpr std::uint64_t unreadable_block = 2110;

/// What fails beside the nth allocation.
enum class Shortage : std::uint8_t {
    one,      ///< nothing
    a_while,  ///< all others until the step of the life is over
    for_good,
};

/// No step may end otherwise: it is done, or says why not.
const std::set<int> message_errors{0, 1, -ENOMEM, -EIO, -ENOSPC, -EUCLEAN, -EROFS};

class ShortLife {
  public:
    ShortLife(Stage& stage, std::uint64_t nth, Shortage shortage)
        : stage_(stage), shortage_(shortage) {
        stage_.world().allocations_left = nth;
        stage_.world().all_others_too = shortage != Shortage::one;
    }

    /// Returns whether there was an nth allocation.
    bool run() {
        for (std::uint64_t b = bad_block; b < bad_block + 8; b++)
            stage_.faults.bad_write[main_disk].insert(b * sectors());
        stage_.faults.bad_read[main_disk].insert(unreadable_block * sectors());
        stage_.faults.bad_write[spare_disk].insert(first_slot());
        first_load();
        second_load();
        const bool reached = stage_.world().allocations_left == 0;
        stage_.world().allocations_left = 0;
        stage_.world().out_of_memory = false;
        check();
        return reached;
    }

  private:
    std::uint32_t sectors() const { return stage_.layout().block_sectors(); }

    /// The slot that is given out first; it fails.
    std::uint64_t first_slot() const {
        std::uint64_t slot = 0;

        for (std::uint64_t b = 0; b < stage_.layout().options.main_blocks; b++)
            slot += stage_.layout().hidden(b) ? 1 : 0;
        slot += stage_.layout().options.bad_slots;
        return stage_.layout().slot_sector(slot);
    }

    void step_is_over() {
        if (shortage_ != Shortage::a_while || !stage_.world().out_of_memory)
            return;
        stage_.world().out_of_memory = false;
        stage_.world().all_others_too = false;
    }

    /// A set that cannot be loaded for want of memory can be loaded when there is some.
    bool open() {
        const std::string reason = stage_.try_open();
        step_is_over();
        if (!reason.empty() && !model_clean())
            throw Violation("6", "memory or work is left over by a load that failed: " + reason);
        if (!reason.empty())
            stage_.count("loads without memory");
        if (reason.empty() || stage_.world().out_of_memory)
            return reason.empty();
        stage_.open();
        return true;
    }

    void write(std::uint64_t block, std::uint32_t count, bool fua = false) {
        stage_.write(block, count, fua);
        step_is_over();
    }

    void flush() {
        if (!stage_.flush())
            throw Violation("kernel", "a flush fails for want of memory");
        step_is_over();
    }

    void message_ends(int ret) {
        if (message_errors.count(ret) == 0)
            throw Violation("kernel", "a message ends with " + std::to_string(ret));
        step_is_over();
    }

    void first_load() {
        if (!open())
            return;
        write(good_block, 1);
        write(bad_block, 1);
        write(bad_block + 2, 6);  // one by one, and the table grows
        flush();
        write(bad_block, 1, true);
        stage_.world().suspend(true);
        const std::string reason = stage_.world().resume();
        if (!reason.empty())
            throw Violation("3", "resuming a suspended device: " + reason);
        step_is_over();
        message_ends(stage_.remap(good_block, 3));
        message_ends(stage_.remap(unreadable_block));
        message_ends(stage_.forget(good_block, 2));
        message_ends(stage_.message("check"));
        message_ends(stage_.message("list 0 5"));
        doubt();
        flush();
        stage_.close();
        step_is_over();
    }

    /// A commit that reaches the medium and fails, while there is no memory.
    void doubt() {
        stage_.faults.script = [this](DiskId id, const model_io& io) -> std::optional<Outcome> {
            if (id != spare_disk || io.op != MODEL_WRITE || !stage_.layout().table_copy(io.sector))
                return std::nullopt;
            return Outcome{MODEL_IOERR, {Extent::all, 0, 0}, false};
        };
        stage_.faults.bad_write[main_disk].insert((good_block + 5) * sectors());
        write(good_block + 5, 1);
        stage_.faults.script = nullptr;
        write(good_block + 5, 1);
    }

    void second_load() {
        if (!open())
            return;
        write(bad_block + 1, 2);
        flush();
        stage_.close();
        step_is_over();
    }

    /// With memory again, and disks that work, all is as it should be.
    void check() {
        stage_.faults.bad_write = {};
        stage_.faults.bad_read = {};
        stage_.open();
        for (const std::uint64_t block : stage_.layout().window.blocks)
            stage_.world().user_read(block, 1);
        stage_.world().drain();
        if (!stage_.write(good_block, 8) || !stage_.write(bad_block, 8) || !stage_.flush())
            throw Violation("1", "a write fails though there is memory again");
        stage_.close();
    }

    Stage& stage_;
    Shortage shortage_;
};

struct Kind {
    bool adopted;
    bool fua;
    std::uint64_t free;  ///< slots in the first block of the table
};

/// False: there is no nth allocation.
bool run_one(const Kind& kind, std::uint64_t nth, Shortage shortage, Counters& counters,
             bool verbose) {
    StageOptions options;
    options.set.adopted = kind.adopted;
    options.set.nr_slots = 700;
    options.set.mapped = 0;
    options.set.lost = 0;
    options.set.bad_slots = nearly_full(options.set, kind.free);
    options.verbose = verbose;
    for (DiskTraits& traits : options.traits)
        traits.fua = kind.fua;

    try {
        Stage stage(options, counters);
        const bool reached = ShortLife(stage, nth, shortage).run();
        stage.check({40, 10, 1, 5, 4, false});
        return reached;
    } catch (const Violation& v) {
        static constexpr std::array names{"", " and some after it", " and all after it"};
        throw Violation(v.invariant(), "allocation " + std::to_string(nth) +
                                           names.at(static_cast<std::size_t>(shortage)) +
                                           (kind.adopted ? ", adopted" : ", bare") +
                                           (kind.fua ? "" : ", no FUA") + ": " + v.what());
    }
}

}  // namespace

std::uint64_t run_without_memory(Counters& counters, bool verbose) {
    std::uint64_t lives = 0;

    for (const Kind& kind : {Kind{true, true, 4}, Kind{false, false, 4}}) {
        for (const Shortage shortage : {Shortage::one, Shortage::a_while, Shortage::for_good}) {
            std::uint64_t nth = 1;
            for (; run_one(kind, nth, shortage, counters, verbose); nth++)
                lives++;
            if (verbose)
                std::cout << nth - 1 << " allocations\n";
        }
    }
    return lives;
}

}  // namespace model
