// SPDX-License-Identifier: GPL-2.0-or-later
//
// Every class of failure on every structure and every copy of it: what is found, what the exit code
// is, what a repair makes of it, and that a second repair finds nothing to do. Each report is
// held against docs/remap-fsck.schema.json.
#include <algorithm>
#include <cerrno>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "catch.hpp"
#include "libremap/findings.hpp"
#include "sample_set.hpp"

using namespace remap;
using namespace remap::test;

namespace {

using Json = nlohmann::json;
using Image = std::vector<std::uint8_t>;

// --- the schema -------------------------------------------------------------------------------

/// As much of JSON Schema as docs/remap-fsck.schema.json uses. Returns what is wrong, or nothing.
class Schema {
  public:
    Schema() {
        std::ifstream in(REMAP_SOURCE_DIR "/docs/remap-fsck.schema.json");
        in >> root_;
    }

    std::string check(const Json& value) const { return check(value, root_, "report"); }

  private:
    std::string check(const Json& value, const Json& rule, const std::string& at) const;
    std::string check_object(const Json& value, const Json& rule, const std::string& at) const;

    Json root_;
};

std::string Schema::check_object(const Json& value, const Json& rule, const std::string& at) const {
    for (const auto& name : rule["required"]) {
        if (!value.contains(name.get<std::string>()))
            return at + ": without " + name.get<std::string>();
    }
    for (const auto& [name, member] : value.items()) {
        if (!rule["properties"].contains(name))
            return at + ": has " + name;
        const std::string bad = check(member, rule["properties"][name], at + "." + name);
        if (!bad.empty())
            return bad;
    }
    return {};
}

std::string Schema::check(const Json& value, const Json& rule, const std::string& at) const {
    static const std::set<std::string> known{
        "$schema", "title",   "description", "$defs", "type",    "additionalProperties", "required",
        "items",   "minimum", "maximum",     "enum",  "pattern", "properties",           "$ref"};

    for (const auto& [name, unused] : rule.items()) {
        if (known.count(name) == 0)
            return at + ": the schema uses " + name + ", which this test does not know";
    }
    if (rule.contains("$ref"))
        return check(value, root_.at(Json::json_pointer(rule["$ref"].get<std::string>().substr(1))),
                     at);
    if (rule.contains("enum")) {
        const auto& list = rule["enum"];
        return std::find(list.begin(), list.end(), value) != list.end() ? "" : at + value.dump();
    }
    const std::string type = rule.at("type");
    const bool right = type == "object"    ? value.is_object()
                       : type == "array"   ? value.is_array()
                       : type == "string"  ? value.is_string()
                       : type == "boolean" ? value.is_boolean()
                                           : value.is_number_integer();
    if (!right)
        return at + ": is no " + type;
    if (type == "integer" && ((rule.contains("minimum") && value < rule["minimum"]) ||
                              (rule.contains("maximum") && value > rule["maximum"])))
        return at + ": out of range";
    if (type == "object")
        return check_object(value, rule, at);
    for (std::size_t i = 0; type == "array" && i < value.size(); i++) {
        const std::string bad = check(value[i], rule["items"], at + "[" + std::to_string(i) + "]");
        if (!bad.empty())
            return bad;
    }
    return {};
}

std::string report_of(const CheckResult& result) {
    std::ostringstream out;
    JsonEmitter json(out);

    emit_report(json, "spare.img", result, "", result.exit_bits());
    return out.str();
}

// --- devices that fail ------------------------------------------------------------------------

/// Sectors that cannot be read until they are written, as a drive has them.
class PendingIo : public StackedIo {
  public:
    explicit PendingIo(BlockIo& below, std::set<std::uint64_t> pending)
        : StackedIo(below), pending_(std::move(pending)) {}

    int try_read(std::uint64_t sector, Bytes to) override {
        const auto first = pending_.lower_bound(sector);
        if (first != pending_.end() && *first < sector + to.size() / sector_size)
            return EIO;
        return StackedIo::try_read(sector, to);
    }
    int try_write(std::uint64_t sector, ConstBytes from) override {
        for (std::size_t s = 0; s < from.size() / sector_size; s++)
            pending_.erase(sector + s);
        return StackedIo::try_write(sector, from);
    }

  private:
    std::set<std::uint64_t> pending_;
};

/// A set that is being damaged.
struct Lab {
    SampleSet set;
    Image good_main;
    Image good_spare;
    std::set<std::uint64_t> pending_main;
    std::set<std::uint64_t> pending_spare;

    const Superblock& sb() const { return set.superblock; }
    /// What a repair has to bring back.
    void good() {
        good_main = set.main.content();
        good_spare = set.spare.content();
    }
};

// --- the table --------------------------------------------------------------------------------

enum class After {
    good,   ///< the identical bytes
    same,   ///< nothing was written
    other,  ///< something else, which passes the check
};

struct Outcome {
    int bits = 0;
    After after = After::good;
    int again = 0;  ///< exit code of the same repair afterwards
};

constexpr Outcome repaired{fsck::corrected, After::good, fsck::ok};
constexpr Outcome clean{fsck::ok, After::same, fsck::ok};
constexpr Outcome left{fsck::uncorrected, After::same, fsck::uncorrected};
constexpr Outcome refused{fsck::operational, After::same, fsck::operational};
/// -p leaves it alone and does not stop a boot for it.
constexpr Outcome tolerated{fsck::ok, After::same, fsck::ok};
constexpr Outcome given_up{fsck::corrected | fsck::uncorrected, After::other, fsck::uncorrected};

struct Case {
    std::string failure;
    std::string structure;
    unsigned int copy = 0;
    std::uint64_t index = 0;
    Verdict verdict = Verdict::current;
    int check = fsck::uncorrected;
    Outcome preen;
    Outcome yes;
    std::function<void(Lab&)> damage;
};

using Cases = std::vector<Case>;

/// A function that adds a case: as `base` is then, but for what it is given.
auto rows_like(Cases& cases, const Case& base) {
    return [&cases, &base](const char* failure, Verdict verdict, int check, Outcome preen,
                           Outcome yes, std::function<void(Lab&)> damage) {
        Case next = base;
        next.failure = failure;
        next.verdict = verdict;
        next.check = check;
        next.preen = preen;
        next.yes = yes;
        next.damage = std::move(damage);
        cases.push_back(std::move(next));
    };
}

/// What can happen to any 4 KiB or 512 bytes at a place.
void add_common(Cases& cases, const Case& base, const std::function<std::uint64_t(Lab&)>& at,
                std::uint64_t sectors, bool on_main, Verdict rotten, Outcome overwritten_preen) {
    const auto put = [&](const char* failure, Verdict verdict, Outcome preen,
                         const std::function<void(Lab&, MemoryIo&, std::uint64_t)>& damage) {
        Case next = base;
        next.failure = failure;
        next.verdict = verdict;
        next.preen = preen;
        next.yes = repaired;
        next.damage = [at, on_main, damage](Lab& lab) {
            damage(lab, on_main ? lab.set.main : lab.set.spare, at(lab));
        };
        cases.push_back(std::move(next));
    };

    const Outcome rot = rotten == Verdict::absent ? overwritten_preen : base.preen;
    put("bit rot in the first field", Verdict::absent, overwritten_preen,
        [](Lab&, MemoryIo& io, std::uint64_t s) { flip(io, s, 5); });
    put("bit rot in the checksum", rotten, rot, [sectors](Lab&, MemoryIo& io, std::uint64_t s) {
        flip(io, s, sectors == 8 && io.content()[s * 512] == 'R' ? 70 : 130);
    });
    put("bit rot at the end", rotten, rot,
        [sectors](Lab&, MemoryIo& io, std::uint64_t s) { flip(io, s, sectors * 4096 - 9); });
    put("overwritten with zeroes", Verdict::absent, overwritten_preen,
        [sectors](Lab&, MemoryIo& io, std::uint64_t s) { scribble(io, s, sectors, 0); });
    put("overwritten start", Verdict::absent, overwritten_preen,
        [](Lab&, MemoryIo& io, std::uint64_t s) { scribble(io, s, 1); });
    if (sectors > 1)
        put("overwritten end", rotten, rot, [sectors](Lab&, MemoryIo& io, std::uint64_t s) {
            scribble(io, s + sectors / 2, sectors / 2);
        });
}

void superblock_cases(Cases& cases, unsigned int copy) {
    Case base;
    base.structure = "superblock";
    base.copy = copy;
    base.preen = repaired;
    const auto at = [copy](Lab& lab) { return lab.sb().sb_sector.at(copy); };
    const auto put = rows_like(cases, base);
    const auto write = [at, copy](Lab& lab, const std::function<void(Superblock&)>& change) {
        Superblock sb = lab.sb();
        change(sb);
        lab.set.spare.write(at(lab), encode_superblock(sb, copy));
    };

    add_common(cases, base, at, 8, false, Verdict::bad_crc, repaired);
    put("torn", Verdict::torn, 4, repaired, repaired, [at, copy](Lab& lab) {
        Superblock next = lab.sb();
        next.head.generation++;
        next.hidden[0].flags = REMAP_HIDDEN_EXPOSED;
        lab.set.spare.write(at(lab), ConstBytes(encode_superblock(next, copy)).first(512));
    });
    put("stale", Verdict::stale, 4, repaired, repaired, [at, copy](Lab& lab) {
        const auto old = encode_superblock(lab.sb(), copy);
        lab.set.new_epoch();
        lab.set.new_epoch();
        lab.good();
        lab.set.spare.write(at(lab), old);
    });
    put("misplaced", Verdict::misplaced, 4, repaired, repaired, [at, copy](Lab& lab) {
        lab.set.spare.write(at(lab), encode_superblock(lab.sb(), (copy + 1) % REMAP_SB_COPIES));
    });
    put("foreign set", Verdict::foreign, 4, left, repaired, [write](Lab& lab) {
        write(lab, [](Superblock& sb) { sb.head.set_uuid = Uuid::random(); });
    });
    put("earlier life", Verdict::foreign, 4, left, repaired,
        [write](Lab& lab) { write(lab, [](Superblock& sb) { sb.head.nonce++; }); });
    put("swapped roles", Verdict::wrong_role, 4, repaired, repaired, [at](Lab& lab) {
        lab.set.spare.write(at(lab), encode_label(make_label(lab.sb()), 0, at(lab)));
    });
    put("out of range", Verdict::implausible, 4, repaired, repaired,
        [write](Lab& lab) { write(lab, [](Superblock& sb) { sb.segments[0].nr_slots = ~0ULL; }); });
    put("newer version", Verdict::newer_version, 8, refused, refused,
        [write](Lab& lab) { write(lab, [](Superblock& sb) { sb.head.version = 2; }); });
    put("unknown incompat feature", Verdict::newer_version, 8, refused, refused,
        [write](Lab& lab) { write(lab, [](Superblock& sb) { sb.head.incompat = 4; }); });
    put("as new, but different", Verdict::conflict, 4, left, left,
        [write](Lab& lab) { write(lab, [](Superblock& sb) { sb.updated++; }); });
    put("unreadable", Verdict::unreadable, 4, repaired, repaired,
        [at](Lab& lab) { lab.pending_spare.insert(at(lab) + 3); });
}

void table_cases(Cases& cases, unsigned int copy, std::uint64_t index) {
    Case base;
    base.structure = "table block";
    base.copy = copy;
    base.index = index;
    base.preen = repaired;
    const auto at = [copy, index](Lab& lab) { return lab.sb().table_sector(index, copy); };
    const auto put = rows_like(cases, base);
    const auto entries = [index](Lab& lab) {
        return std::span(lab.set.entries)
            .subspan(index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK);
    };
    // A later commit in the last sector of the block, so that its sectors can be mixed.
    const auto commit = [index](Lab& lab) {
        lab.set.entries[index * REMAP_ENTRIES_PER_BLOCK + 240] =
            Entry::make(REMAP_ENTRY_MAPPED, lab.sb().main_blocks() / 2 + 1, REMAP_CAUSE_WRITE, 5,
                        5000, 1700000003);
        lab.set.write_all();
    };

    add_common(cases, base, at, 8, false, Verdict::bad_crc, repaired);
    put("torn", Verdict::torn, 4, repaired, repaired, [at, commit](Lab& lab) {
        const auto old = lab.set.spare.read(at(lab), 8);
        commit(lab);
        lab.good();
        lab.set.spare.write(at(lab) + 4, ConstBytes(old).subspan(4 * 512));
    });
    put("stale", Verdict::stale, 4, repaired, repaired, [at, commit, index](Lab& lab) {
        const auto old = lab.set.spare.read(at(lab), 8);
        commit(lab);
        // Another commit, elsewhere, so that no power cut explains it.
        const std::uint64_t other = (index + 1) % 3;
        write_table_block(lab.set.spare, lab.sb(), other, ++lab.set.generation,
                          std::span(lab.set.entries)
                              .subspan(other * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK));
        lab.good();
        lab.set.spare.write(at(lab), old);
    });
    put("of another block", Verdict::misplaced, 4, repaired, repaired, [at, copy, index](Lab& lab) {
        lab.set.spare.write(at(lab),
                            lab.set.spare.read(lab.sb().table_sector((index + 1) % 3, copy), 8));
    });
    put("of the other copy", Verdict::misplaced, 4, repaired, repaired,
        [at, copy, index](Lab& lab) {
            lab.set.spare.write(at(lab),
                                lab.set.spare.read(lab.sb().table_sector(index, 1 - copy), 8));
        });
    put("foreign set or earlier life", Verdict::bad_crc, 4, repaired, repaired,
        [at, copy, index, entries](Lab& lab) {
            Superblock other = lab.sb();
            other.head.nonce++;
            lab.set.spare.write(
                at(lab), table_block_bytes(other, copy, index, lab.set.generation, entries(lab)));
        });
    put("a superblock", Verdict::absent, 4, repaired, repaired,
        [at](Lab& lab) { lab.set.spare.write(at(lab), encode_superblock(lab.sb(), 1)); });
    put("as new, but different", Verdict::conflict, 4, left, given_up,
        [copy, index, entries](Lab& lab) {
            std::vector<Entry> other(entries(lab).begin(), entries(lab).end());
            other[100] = Entry::make(REMAP_ENTRY_MAPPED, lab.sb().main_blocks() / 2,
                                     REMAP_CAUSE_WRITE, 5, 9, 1);
            write_table_copy(lab.set.spare, lab.sb(), copy, index, lab.set.generation, other);
        });
    put("unreadable", Verdict::unreadable, 4, repaired, repaired,
        [at](Lab& lab) { lab.pending_spare.insert(at(lab) + 3); });
    put("dead", Verdict::dead, 4, {fsck::corrected, After::other, fsck::ok},
        {fsck::corrected, After::other, fsck::ok}, [at, copy](Lab& lab) {
            lab.set.superblock.live_copies = static_cast<std::uint8_t>(2 - copy);
            lab.set.superblock.head.generation = ++lab.set.generation;
            write_superblock(lab.set.spare, lab.sb());
            scribble(lab.set.spare, at(lab), 8);
        });
    put("damaged in both copies, in different sectors", Verdict::bad_crc, 4, repaired, repaired,
        [copy, index](Lab& lab) {
            flip(lab.set.spare, lab.sb().table_sector(index, copy) + 2, 99);
            scribble(lab.set.spare, lab.sb().table_sector(index, 1 - copy) + 5, 2);
        });
    put("damaged in both copies, in one sector", Verdict::bad_crc, 4, left, given_up,
        [copy, index](Lab& lab) {
            flip(lab.set.spare, lab.sb().table_sector(index, copy) + 1, 99);
            scribble(lab.set.spare, lab.sb().table_sector(index, 1 - copy) + 1, 1);
        });
}

/// What both copies say alike.
void entry_cases(Cases& cases, std::uint64_t index) {
    const auto put = [&](const char* failure, int check, Outcome preen, Outcome yes,
                         std::function<void(Lab&, std::uint64_t)> damage) {
        Case next;
        next.failure = failure;
        next.structure = "table block";
        next.index = index;
        next.check = check;
        next.preen = preen;
        next.yes = yes;
        next.damage = [damage, index](Lab& lab) {
            damage(lab, index * REMAP_ENTRIES_PER_BLOCK + 30);
            lab.set.write_all();
        };
        cases.push_back(std::move(next));
    };
    const auto entry = [](std::uint64_t block, std::uint32_t sequence) {
        return Entry::make(REMAP_ENTRY_MAPPED, block, REMAP_CAUSE_WRITE, 5, sequence, 1);
    };

    put("out of range", 4, left, given_up, [entry](Lab& lab, std::uint64_t slot) {
        lab.set.entries[slot] = entry(lab.sb().main_blocks(), 9);
    });
    put("unknown state", 4, left, given_up,
        [](Lab& lab, std::uint64_t slot) { lab.set.entries[slot].lo |= 7ULL << 48; });
    put("free but not empty", 4, left, given_up, [](Lab& lab, std::uint64_t slot) {
        lab.set.entries[slot] = {0, 5};
    });
    put("duplicate with a winner", 0, clean, clean, [entry](Lab& lab, std::uint64_t slot) {
        lab.set.entries[700] = entry(lab.set.entries[slot].block(), 7000);
        lab.set.entries[701] = entry(lab.sb().main_blocks() / 2 + 3, 7001);
        lab.set.entries[702] = entry(lab.sb().main_blocks() / 2 + 3, 7002);
    });
    put("duplicate without a winner", 4, left, given_up,
        [](Lab& lab, std::uint64_t slot) { lab.set.entries[700] = lab.set.entries[slot]; });
}

void label_cases(Cases& cases, unsigned int copy) {
    Case base;
    base.structure = "label";
    base.copy = copy;
    base.preen = repaired;
    const auto at = [copy](Lab& lab) { return lab.sb().label_sector.at(copy); };
    const auto put = rows_like(cases, base);
    const auto write = [copy, at](Lab& lab, const std::function<void(Label&)>& change) {
        Label label = make_label(lab.sb());
        change(label);
        lab.set.main.write(at(lab), encode_label(label, copy, at(lab)));
    };

    add_common(cases, base, at, 1, true, Verdict::bad_crc, tolerated);
    put("stale", Verdict::stale, 0, clean, clean, [at, copy](Lab& lab) {
        const auto old = encode_label(make_label(lab.sb()), copy, at(lab));
        lab.set.new_epoch();
        lab.set.main.write(at(lab), old);
    });
    put("misplaced", Verdict::misplaced, 4, repaired, repaired, [at, copy](Lab& lab) {
        lab.set.main.write(at(lab), encode_label(make_label(lab.sb()), copy, at(lab) + 8));
    });
    put("foreign set", Verdict::foreign, 4, left, left, [write](Lab& lab) {
        write(lab, [](Label& label) { label.head.set_uuid = Uuid::random(); });
    });
    put("of another spare", Verdict::foreign, 4, left, left, [write](Lab& lab) {
        write(lab, [](Label& label) { label.head.partner_uuid = Uuid::random(); });
    });
    put("swapped roles", Verdict::wrong_role, 4, repaired, repaired, [at](Lab& lab) {
        lab.set.main.write(at(lab), ConstBytes(encode_superblock(lab.sb(), 0)).first(512));
    });
    put("newer version", Verdict::newer_version, 8, refused, refused,
        [write](Lab& lab) { write(lab, [](Label& label) { label.head.version = 2; }); });
    put("unreadable", Verdict::unreadable, 4, repaired, repaired,
        [at](Lab& lab) { lab.pending_main.insert(at(lab)); });
    put("all overwritten", Verdict::absent, 4, left, left, [](Lab& lab) {
        for (const std::uint64_t sector : lab.sb().label_sector)
            scribble(lab.set.main, sector, 1, 0);
    });
    put("newer than the spare", Verdict::current, 4, left, left,
        [write](Lab& lab) { write(lab, [](Label& label) { label.epoch += 5; }); });
}

void filler_cases(Cases& cases, bool from_end, std::uint64_t number) {
    Case base;
    base.structure = "filler";
    base.index = number;
    base.preen = tolerated;
    const auto block = [from_end, number](Lab& lab) {
        return from_end ? lab.sb().main_blocks() - 1 - number : number;
    };
    const auto at = [block](Lab& lab) { return block(lab) * lab.sb().block_sectors(); };
    const auto put = rows_like(cases, base);
    const auto write = [at](Lab& lab, const std::function<void(Filler&)>& change) {
        Filler filler = make_filler(lab.sb());
        change(filler);
        lab.set.main.write(at(lab), encode_filler(filler, at(lab)));
    };

    // The position of the block is only known with the set.
    if (from_end)
        base.index = ~number;
    add_common(cases, base, at, 1, true, Verdict::bad_crc, tolerated);
    put("misplaced", Verdict::misplaced, 4, tolerated, repaired, [at](Lab& lab) {
        lab.set.main.write(at(lab), encode_filler(make_filler(lab.sb()), at(lab) + 8));
    });
    put("earlier life", Verdict::foreign, 4, tolerated, repaired,
        [write](Lab& lab) { write(lab, [](Filler& filler) { filler.head.nonce++; }); });
    put("newer version", Verdict::newer_version, 8, refused, refused,
        [write](Lab& lab) { write(lab, [](Filler& filler) { filler.head.version = 2; }); });
    put("unreadable", Verdict::unreadable, 0, clean, clean,
        [at](Lab& lab) { lab.pending_main.insert(at(lab)); });
}

/// A whole copy at once, and the device as a whole.
void whole_cases(Cases& cases) {
    const auto put = [&](const char* failure, const char* structure, unsigned int copy,
                         Verdict verdict, int check, Outcome preen, Outcome yes,
                         std::function<void(Lab&)> damage) {
        Case next;
        next.failure = failure;
        next.structure = structure;
        next.copy = copy;
        next.verdict = verdict;
        next.check = check;
        next.preen = preen;
        next.yes = yes;
        next.damage = std::move(damage);
        cases.push_back(std::move(next));
    };
    const auto table_sectors = [](Lab& lab) { return lab.sb().table_length * 8; };
    const auto resize = [](MemoryIo& io, std::uint64_t sectors) {
        auto content = io.content();
        content.resize(sectors * sector_size);
        io = MemoryIo(io.name(), content, io.logical_block_size());
    };

    for (unsigned int copy = 0; copy < 2; copy++) {
        put("whole copy zeroed", "table block", copy, Verdict::absent, 4, repaired, repaired,
            [=](Lab& lab) {
                scribble(lab.set.spare, lab.sb().table_sector(0, copy), table_sectors(lab), 0);
            });
        put("whole copy of another life", "table block", copy, Verdict::bad_crc, 4, repaired,
            repaired, [=](Lab& lab) {
                Superblock other = lab.sb();
                other.head.nonce++;
                for (std::uint64_t i = 0; i < other.table_length; i++)
                    lab.set.spare.write(other.table_sector(i, copy),
                                        table_block_bytes(other, copy, i, lab.set.generation, {}));
            });
        put("whole copy unreadable", "table block", copy, Verdict::unreadable, 4, repaired,
            repaired, [=](Lab& lab) {
                for (std::uint64_t s = 0; s < table_sectors(lab); s++)
                    lab.pending_spare.insert(lab.sb().table_sector(0, copy) + s);
            });
    }
    for (unsigned int keep = 0; keep < REMAP_SB_COPIES; keep++)
        put("all but one zeroed", "superblock", (keep + 1) % 5, Verdict::absent, 4, repaired,
            repaired, [keep](Lab& lab) {
                for (unsigned int c = 0; c < REMAP_SB_COPIES; c++) {
                    if (c != keep)
                        scribble(lab.set.spare, lab.sb().sb_sector.at(c), 8, 0);
                }
            });
    put("all damaged in different sectors", "superblock", 0, Verdict::bad_crc, 4, repaired,
        repaired, [](Lab& lab) {
            for (unsigned int c = 0; c < REMAP_SB_COPIES; c++)
                flip(lab.set.spare, lab.sb().sb_sector.at(c) + c + 1, 77);
        });
    put("all damaged in one sector", "superblock", 0, Verdict::bad_crc, 4, left, given_up,
        [](Lab& lab) {
            for (const std::uint64_t sector : lab.sb().sb_sector)
                flip(lab.set.spare, sector + 4, 77);
        });
    put("all zeroed", "superblock", 0, Verdict::absent, 4, left, given_up, [](Lab& lab) {
        for (const std::uint64_t sector : lab.sb().sb_sector)
            scribble(lab.set.spare, sector, 8, 0);
    });
    put("all of a newer version", "superblock", 0, Verdict::newer_version, 8, refused, refused,
        [](Lab& lab) {
            lab.set.superblock.head.version = 2;
            write_superblock(lab.set.spare, lab.sb());
        });
    put("unknown ro_compat feature", "superblock", 0, Verdict::current, 4, tolerated, left,
        [](Lab& lab) {
            lab.set.superblock.head.ro_compat = 2;
            write_superblock(lab.set.spare, lab.sb());
        });
    put("grown spare", "superblock", 4, Verdict::current, 0, clean, clean,
        [resize](Lab& lab) { resize(lab.set.spare, lab.set.spare.size() + 800); });
    put("truncated spare", "superblock", 4, Verdict::absent, 4, left, left,
        [resize](Lab& lab) { resize(lab.set.spare, lab.set.spare.size() - 8); });
    put("grown main", "label", 0, Verdict::current, 0, clean, clean,
        [resize](Lab& lab) { resize(lab.set.main, lab.set.main.size() + 800); });
    put("truncated main", "superblock", 0, Verdict::current, 4, left, left,
        [resize](Lab& lab) { resize(lab.set.main, lab.set.main.size() - 8); });
    put("full", "table block", 0, Verdict::current, 0, clean, clean, [](Lab& lab) {
        Superblock& sb = lab.set.superblock;
        sb.table_length = sb.segment().table_blocks();
        lab.set.entries.resize(sb.table_length * REMAP_ENTRIES_PER_BLOCK);
        std::set<std::uint64_t> used;
        std::uint32_t sequence = 10000;
        for (const Entry& entry : lab.set.entries)
            used.insert(entry.is_free() ? ~0ULL : entry.block());
        std::uint64_t block = 0;
        for (std::uint64_t slot = 0; slot < sb.segment().nr_slots; slot++) {
            if (!lab.set.entries[slot].is_free() || sb.slot_reserved(slot))
                continue;
            while (used.count(block) > 0)
                block++;
            if (block >= sb.main_blocks())
                break;
            lab.set.entries[slot] =
                Entry::make(REMAP_ENTRY_MAPPED, block++, REMAP_CAUSE_WRITE, 5, sequence++, 1);
        }
        lab.set.write_all();
    });
}

Cases all_cases() {
    Cases cases;

    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; copy++)
        superblock_cases(cases, copy);
    for (unsigned int copy = 0; copy < 2; copy++) {
        for (std::uint64_t index = 0; index < 3; index++)
            table_cases(cases, copy, index);
    }
    for (std::uint64_t index = 0; index < 3; index++)
        entry_cases(cases, index);
    for (unsigned int copy = 0; copy < 3; copy++)
        label_cases(cases, copy);
    for (const std::uint64_t number : {3U, 6U}) {
        filler_cases(cases, false, number);
        filler_cases(cases, true, number);
    }
    whole_cases(cases);
    return cases;
}

// --- running it -------------------------------------------------------------------------------

std::optional<Verdict> verdict_of(const CheckResult& result, const Case& test,
                                  std::uint64_t blocks) {
    const std::uint64_t index =
        test.index > blocks ? blocks - 1 - ~test.index : test.index;  // counted from the end
    for (const CopyVerdict& v : result.copies) {
        if (v.structure == test.structure && (!v.copy || *v.copy == test.copy) &&
            (!v.index || (index >= *v.index && index < *v.index + v.count)))
            return v.verdict;
    }
    return std::nullopt;
}

CheckResult run(Lab& lab, const char* mode) {
    PendingIo spare(lab.set.spare, lab.pending_spare);
    PendingIo main(lab.set.main, lab.pending_main);
    CheckResult result = check_set(spare, &main);

    if (std::string(mode) != "-n" && result.refused.empty()) {
        apply_plan(result, spare, &main, [mode](const Finding& f) {
            return f.problem->repair == Repair::preen ||
                   (std::string(mode) == "-y" && f.problem->repair == Repair::confirmed);
        });
        // What was written can be read from now on.
        if (result.exit_bits() & fsck::corrected) {
            lab.pending_spare.clear();
            lab.pending_main.clear();
        }
    }
    return result;
}

void check_repair(const Schema& schema, const Lab& damaged, const char* mode,
                  const Outcome& expected) {
    const bool preened = std::string(mode) == "-p";
    Lab lab = damaged;

    INFO("with " << mode);
    const CheckResult result = run(lab, mode);
    CHECK(result.exit_bits(preened) == expected.bits);
    CHECK(schema.check(Json::parse(report_of(result))) == "");
    const bool same = lab.set.spare.content() == damaged.set.spare.content() &&
                      lab.set.main.content() == damaged.set.main.content();
    const bool good = lab.set.spare.content() == damaged.good_spare &&
                      lab.set.main.content() == damaged.good_main;
    if (expected.after == After::same)
        CHECK(same);
    if (expected.after == After::good)
        CHECK(good);
    if (expected.after == After::other)
        CHECK_FALSE(same);
    const Lab before = lab;
    CHECK(run(lab, mode).exit_bits(preened) == expected.again);
    CHECK((lab.set.spare.content() == before.set.spare.content()));
    CHECK((lab.set.main.content() == before.set.main.content()));
}

/// The cases of one structure, so that the tests can run side by side.
void run_matrix(const std::string& structure, std::size_t at_least) {
    const Schema schema;
    const Cases cases = all_cases();
    const Lab fresh{SampleSet({4096, 2560, 9, 8, 600, 3}), {}, {}, {}, {}};
    std::size_t count = 0;

    CHECK(cases.size() >= 300);
    for (const Case& test : cases) {
        if (test.structure != structure)
            continue;
        count++;
        Lab lab = fresh;
        lab.good();
        test.damage(lab);
        INFO(test.structure << " copy " << test.copy << " index " << test.index << ": "
                            << test.failure);
        Lab untouched = lab;
        const CheckResult found = run(lab, "-n");
        CHECK(found.exit_bits() == test.check);
        const auto verdict = verdict_of(found, test, lab.sb().main_blocks());
        REQUIRE(verdict.has_value());
        CHECK(std::string(verdict_name(*verdict)) == verdict_name(test.verdict));
        CHECK(schema.check(Json::parse(report_of(found))) == "");
        CHECK((lab.set.spare.content() == untouched.set.spare.content()));
        CHECK((lab.set.main.content() == untouched.set.main.content()));
        check_repair(schema, untouched, "-p", test.preen);
        check_repair(schema, untouched, "-y", test.yes);
    }
    CHECK(count >= at_least);
}

}  // namespace

TEST_CASE("each failure of each superblock copy is named and repaired as the matrix says") {
    run_matrix("superblock", 90);
}

TEST_CASE("each failure of each table block copy is named and repaired as the matrix says") {
    run_matrix("table block", 110);
}

TEST_CASE("each failure of each label is named and repaired as the matrix says") {
    run_matrix("label", 40);
}

TEST_CASE("each failure of the filler is named and repaired as the matrix says") {
    run_matrix("filler", 36);
}

TEST_CASE("a report that breaks the schema is noticed") {
    const Schema schema;
    SampleSet set;
    Json report = Json::parse(report_of(check_set(set.spare, &set.main)));

    REQUIRE(schema.check(report) == "");
    SECTION("a verdict that is none") {
        report["copies"][0]["verdict"] = "fine";
    }
    SECTION("a field that is not described") {
        report["copies"][0]["mood"] = 1;
    }
    SECTION("a field that is missing") {
        report.erase("exit_code");
    }
    SECTION("a number for a text") {
        report["device"] = 5;
    }
    CHECK(schema.check(report) != "");
}
