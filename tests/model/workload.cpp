// SPDX-License-Identifier: GPL-2.0-or-later
#include "workload.hpp"

#include <algorithm>
#include <cerrno>
#include <sstream>

#include "stage.hpp"

namespace model {
namespace {

constexpr unsigned int max_outstanding = 10;
constexpr unsigned long hour = 3601UL * 250;

SetOptions random_set(Random& random) {
    SetOptions o;

    o.adopted = random.percent(65);
    o.nr_copies = static_cast<std::uint8_t>(random.percent(60) ? 2 : random.between(3, 4));
    if (random.percent(35)) {
        o.block_shift = 12;
        o.spare_sectors = 8192;
        o.nr_slots = 600;
    } else {
        o.spare_sectors = 2048 + 8 * random.below(100);
        o.nr_slots = random.between(560, 900);
    }
    if (random.percent(20))
        o.first_sequence = 0xffffff - static_cast<std::uint32_t>(random.below(60));
    o.mapped = random.below(20);
    o.lost = random.below(8);
    // Some tables are so full that they have to grow soon.
    if (random.percent(50))
        o.bad_slots = nearly_full(o, random.below(20));
    return o;
}

DiskTraits random_disk(Random& random, unsigned int block_bytes) {
    DiskTraits traits;

    traits.write_cache = random.percent(80);
    traits.fua = random.percent(75);
    traits.physical_block_size = random.percent(40) ? 4096 : block_bytes;
    return traits;
}

/// Runs over a set's life: what happens to it from above and from below.
class Life {
  public:
    Life(Scene& scene, World& world, Faults& faults, Random& random)
        : scene_(scene),
          world_(world),
          faults_(faults),
          random_(random),
          table_fails_(random.percent(35)) {}

    void run(unsigned int operations) {
        open();
        for (unsigned int i = 0; i < operations; i++)
            operation();
        finish();
    }

  private:
    void open() {
        world_.meanwhile = nullptr;
        world_.forbid_writes = {true, true};
        const std::string reason = world_.open();
        if (!reason.empty()) {
            std::string text = reason;
            for (const std::string& message : world_.messages)
                text += "\n    " + message;
            throw Violation("3", "without a power cut the set does not load: " + text);
        }
        world_.forbid_writes = {};
        table_length_ = world_.status_number(status_table_length);
        epoch_ = world_.status_number(status_epoch);
        activations_ = 0;
        world_.meanwhile = [this] { io(); };
    }

    /// What was on the members at some end, for check_old_copies().
    void keep_copies() {
        if (!scene_.layout.options.adopted || !random_.percent(30))
            return;
        old_[main_disk] = std::make_unique<Image>(*scene_.images[main_disk]);
        old_[spare_disk] = std::make_unique<Image>(*scene_.images[spare_disk]);
    }

    /// A member from before the last activation is refused beside the other one: invariant 8.
    void check_old_copies() {
        for (const DiskId id : {main_disk, spare_disk}) {
            if (!old_[id])
                continue;
            std::array<Image*, 2> images = scene_.images;
            images[id] = old_[id].get();
            World world(scene_.layout, scene_.traits, images, random_, scene_.counters);
            if (world.open().empty())
                throw Violation("8", std::string("an old copy of the ") +
                                         (id == main_disk ? "main" : "spare") + " is accepted");
            scene_.counters["old copies refused"]++;
        }
    }

    void close() {
        world_.meanwhile = nullptr;
        note();
        // Who closes a device for good flushes it, and is told then that a drive lost its cache:
        // the next instance knows nothing of that.
        if (world_.oracle->shaken()) {
            world_.user_flush();
            world_.drain();
        }
        world_.close();
        keep_copies();
    }

    /// Counts what the status line shows to have happened.
    void note() {
        const std::uint64_t length = world_.status_number(status_table_length);
        const std::uint64_t epoch = world_.status_number(status_epoch);

        if (length > table_length_)
            scene_.counters["table extended"]++;
        if (epoch > epoch_ && ++activations_ > 1)
            scene_.counters["epoch raised by a later commit"]++;
        table_length_ = length;
        epoch_ = epoch;
        scene_.counters["blocks remapped"] += world_.status_number(status_remapped) != 0;
    }

    void operation() {
        const std::uint64_t dice = random_.below(100);

        scene_.counters["in doubt"] += world_.status_number(status_doubt) != 0;
        if (table_fails_ && random_.percent(6)) {
            fail_table();
        } else if (random_.percent(5)) {
            message();
        } else if (dice < 76) {
            io();
            for (std::uint64_t n = random_.below(12); n > 0; n--)
                world_.step();
        } else if (dice < 81) {
            close();
            open();
            scene_.counters["reloads"]++;
        } else if (dice < 86) {
            suspend();
        } else if (dice < 89) {
            world_.drain();
            note();
            jiffies = jiffies + hour;
            model_seconds += 3601;
        } else if (dice < 96) {
            change_faults();
        } else {
            lose_main();
        }
    }

    void suspend() {
        world_.suspend(random_.percent(50));
        const std::string reason = world_.resume();
        if (!reason.empty())
            throw Violation("3", "resuming a suspended device: " + reason);
        scene_.counters["suspends"]++;
    }

    std::uint64_t block(std::uint32_t count) {
        const auto& blocks = scene_.layout.window.blocks;

        for (;;) {
            const std::size_t at = random_.below(blocks.size());
            if (at + count <= blocks.size() && blocks[at + count - 1] == blocks[at] + count - 1)
                return blocks[at];
        }
    }

    void io() {
        if (world_.outstanding() >= max_outstanding)
            return;
        const std::uint64_t dice = random_.below(100);
        const std::uint32_t count = random_.percent(55) ? 1
                                    : random_.percent(70)
                                        ? static_cast<std::uint32_t>(random_.between(2, 8))
                                        : static_cast<std::uint32_t>(random_.between(9, 64));
        const std::uint64_t at = block(count);

        if (dice < 62)
            world_.user_write(at, count, random_.percent(20), random_.percent(6));
        else if (dice < 84)
            world_.user_read(at, count);
        else
            world_.user_flush();
    }

    void change_faults() {
        const std::uint32_t size = scene_.layout.block_sectors();
        auto& bad = faults_.bad_write[main_disk];

        switch (random_.below(4)) {
            case 0:
            case 1:
                bad.insert(block(1) * size + random_.below(size));
                break;
            case 2:
                if (!bad.empty())
                    bad.erase(bad.begin());
                break;
            default:
                faults_.bad_write[spare_disk].insert(
                    scene_.layout.slot_sector(random_.below(scene_.layout.options.nr_slots / 2)));
                break;
        }
    }

    /// Messages remap and forget, alone or while others write.
    void message() {
        const auto& unreadable = faults_.bad_read[main_disk];
        auto count = static_cast<std::uint32_t>(random_.between(1, 8));
        std::uint64_t at = block(count);
        if (!unreadable.empty() && random_.percent(50)) {
            at = *unreadable.begin() / scene_.layout.block_sectors();
            count = 1;
        }
        const bool forget = random_.percent(50);
        const bool quiet = random_.percent(50);

        if (quiet) {
            world_.meanwhile = nullptr;
            world_.drain();
        }
        const int ret = forget ? world_.user_forget(at, count) : world_.user_remap(at, count);
        static const std::set<int> errors{0, -EIO, -ENOSPC, -EUCLEAN, -EPERM, -EROFS};
        if (errors.count(ret) == 0)
            throw Violation("kernel", "a message ends with " + std::to_string(ret));
        scene_.counters[ret != 0 ? "messages refused" : forget ? "forgotten" : "moved"]++;
        if (quiet && ret == 0 && world_.status_number(status_doubt) == 0)
            check_message(at, count, forget);
        world_.meanwhile = [this] { io(); };
    }

    void check_message(std::uint64_t at, std::uint32_t count, bool forget) {
        const auto live = live_entries(scene_.layout, *scene_.images[spare_disk]);

        for (std::uint64_t b = at; live && b < at + count; b++) {
            if ((live->count(b) != 0) == forget)
                throw Violation("1", "block " + std::to_string(b) + (forget ? " is" : " is not") +
                                         " in the table after message " +
                                         (forget ? "forget" : "remap"));
        }
    }

    /// All copies of the table fail for a while: a commit of unknown outcome. Then the writer tries
    /// again, and the main may take the block now.
    void fail_table() {
        const std::uint32_t size = scene_.layout.block_sectors();
        const std::uint64_t at = block(1);
        const bool before = world_.status_number(status_doubt) != 0;

        world_.meanwhile = nullptr;
        faults_.bad_write[main_disk].insert(at * size);
        faults_.script = [this](DiskId id, const model_io& io) -> std::optional<Outcome> {
            if (id != spare_disk || io.op != MODEL_WRITE || !scene_.layout.table_copy(io.sector))
                return std::nullopt;
            Extent reached = Extent::torn(random_, io.bytes / 512);
            if (random_.percent(70))
                reached.kind = random_.percent(50) ? Extent::all : Extent::none;
            return Outcome{MODEL_IOERR, reached, false};
        };
        world_.user_write(at, 1, random_.percent(50), false);
        world_.drain();
        faults_.script = nullptr;
        if (random_.percent(50))
            faults_.bad_write[main_disk].erase(at * size);
        if (!before && world_.status_number(status_doubt) != 0) {
            world_.user_write(at, 1, random_.percent(50), false);
            world_.drain();
            scene_.counters["doubt settled"] += world_.status_number(status_doubt) == 0;
        }
        world_.meanwhile = [this] { io(); };
    }

    /// With the main gone no block of it may get a slot: invariant 5.
    void lose_main() {
        world_.meanwhile = nullptr;
        world_.drain();
        if (world_.status_number(status_doubt) == 0) {
            const auto before = live_entries(scene_.layout, *scene_.images[spare_disk]);
            faults_.gone[main_disk] = true;
            for (unsigned int i = 0; i < 4; i++)
                io();
            world_.drain();
            faults_.gone[main_disk] = false;
            const auto after = live_entries(scene_.layout, *scene_.images[spare_disk]);
            if (before && after) {
                for (const auto& [block, slots] : *after) {
                    if (before->count(block) == 0)
                        throw Violation("5", "block " + std::to_string(block) +
                                                 " got a slot while the main was gone");
                }
            }
            scene_.counters["main lost"]++;
        }
        world_.meanwhile = [this] { io(); };
    }

    /// Without faults, one load and one write settle everything: invariant 4.
    void finish() {
        world_.meanwhile = nullptr;
        world_.drain();
        close();
        world_.faults = nullptr;
        open();
        world_.meanwhile = nullptr;
        world_.user_write(block(1), 1, true, false);
        world_.user_flush();
        world_.drain();
        const auto live = live_entries(scene_.layout, *scene_.images[spare_disk]);
        if (!live)
            throw Violation("3", "no valid table after an orderly end");
        for (const auto& [block, slots] : *live) {
            if (slots.size() > 1)
                throw Violation("4", "block " + std::to_string(block) + " has " +
                                         std::to_string(slots.size()) + " slots");
        }
        check_replies(*live);
        world_.close();
        check_old_copies();
    }

    /// Messages check and list, page by page.
    void check_replies(const std::map<std::uint64_t, std::vector<std::uint64_t>>& live) {
        std::string reply;
        std::set<std::uint64_t> listed;
        std::uint64_t next = 0;

        if (world_.message("check", &reply) != 1 || reply != "ok")
            throw Violation("kernel", "message check after an orderly end: " + reply);
        do {
            if (world_.message("list " + std::to_string(next) + " 3", &reply) != 1)
                throw Violation("kernel", "message list fails");
            std::istringstream words(reply);
            std::uint64_t block = 0, count = 0;
            std::string slot, where;
            while (words >> block >> count >> slot >> where) {
                next = block + count;
                for (; count > 0; count--)
                    listed.insert(block++);
            }
        } while (!reply.empty());
        for (const auto& [block, slots] : live) {
            if (listed.erase(block) == 0)
                throw Violation("kernel", "message list leaves out " + std::to_string(block));
        }
        if (!listed.empty())
            throw Violation("kernel", "message list tells of what is not in the table");
    }

    Scene& scene_;
    World& world_;
    Faults& faults_;
    Random& random_;
    std::uint64_t table_length_ = 0;
    std::uint64_t epoch_ = 0;
    unsigned int activations_ = 0;
    bool table_fails_;
    std::array<std::unique_ptr<Image>, 2> old_;
};

void random_spare_faults(const SetLayout& layout, Random& random, Faults& faults) {
    auto& bad = faults.bad_write[spare_disk];
    const unsigned int copies = layout.options.nr_copies;

    for (std::uint64_t n = random.below(6); n > 0; n--)
        bad.insert(layout.slot_sector(layout.options.bad_slots + random.below(80)));
    // One copy of the table at least stays good, and a quorum of superblocks.
    if (random.percent(25)) {
        const std::uint64_t good = random.below(copies);
        for (unsigned int i = 0; i < copies; i++) {
            if (i != good && random.percent(60))
                bad.insert(layout.table_start[i] + random.below(layout.table_blocks * 8));
        }
    }
    if (random.percent(20)) {
        for (unsigned int i = 0; i < 2; i++)
            bad.insert(random.pick(layout.sb_sector) + random.below(8));
    }
}

Faults random_faults(const SetLayout& layout, Random& random) {
    Faults faults;
    const auto& blocks = layout.window.blocks;

    for (std::uint64_t n = random.below(25); n > 0; n--) {
        const std::uint64_t block = random.pick(blocks);
        for (std::uint64_t run = random.percent(70) ? 1 : random.below(6); run > 0; run--)
            faults.bad_write[main_disk].insert((block + run) * layout.block_sectors() +
                                               random.below(layout.block_sectors()));
    }
    if (random.percent(40)) {
        for (std::uint64_t n = random.below(4); n > 0; n--)
            faults.bad_read[main_disk].insert(random.pick(blocks) * layout.block_sectors());
    }
    if (layout.options.adopted && random.percent(20)) {
        for (const std::uint64_t sector : layout.label_sector) {
            if (random.percent(70))
                faults.bad_write[main_disk].insert(sector);
        }
    }
    random_spare_faults(layout, random, faults);
    if (random.percent(40))
        faults.write_permille = {static_cast<unsigned int>(random.below(40)),
                                 static_cast<unsigned int>(random.below(25))};
    if (random.percent(35))
        faults.flush_permille = {static_cast<unsigned int>(random.below(80)),
                                 static_cast<unsigned int>(random.below(60))};
    return faults;
}

}  // namespace

std::uint64_t run_scenario(std::uint64_t seed, const ScenarioOptions& options, Counters& counters) {
    Random random(Random::mix(seed));
    jiffies = 100000 + random.below(1000);
    const SetLayout layout = plan_set(random_set(random), random);
    Image main(layout.main_sectors);
    Image spare(layout.options.spare_sectors);
    format_set(layout, random, main, spare);

    const unsigned int block_bytes = layout.block_sectors() * 512;
    Faults faults = random_faults(layout, random);
    faults.lossy_flushes = options.lossy_flushes;
    const Faults lasting = faults;
    std::vector<std::string> features;
    if (random.percent(10))
        features.emplace_back("fua");
    if (random.percent(4))
        features.emplace_back("no_auto_remap");
    Scene scene{
        layout,          {random_disk(random, block_bytes), random_disk(random, block_bytes)},
        {&main, &spare}, &lasting,
        features,        random,
        counters,        options.verbose};

    const Oracle start(layout.window, layout.lost);
    Log log;
    {
        Oracle oracle = start;
        World world(layout, scene.traits, scene.images, random, counters);
        world.features = features;
        world.faults = &faults;
        world.log = &log;
        world.ordered = false;
        world.oracle = &oracle;
        try {
            Life(scene, world, faults, random)
                .run(static_cast<unsigned int>(random.between(8, 60)));
        } catch (const Violation&) {
            print_log(scene, log, log.events.size());
            throw;
        }
    }
    main.undo_to(0);
    spare.undo_to(0);
    const std::uint64_t checked =
        check_crash_states(scene, log, start, 0, {options.states, 12, 2, 5, 6});
    if (!model_clean())
        throw Violation("6", "memory or work is left over");
    return checked;
}

void run_short_workload(Scene& scene, World& world, Oracle& oracle) {
    Random& random = scene.random;
    const auto& blocks = scene.layout.window.blocks;

    (void)oracle;
    for (std::uint64_t n = random.between(1, 6); n > 0; n--) {
        if (random.percent(75))
            world.user_write(random.pick(blocks), 1, random.percent(40), false);
        else
            world.user_flush();
        for (std::uint64_t steps = random.below(8); steps > 0; steps--)
            world.step();
    }
    world.drain();
}

}  // namespace model
