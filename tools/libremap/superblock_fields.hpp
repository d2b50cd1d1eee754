// SPDX-License-Identifier: GPL-2.0-or-later
//
// The names of a superblock's fields in a dump, for writing and for reading: one list, so the two
// cannot drift apart.
#pragma once

#include <cstdint>

#include "libremap/format.hpp"

namespace remap {

/// Shows every field to `v`, which either takes it (`sb` is const) or sets it. `v` has number,
/// hex, generation, uuid, text, state, role, numbers (an array or a vector of them) and list.
template <typename V, typename SB>
void visit_fields(V& v, SB& sb) {
    v.uuid("set_uuid", sb.head.set_uuid);
    v.text("label", sb.label);
    v.state("state", sb.head.state);
    v.number("flags", sb.head.flags);
    v.hex("compat", sb.head.compat);
    v.hex("ro_compat", sb.head.ro_compat);
    v.hex("incompat", sb.head.incompat);
    v.hex("nonce", sb.head.nonce);
    v.uuid("member_uuid", sb.head.member_uuid);
    v.uuid("partner_uuid", sb.head.partner_uuid);
    v.generation("generation", sb.head.generation);
    v.number("epoch", sb.epoch);
    v.number("label_epoch", sb.label_epoch);
    v.number("block_shift", sb.head.block_shift);
    v.number("main_size", sb.main_size);
    v.number("spare_size", sb.spare_size);
    v.number("table_length", sb.table_length);
    v.number("live_copies", sb.live_copies);
    v.number("created", sb.created);
    v.number("updated", sb.updated);
    v.text("tool", sb.tool);
    v.numbers("superblock_sectors", sb.sb_sector, REMAP_SB_COPIES);
    v.number("deciding_sector", sb.deciding_sector);
    v.numbers("label_sectors", sb.label_sector, REMAP_MAX_LABELS);
    v.list("members", sb.members, REMAP_MAX_MEMBERS, [](V& w, auto& m) {
        w.uuid("uuid", m.uuid);
        w.role("role", m.role);
        w.number("state", m.state);
        w.number("size", m.size);
        w.text("wwn", m.wwn);
        w.text("serial", m.serial);
        w.text("partuuid", m.partuuid);
    });
    v.list("segments", sb.segments, REMAP_MAX_SEGMENTS, [](V& w, auto& s) {
        w.number("member", s.member);
        w.number("copies", s.nr_copies);
        w.numbers("table_start", s.table_start, REMAP_MAX_TABLE_COPIES);
        w.number("first_slot", s.first_slot);
        w.number("slots", s.nr_slots);
        w.number("data_start", s.data_start);
    });
    v.list("hidden", sb.hidden, REMAP_MAX_HIDDEN, [](V& w, auto& h) {
        w.number("start", h.start);
        w.number("count", h.count);
        w.number("flags", h.flags);
    });
}

}  // namespace remap
