// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/timeline.hpp"

#include <algorithm>
#include <array>
#include <tuple>
#include <vector>

#include "libremap/export.hpp"

namespace remap {
namespace {

struct Moment {
    Entry entry;
    std::uint64_t count = 1;  ///< blocks from the entry's on
};

/// Collects what is not free.
class Collector : public SetVisitor {
  public:
    void superblock(const DumpInfo& info, const Superblock& sb) override {
        static_cast<void>(info);
        set = sb;
    }
    void block(std::uint64_t index, std::uint64_t generation) override {
        static_cast<void>(index);
        static_cast<void>(generation);
    }
    void lost_block(std::uint64_t index) override {
        static_cast<void>(index);
        lost_blocks++;
    }
    void entry(std::uint64_t slot, const Entry& entry) override {
        static_cast<void>(slot);
        moments.push_back({entry});
    }
    void finish() override {}

    Superblock set;
    std::vector<Moment> moments;
    std::uint64_t lost_blocks = 0;
};

auto kind_of(const Entry& e) {
    return std::tuple(e.time(), e.cause(), e.state(), e.error());
}

/// By time; within it neighbours together.
void sort_and_join(std::vector<Moment>& moments) {
    std::sort(moments.begin(), moments.end(), [](const Moment& a, const Moment& b) {
        return std::tuple_cat(kind_of(a.entry), std::tuple(a.entry.block())) <
               std::tuple_cat(kind_of(b.entry), std::tuple(b.entry.block()));
    });
    std::size_t last = 0;
    for (std::size_t i = 1; i < moments.size(); i++) {
        Moment& before = moments[last];
        if (kind_of(before.entry) == kind_of(moments[i].entry) &&
            before.entry.block() + before.count == moments[i].entry.block())
            before.count++;
        else
            moments[++last] = moments[i];
    }
    if (!moments.empty())
        moments.resize(last + 1);
}

}  // namespace

Exit show_timeline(BlockIo& spare, Emitter& out) {
    Collector all;
    std::array<std::uint64_t, 256> by_cause{};

    const Exit code = visit_set(spare, false, all);
    for (const Moment& moment : all.moments)
        by_cause.at(moment.entry.cause())++;
    sort_and_join(all.moments);

    out.text("device", spare.name());
    out.text("set_uuid", all.set.head.set_uuid.str());
    out.time("created", all.set.created);
    out.quantity("block_size", all.set.block_size(), "bytes");
    out.quantity("lost_table_blocks", all.lost_blocks, "blocks");
    out.begin_list("causes");
    for (std::size_t cause = 0; cause < by_cause.size(); cause++) {
        if (by_cause.at(cause) == 0)
            continue;
        out.begin_object("");
        out.text("cause", entry_cause_name(static_cast<std::uint8_t>(cause)));
        out.number("entries", by_cause.at(cause));
        out.end_object();
    }
    out.end_list();
    out.begin_list("timeline");
    for (const Moment& moment : all.moments) {
        out.begin_object("");
        out.time("time", moment.entry.time());
        out.text("cause", entry_cause_name(moment.entry.cause()));
        out.text("state", entry_state_name(moment.entry.state()));
        out.number("block", moment.entry.block());
        out.number("count", moment.count);
        out.number("errno", moment.entry.error());
        out.end_object();
    }
    out.end_list();
    out.finish();
    return code;
}

}  // namespace remap
