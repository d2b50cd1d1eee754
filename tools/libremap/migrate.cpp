// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/migrate.hpp"

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "libremap/error.hpp"
#include "libremap/identity.hpp"
#include "libremap/logged_job.hpp"
#include "libremap/metadata.hpp"
#include "libremap/probe.hpp"
#include "libremap/spare_target.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

using Outcome = OlderVerdict::Outcome;

/// Fills slots, one block each, and reads them back.
class SlotFiller {
  public:
    SlotFiller(BlockIo& old_spare, BlockIo& main, BlockIo& to, const Superblock& sb,
               const AdoptPlan& adopt)
        : old_(old_spare),
          main_(main),
          to_(to),
          sb_(sb),
          now_(adopt.entry_time),
          entries_(adopt.skip_slots) {}

    void fill(const std::vector<MigratedBlock>& blocks, Observer& observer);
    std::vector<Entry> take() { return std::move(entries_); }

  private:
    struct Placed {
        std::uint64_t slot = 0;
        const MigratedBlock* block = nullptr;
        bool lost = false;
    };

    std::vector<std::uint8_t> content_of(const MigratedBlock& block, bool& lost);
    std::uint64_t next_slot();
    void mark(std::uint64_t slot, remap_entry_state state, const MigratedBlock& block, int error);
    std::vector<const MigratedBlock*> write_once(const std::vector<const MigratedBlock*>& todo,
                                                 Observer& observer);

    BlockIo& old_;
    BlockIo& main_;
    BlockIo& to_;
    const Superblock& sb_;
    std::uint32_t now_;
    std::vector<Entry> entries_;
    std::uint32_t sequence_ = 0;
};

/// The block as the old remap device would have shown it; zeroes if a part of it cannot be read.
std::vector<std::uint8_t> SlotFiller::content_of(const MigratedBlock& block, bool& lost) {
    std::vector<std::uint8_t> bytes(sb_.block_size());

    lost = block.lost;
    for (std::size_t i = 0; !lost && i < block.sectors.size(); i++) {
        const Bytes sector = Bytes(bytes).subspan(i * sector_size, sector_size);
        const auto& from = block.sectors[i];
        lost = (from ? old_.try_read(*from, sector)
                     : main_.try_read(block.block * sb_.block_sectors() + i, sector)) != 0;
    }
    if (lost)
        std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
    return bytes;
}

std::uint64_t SlotFiller::next_slot() {
    while (entries_.size() < sb_.segment().nr_slots && sb_.slot_reserved(entries_.size()))
        entries_.emplace_back();
    if (entries_.size() >= sb_.segment().nr_slots)
        throw Error(Exit::operational, cat(to_.name(), ": not enough working slots"));
    entries_.emplace_back();
    return entries_.size() - 1;
}

void SlotFiller::mark(std::uint64_t slot, remap_entry_state state, const MigratedBlock& block,
                      int error) {
    entries_[slot] =
        Entry::make(state, block.block, REMAP_CAUSE_MIGRATION, static_cast<std::uint8_t>(error),
                    ++sequence_ & REMAP_ENTRY_SEQ_MASK, block.time ? block.time : now_);
}

/// Writes each block to a slot of its own, and reads all of them back after a flush; those whose
/// slot failed are returned.
std::vector<const MigratedBlock*> SlotFiller::write_once(
    const std::vector<const MigratedBlock*>& todo, Observer& observer) {
    std::vector<const MigratedBlock*> again;
    std::vector<Placed> placed;
    std::uint64_t done = 0;
    const std::uint64_t total = 2 * todo.size() * sb_.block_sectors();
    const auto shown = [&] { observer.progress("copying", done += sb_.block_sectors(), total); };

    for (const MigratedBlock* block : todo) {
        const std::uint64_t slot = next_slot();
        bool lost = false;
        const auto bytes = content_of(*block, lost);
        if (const int error = to_.try_write(sb_.slot_sector(slot), bytes)) {
            mark(slot, REMAP_ENTRY_BAD, *block, error);
            again.push_back(block);
        } else {
            placed.push_back({slot, block, lost});
        }
        shown();
    }
    to_.flush();
    std::vector<std::uint8_t> back(sb_.block_size());
    for (const Placed& p : placed) {
        bool lost = false;
        const auto bytes = content_of(*p.block, lost);
        const int error = to_.try_read(sb_.slot_sector(p.slot), back);
        // A source that reads differently the second time is not to be trusted either.
        if (error || lost != p.lost || back != bytes) {
            mark(p.slot, REMAP_ENTRY_BAD, *p.block, error ? error : EIO);
            again.push_back(p.block);
        } else {
            mark(p.slot, lost ? REMAP_ENTRY_LOST : REMAP_ENTRY_MAPPED, *p.block, lost ? EIO : 0);
        }
        shown();
    }
    return again;
}

void SlotFiller::fill(const std::vector<MigratedBlock>& blocks, Observer& observer) {
    std::vector<const MigratedBlock*> todo;

    for (const MigratedBlock& block : blocks)
        todo.push_back(&block);
    while (!todo.empty())
        todo = write_once(todo, observer);
}

void wipe_ranges(BlockIo& io, const std::vector<ByteRange>& ranges) {
    const std::uint64_t unit = io.logical_block_size();

    for (const ByteRange& range : ranges) {
        const std::uint64_t start = range.offset / unit * unit;
        const std::uint64_t end = std::min((range.offset + range.length + unit - 1) / unit * unit,
                                           io.size() * sector_size);
        if (range.length > 0 && start < end)
            io.write(start / sector_size, std::vector<std::uint8_t>(end - start));
    }
}

}  // namespace

Superblock write_migrated(BlockIo& old_spare, BlockIo& main, BlockIo& new_spare,
                          const AdoptPlan& adopt, const MigratePlan& plan, Observer& observer) {
    Superblock sb = adopt.superblock;

    // No set before the last step, and nothing that is not ours left to be recognised.
    wipe_superblocks(new_spare);
    wipe_ranges(new_spare, adopt.wipe);
    new_spare.flush();
    SlotFiller filler(old_spare, main, new_spare, sb, adopt);
    filler.fill(plan.blocks, observer);
    std::vector<Entry> entries = filler.take();
    const std::uint64_t used =
        (entries.size() + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK;
    sb.table_length = std::max(sb.table_length, used);
    entries.resize(sb.table_length * REMAP_ENTRIES_PER_BLOCK);
    write_table(new_spare, sb, sb.head.generation, entries);
    sb = next_superblock(new_spare, sb);
    write_superblock(new_spare, sb);
    if (load_intact_table(new_spare, load_superblock(new_spare)).entries != entries)
        throw Error(Exit::operational,
                    cat(new_spare.name(), ": what was written is not what is read back"));
    return sb;
}

std::vector<SectorRun> migration_reserve(const AdoptPlan& adopt, const MigratePlan& plan) {
    const Superblock& sb = adopt.superblock;
    // A quarter of them, and some: a device with more failing slots is no spare.
    const std::uint64_t wanted = plan.blocks.size() + plan.blocks.size() / 4 + 64;
    std::vector<SectorRun> runs;
    std::uint64_t slot = adopt.skip_slots;

    for (std::uint64_t n = 0; n < wanted && slot < sb.segment().nr_slots; slot++) {
        if (sb.slot_reserved(slot))
            continue;
        runs.push_back({sb.slot_sector(slot), sb.block_sectors()});
        n++;
    }
    const std::uint64_t blocks = (slot + REMAP_ENTRIES_PER_BLOCK - 1) / REMAP_ENTRIES_PER_BLOCK;
    for (unsigned int copy = 0; copy < sb.segment().nr_copies; copy++)
        runs.push_back({sb.table_sector(0, copy), blocks * REMAP_TABLE_BLOCK_SECTORS});
    return runs;
}

MigrateJob::MigrateJob(MigrateOptions options) : options_(std::move(options)) {
    open_devices();
    const auto older = read_older(*old_);
    if (!older)
        throw Error(Exit::unrecognised,
                    cat(options_.old_spare,
                        ": expected a spare of the older project, found none of its formats"));
    older_ = *older;
    choose_block_size();
    rules_.entry_sectors = options_.entry_sectors;
    rules_.doubtful = options_.doubtful;
    plan_ = plan_migration(*old_, *main_, older_, rules_);
    AdoptRequest request;
    request.block_size = rules_.block_size;
    request.bare = true;
    request.label = options_.label;
    request.main_identity = identify_path(options_.main);
    request.spare_identity = identify_path(options_.new_spare);
    request.now = static_cast<std::uint64_t>(std::time(nullptr));
    adopt_ = plan_adoption(*main_, *new_, request);
    const std::uint64_t slots = adopt_.superblock.segment().nr_slots;
    if (plan_.blocks.size() > slots)
        throw Error(Exit::usage, cat(options_.new_spare, ": too small: expected room for ",
                                     plan_.blocks.size(), " blocks, found ", slots));
}

void MigrateJob::open_devices() {
    const auto differ = [](const std::string& a, const std::string& b) {
        if (same_device(a, b))
            throw Error(Exit::usage, cat(a, ": is the same device as ", b));
    };
    const auto unused = [](const std::string& path) {
        std::string users;
        for (const std::string& user : users_of(path))
            users += cat(users.empty() ? "" : "; ", user);
        if (!users.empty())
            throw BusyError(cat(path, ": in use: ", users));
    };

    differ(options_.old_spare, options_.new_spare);
    differ(options_.main, options_.new_spare);
    differ(options_.main, options_.old_spare);
    unused(options_.old_spare);
    unused(options_.main);
    old_ = open_block_io(options_.old_spare, Mode::read_only);
    main_ = open_block_io(options_.main, Mode::read_only);
    if (probe_member(*main_))
        throw Error(Exit::unrecognised,
                    cat(options_.main,
                        ": is a member of a set already, not the main of an older "
                        "spare"));
    const auto main_disk = block_device_of(options_.main);
    const auto new_disk = block_device_of(options_.new_spare);
    if (main_disk && new_disk && main_disk->whole == new_disk->whole && !options_.force)
        throw Error(Exit::usage,
                    cat(options_.new_spare, ": lies on the same disk (", new_disk->whole, ") as ",
                        options_.main, " and would fail with it; --force takes it all the same"));
    new_ = open_spare_target(options_.new_spare);
    const TargetContent content = content_of_target(*new_);
    if (content.is_main)
        throw Error(Exit::unrecognised, cat(options_.new_spare, ": is ", content.description,
                                            "; --force does not override this"));
    if (content.anything && !options_.force)
        refuse_without_force(options_.new_spare, content.description);
    replaced_ = content.description;
}

void MigrateJob::choose_block_size() {
    rules_.block_size = options_.block_size ? options_.block_size : main_->logical_block_size();
    if (options_.block_size && main_->is_block_device() &&
        options_.block_size != main_->logical_block_size())
        throw Error(Exit::usage, cat(options_.main,
                                     ": --block-size is for image files; the "
                                     "device's own is ",
                                     main_->logical_block_size(), " bytes"));
    if (new_->logical_block_size() > rules_.block_size)
        throw Error(Exit::usage,
                    cat(options_.new_spare, ": its logical blocks (", new_->logical_block_size(),
                        " bytes) are larger than the main's (", rules_.block_size, ")"));
}

void MigrateJob::show(Emitter& out) const {
    std::uint64_t lost = 0;

    for (const MigratedBlock& block : plan_.blocks)
        lost += block.lost;
    out.text("old_spare", options_.old_spare);
    out.text("format", older_kind_name(older_.kind));
    out.text("main", options_.main);
    out.text("new_spare", options_.new_spare);
    out.text("set", adopt_.superblock.head.set_uuid.str());
    out.quantity("block_size", rules_.block_size, "bytes");
    out.quantity("entry_sectors", rules_.entry_sectors.value_or(1), "sectors");
    out.quantity("copied", plan_.blocks.size() - lost, "blocks");
    out.quantity("lost", lost, "blocks");
    out.begin_list("entries");
    for (const OlderVerdict& verdict : plan_.verdicts) {
        out.begin_object("");
        out.number("main_sector", verdict.entry.original);
        out.number("spare_sector", verdict.entry.spare);
        out.text("outcome", outcome_name(verdict.outcome));
        if (!verdict.reason.empty())
            out.text("reason", verdict.reason);
        out.end_object();
    }
    out.end_list();
    out.begin_list("cannot_tell");
    for (const std::string& limit : older_limits(older_))
        out.text("", limit);
    out.end_list();
    out.finish();
}

std::string MigrateJob::consequences() const {
    return cat(options_.new_spare, ": everything on it will be lost",
               replaced_.empty() ? "" : cat(", it is ", replaced_), ". ", options_.old_spare,
               " and ", options_.main, " are not changed.");
}

Exit MigrateJob::exit() const {
    return plan_.doubts() || older_.disagree || !older_.best() ? Exit::damage : Exit::ok;
}

Superblock MigrateJob::run(Observer& observer) {
    Superblock made;
    const SpareJob job = [&](BlockIo& spare, Observer& to) {
        made = write_migrated(*old_, *main_, spare, adopt_, plan_, to);
    };

    options_.undo.devices = {options_.new_spare};
    if (options_.undo.file || !replaced_.empty())
        run_logged(*new_, options_.undo, migration_reserve(adopt_, plan_), job, observer);
    else
        job(*new_, observer);
    return made;
}

}  // namespace remap
