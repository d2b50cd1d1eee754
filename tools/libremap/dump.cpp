// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/dump.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <ios>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libremap/check.hpp"
#include "libremap/metadata.hpp"
#include "libremap/older_format.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

/// The outermost blocks of a main, where labels and filler of every set lie.
constexpr std::uint64_t label_area = 256;  // sectors

std::string generation_text(std::uint64_t generation) {
    return cat(generation >> 32, ".", generation & 0xffffffffU);
}

std::string hex(std::uint64_t value) {
    return cat("0x", std::hex, value);
}

void show_problem(Emitter& out, const FieldProblem& problem) {
    if (problem.field.empty())
        return;
    out.text("field", problem.field);
    out.text("expected", problem.expected);
    out.text("found", problem.found);
}

std::string flag_names(std::uint32_t flags) {
    std::string names;
    const auto name = [&](std::uint32_t bit, const char* text) {
        if ((flags & bit) != 0)
            names += cat(names.empty() ? "" : " ", text);
    };

    name(REMAP_FLAG_BARE, "bare");
    name(REMAP_FLAG_LABEL_FROZEN, "label-frozen");
    name(REMAP_FLAG_READ_ONLY, "read-only");
    return names.empty() ? "none" : names;
}

void show_lists(Emitter& out, const Superblock& sb) {
    out.begin_list("members");
    for (const Member& m : sb.members) {
        out.begin_object("");
        out.text("role", role_name(m.role));
        out.text("uuid", m.uuid.str());
        out.boolean("in_use", m.state == REMAP_MEMBER_IN_USE);
        out.quantity("size", m.size, "sectors");
        out.text("wwn", m.wwn);
        out.text("serial", m.serial);
        out.text("partuuid", m.partuuid);
        out.end_object();
    }
    out.end_list();
    out.begin_list("segments");
    for (const Segment& s : sb.segments) {
        out.begin_object("");
        out.number("member", s.member);
        out.number("first_slot", s.first_slot);
        out.quantity("slots", s.nr_slots, "slots");
        out.number("data_start", s.data_start);
        out.begin_list("table_start");
        for (unsigned int c = 0; c < s.nr_copies; c++)
            out.number("", s.table_start[c]);
        out.end_list();
        out.end_object();
    }
    out.end_list();
    out.begin_list("hidden");
    for (const Hidden& h : sb.hidden) {
        out.begin_object("");
        out.number("start", h.start);
        out.quantity("count", h.count, "blocks");
        out.boolean("exposed", (h.flags & REMAP_HIDDEN_EXPOSED) != 0);
        out.end_object();
    }
    out.end_list();
}

void show_superblock(Emitter& out, const std::string& name, const Superblock& sb) {
    out.begin_object(name);
    out.text("set_uuid", sb.head.set_uuid.str());
    out.text("label", sb.label);
    out.text("state", set_state_name(sb.head.state));
    out.text("flags", flag_names(sb.head.flags));
    out.number("version", sb.head.version);
    out.text("compat", hex(sb.head.compat));
    out.text("ro_compat", hex(sb.head.ro_compat));
    out.text("incompat", hex(sb.head.incompat));
    out.text("nonce", hex(sb.head.nonce));
    out.text("member_uuid", sb.head.member_uuid.str());
    out.text("partner_uuid", sb.head.partner_uuid.str());
    out.text("generation", generation_text(sb.head.generation));
    out.number("epoch", sb.epoch);
    out.number("label_epoch", sb.label_epoch);
    out.quantity("block_size", sb.block_size(), "bytes");
    out.quantity("main_size", sb.main_size, "sectors");
    out.quantity("spare_size", sb.spare_size, "sectors");
    out.quantity("table_length", sb.table_length, "blocks");
    out.number("live_copies", sb.live_copies);
    out.time("created", sb.created);
    out.time("updated", sb.updated);
    out.text("tool", sb.tool);
    out.begin_list("superblock_sectors");
    for (const std::uint64_t sector : sb.sb_sector)
        out.number("", sector);
    out.end_list();
    out.number("deciding_sector", sb.deciding_sector);
    out.begin_list("label_sectors");
    for (const std::uint64_t sector : sb.label_sector)
        out.number("", sector);
    out.end_list();
    show_lists(out, sb);
    out.end_object();
}

class SpareDump {
  public:
    SpareDump(BlockIo& spare, const SuperblockScan& scan, Emitter& out)
        : spare_(spare), scan_(scan), out_(out) {}

    Exit run();

  private:
    void show_copies();
    void show_versions();
    void show_table(const Superblock& sb);
    void show_entries(const Superblock& sb);
    void show_block(const Superblock& sb, const TableBlockView& view);
    void show_block_entries(const TableBlockView& view, const TableCopy& copy);

    BlockIo& spare_;
    const SuperblockScan& scan_;
    Emitter& out_;
};

void SpareDump::show_copies() {
    out_.begin_list("superblock_copies");
    for (const SuperblockCopy& copy : scan_.copies) {
        out_.begin_object("");
        out_.number("copy", copy.copy);
        out_.number("sector", copy.sector);
        out_.text("verdict", verdict_name(copy.verdict));
        if (copy.value) {
            out_.text("generation", generation_text(copy.value->head.generation));
            out_.number("epoch", copy.value->epoch);
        }
        show_problem(out_, copy.problem);
        out_.end_object();
    }
    out_.end_list();
}

/// The newest superblock, and every copy that says something else.
void SpareDump::show_versions() {
    const std::optional<Superblock>& newest = scan_.winner ? scan_.winner : scan_.majority;

    if (newest)
        show_superblock(out_, "superblock", *newest);
    for (const SuperblockCopy& copy : scan_.copies) {
        if (!copy.value || (newest && copy.verdict == Verdict::current))
            continue;
        show_superblock(out_, cat("superblock_at_sector_", copy.sector), *copy.value);
    }
}

void SpareDump::show_block(const Superblock& sb, const TableBlockView& view) {
    for (const TableCopy& copy : view.copies) {
        const bool valid = copy.header.position != 0;
        out_.begin_object("");
        out_.number("block", view.index);
        out_.number("copy", copy.copy);
        out_.number("sector", copy.sector);
        out_.text("verdict", verdict_name(copy.verdict));
        if (valid) {
            out_.text("generation", generation_text(copy.header.generation));
            out_.number("in_use", copy.header.in_use);
        }
        show_problem(out_, copy.problem);
        out_.end_object();
    }
    static_cast<void>(sb);
}

void SpareDump::show_table(const Superblock& sb) {
    out_.begin_list("table_blocks");
    visit_table(spare_, sb, 0, sb.table_length, true,
                [&](const TableBlockView& view) { show_block(sb, view); });
    out_.end_list();
}

void SpareDump::show_block_entries(const TableBlockView& view, const TableCopy& copy) {
    const bool winner =
        view.winner >= 0 && &copy == &view.copies[static_cast<std::size_t>(view.winner)];

    for (unsigned int i = 0; i < REMAP_ENTRIES_PER_BLOCK; i++) {
        const Entry entry = table_entry(copy.bytes, i);
        if (entry == Entry{})
            continue;
        out_.begin_object("");
        out_.number("slot", view.index * REMAP_ENTRIES_PER_BLOCK + i);
        out_.text("state", entry_state_name(entry.state()));
        out_.number("block", entry.block());
        out_.number("sequence", entry.sequence());
        out_.text("cause", entry_cause_name(entry.cause()));
        out_.number("errno", entry.error());
        out_.time("time", entry.time());
        if (!winner) {
            out_.number("copy", copy.copy);
            out_.text("verdict", verdict_name(copy.verdict));
        }
        out_.end_object();
    }
}

/// The winners' entries, and those of valid copies that say something else.
void SpareDump::show_entries(const Superblock& sb) {
    out_.begin_list("entries");
    visit_table(spare_, sb, 0, sb.table_length, true, [&](const TableBlockView& view) {
        for (std::size_t i = 0; i < view.copies.size(); i++) {
            const TableCopy& copy = view.copies[i];
            if (copy.header.position == 0 || copy.bytes.empty())
                continue;
            const bool winner = view.winner == static_cast<int>(i);
            if (!winner && view.winner >= 0) {
                const auto best = view.copies[static_cast<std::size_t>(view.winner)].bytes;
                if (std::equal(best.begin() + REMAP_TABLE_HEADER_SIZE, best.end(),
                               copy.bytes.begin() + REMAP_TABLE_HEADER_SIZE))
                    continue;
            }
            show_block_entries(view, copy);
        }
    });
    out_.end_list();
}

Exit SpareDump::run() {
    const CheckResult check = check_set(spare_, nullptr);
    const std::optional<Superblock>& newest = check.superblock;

    out_.text("device", spare_.name());
    out_.quantity("size", spare_.size(), "sectors");
    out_.text("role", role_name(REMAP_ROLE_SPARE));
    show_copies();
    show_versions();
    if (newest) {
        out_.quantity("slots_used", check.slots_used, "slots");
        out_.quantity("slots_total", check.slots_total, "slots");
        show_table(*newest);
        show_entries(*newest);
    }
    out_.begin_list("findings");
    for (const Finding& finding : check.findings) {
        out_.begin_object("");
        out_.text("", describe(finding));
        out_.end_object();
    }
    out_.end_list();
    out_.finish();
    return check.damaged() ? Exit::damage : Exit::ok;
}

// --- main -------------------------------------------------------------------------------------

/// A label that was found, or a place where one should be but is damaged.
struct LabelCopy {
    std::uint64_t sector = 0;
    Decoded<Label> decoded;
};

class MainDump {
  public:
    MainDump(BlockIo& main, Emitter& out) : main_(main), out_(out) {}

    /// Looks for labels and filler at both ends of the device; false if there are none.
    bool look();
    Exit run();

  private:
    void look_at(std::uint64_t sector);
    void look_at_sector(ConstBytes bytes, std::uint64_t sector);
    void show_label(const LabelCopy& copy) const;

    BlockIo& main_;
    Emitter& out_;
    std::vector<LabelCopy> labels_;
    std::vector<std::uint64_t> unreadable_;
    std::uint64_t fillers_ = 0;
    std::uint64_t bad_fillers_ = 0;
    std::uint32_t newest_ = 0;
};

void MainDump::look_at_sector(ConstBytes bytes, std::uint64_t sector) {
    auto label = decode_label(bytes, sector);

    if (label.verdict != Verdict::absent) {
        if (label.valid())
            newest_ = std::max(newest_, label.value.epoch);
        labels_.push_back({sector, std::move(label)});
        return;
    }
    const auto filler = decode_filler(bytes, sector);
    fillers_ += filler.valid();
    bad_fillers_ += !filler.valid() && filler.verdict != Verdict::absent;
}

void MainDump::look_at(std::uint64_t first) {
    const std::uint64_t count = std::min(label_area, main_.size() - first);
    std::vector<std::uint8_t> bytes(count * sector_size);
    const bool whole = main_.try_read(first, bytes) == 0;

    for (std::uint64_t i = 0; i < count; i++) {
        const Bytes sector = Bytes(bytes).subspan(i * sector_size, sector_size);
        if (!whole && main_.try_read(first + i, sector) != 0)
            unreadable_.push_back(first + i);
        else
            look_at_sector(sector, first + i);
    }
}

bool MainDump::look() {
    look_at(0);
    if (main_.size() > label_area)
        look_at(std::max(label_area, main_.size() - label_area));
    const bool any = std::any_of(labels_.begin(), labels_.end(), [](const LabelCopy& copy) {
        return copy.decoded.verdict != Verdict::wrong_role;
    });
    return any || fillers_ > 0;
}

void MainDump::show_label(const LabelCopy& copy) const {
    const auto& [verdict, value, problem] = copy.decoded;
    const Head& head = value.head;
    const bool stale = verdict == Verdict::current && value.epoch < newest_;

    out_.begin_object("");
    out_.number("sector", copy.sector);
    out_.text("verdict", verdict_name(stale ? Verdict::stale : verdict));
    if (verdict == Verdict::current || verdict == Verdict::misplaced) {
        out_.number("copy", head.copy);
        out_.text("set_uuid", head.set_uuid.str());
        out_.text("member_uuid", head.member_uuid.str());
        out_.text("partner_uuid", head.partner_uuid.str());
        out_.text("nonce", hex(head.nonce));
        out_.text("state", set_state_name(head.state));
        out_.text("generation", generation_text(head.generation));
        out_.number("epoch", value.epoch);
        out_.quantity("block_size", 1ULL << head.block_shift, "bytes");
        out_.quantity("main_size", value.main_size, "sectors");
    }
    show_problem(out_, problem);
    out_.end_object();
}

Exit MainDump::run() {
    bool damaged = bad_fillers_ > 0 || !unreadable_.empty();
    std::set<std::uint32_t> epochs;

    out_.text("device", main_.name());
    out_.quantity("size", main_.size(), "sectors");
    out_.text("role", role_name(REMAP_ROLE_MAIN));
    out_.begin_list("labels");
    for (const LabelCopy& copy : labels_) {
        show_label(copy);
        damaged |= !copy.decoded.valid();
        if (copy.decoded.verdict == Verdict::newer_version)
            throw Error(Exit::operational,
                        cat(main_.name(), ": sector ", copy.sector, ": expected format version ",
                            REMAP_VERSION, ", found a newer one"));
    }
    out_.end_list();
    out_.quantity("filler", fillers_, "sectors");
    out_.quantity("damaged_filler", bad_fillers_, "sectors");
    out_.begin_list("unreadable");
    for (const std::uint64_t sector : unreadable_)
        out_.number("", sector);
    out_.end_list();
    out_.finish();
    return damaged ? Exit::damage : Exit::ok;
}

}  // namespace

Exit dump_device(BlockIo& device, Emitter& out) {
    const SuperblockScan scan = scan_superblocks(device);

    if (scan.newer_version)
        throw Error(Exit::operational, cat(device.name(), ": expected format version ",
                                           REMAP_VERSION, ", found ", explain(scan)));
    const bool ours = std::any_of(scan.copies.begin(), scan.copies.end(), [](const auto& copy) {
        return copy.verdict != Verdict::absent && copy.verdict != Verdict::unreadable &&
               copy.verdict != Verdict::wrong_role;
    });
    if (ours)
        return SpareDump(device, scan, out).run();
    MainDump main(device, out);
    if (main.look())
        return main.run();
    if (const auto older = read_older(device))
        return show_older(device, *older, out);
    throw Error(Exit::unrecognised, cat(device.name(), ": expected a member of a set, found ",
                                        explain(scan), " and no label"));
}

}  // namespace remap
