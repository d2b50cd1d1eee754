// SPDX-License-Identifier: GPL-2.0-or-later
//
// A spare of the older project, shown and migrated. Input: rules, then older_spare.hpp's.
// Promised: neither old spare nor main is written; what the plan says is what the new set holds;
// nothing comes from where two entries contradict each other.
#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "libremap/check.hpp"
#include "libremap/error.hpp"
#include "libremap/migrate.hpp"
#include "older_spare.hpp"

using namespace remap;

namespace {

using Image = std::vector<std::uint8_t>;
using Outcome = OlderVerdict::Outcome;

void check_decoders(ConstBytes bytes) {
    for (const OlderCopy& copy :
         {decode_dmr4(bytes, 0), decode_script(bytes, 0), decode_dmremap3(bytes)}) {
        fuzz::promise(copy.entries.size() <= copy.capacity, "more entries than fit");
        fuzz::promise(copy.verdict != Verdict::absent || copy.entries.empty(),
                      "entries of a copy that is not there");
    }
}

template <typename EmitterType>
std::string shown(BlockIo& spare, const OlderSpare& older) {
    std::ostringstream out;
    EmitterType emitter(out);
    show_older(spare, older, emitter);
    return out.str();
}

MigrateRules rules_from(fuzz::Input& input) {
    static constexpr std::uint32_t lengths[] = {0, 1, 2, 3, 7, 8, 16, 64};
    const std::uint8_t byte = input.byte();
    MigrateRules rules;
    rules.block_size = (byte & 1) != 0 ? 4096 : 512;
    rules.doubtful = static_cast<Doubt>((byte >> 1 & 3) % 3);
    if (const std::uint32_t length = lengths[byte >> 3 & 7]; length != 0) {
        rules.entry_sectors = length;
    }
    return rules;
}

/// What the plan wants a block to hold; nothing if that cannot be read.
std::optional<Image> wanted(fuzz::OlderSpareImage& image, const MigratedBlock& block) {
    Image bytes(block.sectors.size() * sector_size);
    for (std::size_t i = 0; i < block.sectors.size(); ++i) {
        const Bytes to = Bytes(bytes).subspan(i * sector_size, sector_size);
        const int error = block.sectors[i]
                              ? image.spare.try_read(*block.sectors[i], to)
                              : image.main.try_read(block.block * block.sectors.size() + i, to);
        if (error != 0) {
            return std::nullopt;
        }
    }
    return bytes;
}

void check_plan(const MigratePlan& plan, const OlderSpare& older, const MigrateRules& rules) {
    const std::uint64_t unit = rules.block_size / sector_size;
    std::set<std::uint64_t> suspect;
    for (const OlderVerdict& verdict : plan.verdicts) {
        fuzz::promise((verdict.outcome == Outcome::copied) == verdict.reason.empty(),
                      "a verdict without its reason");
        for (std::uint64_t i = 0;
             verdict.outcome == Outcome::conflict && i < rules.entry_sectors.value_or(1); ++i) {
            suspect.insert(verdict.entry.original + i);
        }
    }
    if (older.best() != nullptr) {
        fuzz::promise(plan.verdicts.size() == older.best()->entries.size(),
                      "an entry without a verdict");
    }
    const MigratedBlock* before = nullptr;
    for (const MigratedBlock& block : plan.blocks) {
        fuzz::promise(before == nullptr || before->block < block.block, "blocks out of order");
        fuzz::promise(block.block < fuzz::OlderSpareImage::main_sectors / unit,
                      "a block that the main does not have");
        fuzz::promise(block.sectors.size() == unit, "a block of another size");
        for (std::uint64_t i = 0; i < unit; ++i) {
            fuzz::promise(!block.sectors[i] || suspect.count(block.block * unit + i) == 0,
                          "data is taken from where entries contradict each other");
        }
        before = &block;
    }
}

const Image nothing;
constexpr std::uint64_t new_sectors = 16384;

/// Mains differ in nothing that the plan depends on; to make one takes long.
const AdoptPlan& bare_plan(BlockIo& main, std::uint32_t block_size) {
    static std::map<std::uint32_t, AdoptPlan> plans;
    const auto found = plans.find(block_size);
    if (found != plans.end()) {
        return found->second;
    }
    fuzz::Overlay spare("new.img", nothing, 512);
    spare.resize(new_sectors);
    AdoptRequest request;
    request.block_size = block_size;
    request.bare = true;
    request.now = 1700000000;
    return plans.emplace(block_size, plan_adoption(main, spare, request)).first->second;
}

void check_written(fuzz::OlderSpareImage& image, const MigratePlan& plan,
                   const MigrateRules& rules) {
    fuzz::Overlay spare("new.img", nothing, 512);
    spare.resize(new_sectors);
    Observer quiet;
    const AdoptPlan& adopt = bare_plan(image.main, rules.block_size);
    const Superblock sb = write_migrated(image.spare, image.main, spare, adopt, plan, quiet);
    fuzz::promise(check_set(spare, nullptr).exit_bits() == fsck::ok, "a migration left damage");
    std::map<std::uint64_t, Mapping> found;
    for (const Mapping& mapping : live_mappings(load_intact_table(spare, sb))) {
        found.emplace(mapping.block, mapping);
    }
    fuzz::promise(found.size() == plan.blocks.size(), "blocks that nobody planned");
    for (const MigratedBlock& block : plan.blocks) {
        const auto at = found.find(block.block);
        fuzz::promise(at != found.end(), "a planned block has no entry");
        const auto bytes = block.lost ? std::nullopt : wanted(image, block);
        fuzz::promise(at->second.entry.state() == (bytes ? REMAP_ENTRY_MAPPED : REMAP_ENTRY_LOST),
                      "a block has another state than was planned");
        if (bytes) {
            Image slot(sb.block_size());
            fuzz::promise(
                spare.try_read(sb.slot_sector(at->second.slot), slot) == 0 && slot == *bytes,
                "a slot holds other data than was planned");
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const MigrateRules rules = rules_from(input);
    check_decoders(input.rest());
    fuzz::OlderSpareImage image(input);
    image.below.freeze("the old spare is only read");
    image.main.freeze("the main is only read");
    const auto kind = recognise_older(image.spare);
    const auto older = read_older(image.spare);
    if (!older) {
        return 0;
    }
    fuzz::promise(kind.has_value() || !image.spare.bad_reads.empty(),
                  "what is read is not recognised");
    fuzz::check_json(shown<JsonEmitter>(image.spare, *older));
    fuzz::check_text(shown<TextEmitter>(image.spare, *older));
    MigratePlan plan;
    try {
        plan = plan_migration(image.spare, image.main, *older, rules);
    } catch (const Error& error) {
        fuzz::promise(error.code() == Exit::unrecognised || error.code() == Exit::usage,
                      error.what());
        return 0;
    }
    check_plan(plan, *older, rules);
    check_written(image, plan, rules);
    return 0;
}
