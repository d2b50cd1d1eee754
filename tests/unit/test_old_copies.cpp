// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which of the devices that are there are put together: copies, clones, yesterday's members, moved
// and resized ones, strangers. Never the wrong pair, and what is refused is named.
#include "catch.hpp"
#include "libremap/assemble.hpp"
#include "libremap/error.hpp"
#include "libremap/pair.hpp"
#include "machine.hpp"
#include "set_fixture.hpp"

namespace {

namespace fs = std::filesystem;

using fixture::Image;
using fixture::Pair;

/// A disk that a machine has: its name, its serial number, and what is on it.
struct Disk {
    const char* name;
    const char* serial;
    const Image* image;
};

/// A machine with disks of its own behind those of the recorded tree, which have no nodes.
class Computer : public fixture::Machine {
  public:
    explicit Computer(const std::vector<Disk>& disks) {
        fs::create_directories(root.dev);
        unsigned int number = 0;
        for (const Disk& each : disks) {
            disk(each.name, "65:" + std::to_string(number++),
                 static_cast<unsigned int>(each.image->size() / 512));
            put(each.name, "serial", each.serial + std::string("\n"));
            scratch::spill(root.dev + "/" + each.name,
                           std::string(each.image->begin(), each.image->end()));
        }
    }

    /// "MAIN+SPARE" by name, or what is said instead.
    std::string assembled(const remap::Uuid& set) const {
        try {
            const auto chosen = remap::choose_pair(set, remap::scan_members(root), root);
            if (!chosen.missing.empty()) {
                return chosen.missing;
            }
            const auto spare = remap::open_block_io(chosen.spare->path, remap::Mode::read_only);
            const auto main = remap::open_block_io(chosen.main->path, remap::Mode::read_only);
            remap::require_pair(*main, chosen.spare->path, remap::require_openable(*spare, false),
                                remap::identify(*chosen.main, root));
            return chosen.main->name + "+" + chosen.spare->name;
        } catch (const remap::Error& error) {
            CHECK(error.code() == remap::Exit::unrecognised);
            return error.what();
        }
    }
};

/// A set whose members are recorded as lying on the disks M1 and S1.
struct Set {
    explicit Set(unsigned int seed) {
        remap::MemoryIo main("main", fixture::random_image(fixture::main_sectors, seed));
        remap::MemoryIo spare("spare", fixture::random_image(fixture::spare_sectors, seed + 1));
        remap::Observer quiet;
        auto request = fixture::request_for(fixture::ext_payload(), 512);
        request.main_identity.serial = "M1";
        request.spare_identity.serial = "S1";
        const auto plan = remap::plan_adoption(main, spare, request);
        superblock = remap::adopt(
                         main, spare, plan, [](const auto&, const auto&) {}, quiet)
                         .superblock;
        pair = {main.content(), spare.content(), 512};
        uuid = superblock.head.set_uuid;
    }

    /// One activation later.
    Pair tomorrow() const {
        remap::MemoryIo main("main", pair.main);
        remap::MemoryIo spare("spare", pair.spare);
        remap::Superblock next = superblock;
        next.epoch += 1;
        next.label_epoch = next.epoch;
        next.head.generation = remap::next_generation(next.epoch, next.head.generation);
        remap::write_superblock(spare, next);
        remap::MainBlocks blocks(main, 1);
        for (const std::uint64_t sector : next.label_sector) {
            REQUIRE(remap::conceal_block(blocks, next, sector) == 0);
        }
        return {main.content(), spare.content(), 512};
    }

    /// The spare with its superblock changed.
    Image spare_with(const std::function<void(remap::Superblock&)>& change) const {
        remap::MemoryIo spare("spare", pair.spare);
        remap::Superblock changed = superblock;
        change(changed);
        remap::wipe_superblocks(spare);
        remap::write_superblock(spare, changed);
        return spare.content();
    }

    Pair pair;
    remap::Superblock superblock;
    remap::Uuid uuid;
};

struct Row {
    const char* name;
    std::vector<Disk> disks;
    std::vector<std::string> said;  ///< one text: equal; more: all contained
};

void check_rows(const remap::Uuid& set, const std::vector<Row>& rows) {
    for (const Row& row : rows) {
        const Computer computer(row.disks);
        const std::string said = computer.assembled(set);
        INFO(row.name << ": " << said);
        if (row.said.size() == 1) {
            CHECK(said == row.said.front());
        }
        for (const std::string& part : row.said) {
            INFO(part);
            CHECK(said.find(part) != std::string::npos);
        }
    }
}

}  // namespace

TEST_CASE("Of members that are copied, moved or old the right pair is put together, or none",
          "[copies]") {
    const Set set(1);
    const Set other(11);
    const Pair old = set.pair;
    const Pair now = set.tomorrow();
    check_rows(
        set.uuid,
        {{"both members", {{"sdp", "M1", &now.main}, {"sdq", "S1", &now.spare}}, {"sdp+sdq"}},
         {"in another order", {{"sdq", "M1", &now.main}, {"sdp", "S1", &now.spare}}, {"sdq+sdp"}},
         {"the spare is missing", {{"sdp", "M1", &now.main}}, {"the spare of set ", " is missing"}},
         {"the main is missing",
          {{"sdq", "S1", &now.spare}},
          {"the main of set ", " is missing (", "serial M1", "sdq is there"}},
         {"a main that was moved",
          {{"sdp", "M2", &now.main}, {"sdq", "S1", &now.spare}},
          {"sdp+sdq"}},
         {"a copy of the main beside it",
          {{"sdo", "M2", &now.main}, {"sdp", "M1", &now.main}, {"sdq", "S1", &now.spare}},
          {"sdp+sdq"}},
         {"two copies of the main and not itself",
          {{"sdo", "M2", &now.main}, {"sdp", "M3", &now.main}, {"sdq", "S1", &now.spare}},
          {"/sdo, ", "/sdp all claim to be main ", "none has", "serial M1",
           "remapsetup open --main"}},
         {"the main by two paths",
          {{"sdo", "M1", &now.main}, {"sdp", "M1", &now.main}, {"sdq", "S1", &now.spare}},
          {"/sdo, ", "/sdp have the recorded hardware", "multipath"}},
         {"yesterday's spare instead",
          {{"sdp", "M1", &now.main}, {"sdq", "S2", &old.spare}},
          {"/sdq: is an old copy", "epoch is 1"}},
         {"yesterday's spare on the same disk",
          {{"sdp", "M1", &now.main}, {"sdq", "S1", &old.spare}},
          {"/sdq: is an old copy", "epoch is 1"}},
         {"yesterday's spare beside",
          {{"sdo", "S2", &old.spare}, {"sdp", "M1", &now.main}, {"sdq", "S1", &now.spare}},
          {"sdp+sdq"}},
         {"yesterday's spare beside one that was moved",
          {{"sdo", "S2", &old.spare}, {"sdp", "M1", &now.main}, {"sdq", "S3", &now.spare}},
          {"/sdo, ", "/sdq all claim to be spare ", "none has"}},
         {"yesterday's main instead",
          {{"sdp", "M2", &old.main}, {"sdq", "S1", &now.spare}},
          {"/sdp: is an old copy", "epoch 1"}},
         {"yesterday's main beside",
          {{"sdo", "M2", &old.main}, {"sdp", "M1", &now.main}, {"sdq", "S1", &now.spare}},
          {"sdp+sdq"}},
         {"a set of somebody else beside",
          {{"sdm", "M1", &other.pair.main},
           {"sdn", "S1", &other.pair.spare},
           {"sdp", "M1", &now.main},
           {"sdq", "S1", &now.spare}},
          {"sdp+sdq"}}});
}

TEST_CASE("A spare that claims a set which is not its own is not put together with it",
          "[copies]") {
    const Set set(1);
    // It knows set and main, as anybody may who has seen them, and says where it belongs.
    const Image stranger = set.spare_with([](remap::Superblock& superblock) {
        superblock.head.member_uuid = remap::Uuid::random();
        superblock.members[1].uuid = superblock.head.member_uuid;
        superblock.members[1].serial = "EVIL";
        superblock.head.nonce = 1;
    });
    const Image twin = set.spare_with([](remap::Superblock& superblock) {
        superblock.members[1].serial = "EVIL";
        superblock.head.nonce = 1;
        superblock.epoch += 5;
        superblock.label_epoch += 5;
        superblock.head.generation =
            remap::next_generation(superblock.epoch, superblock.head.generation);
    });
    check_rows(
        set.uuid,
        {{"another member beside the spare",
          {{"sdo", "EVIL", &stranger},
           {"sdp", "M1", &set.pair.main},
           {"sdq", "S1", &set.pair.spare}},
          {"sdp+sdq"}},
         {"another member instead of the spare",
          {{"sdo", "EVIL", &stranger}, {"sdp", "M1", &set.pair.main}},
          {"/sdp: sector ", "expected the label of set ", "earlier life"}},
         {"the same member beside the spare",
          {{"sdo", "EVIL", &twin}, {"sdp", "M1", &set.pair.main}, {"sdq", "S1", &set.pair.spare}},
          {"/sdo, ", "/sdq have the recorded hardware"}},
         {"the same member elsewhere than it says",
          {{"sdo", "S9", &twin}, {"sdp", "M1", &set.pair.main}, {"sdq", "S1", &set.pair.spare}},
          {"sdp+sdq"}},
         {"the same member instead of the spare",
          {{"sdo", "EVIL", &twin}, {"sdp", "M1", &set.pair.main}},
          {"/sdp: sector ", "expected the label of set ", "earlier life"}}});
}

TEST_CASE("A main that grew is served as long as it was, one that shrank is refused with figures",
          "[copies]") {
    const Set set(1);
    Image grown = set.pair.main;
    grown.resize(grown.size() + 4096 * 3);
    Image shrunk = set.pair.main;
    shrunk.resize(shrunk.size() - 4096);
    check_rows(set.uuid,
               {{"grown", {{"sdp", "M1", &grown}, {"sdq", "S1", &set.pair.spare}}, {"sdp+sdq"}},
                {"shrunk",
                 {{"sdp", "M1", &shrunk}, {"sdq", "S1", &set.pair.spare}},
                 {"/sdp: shorter than recorded", "at least 2048 sectors, found 2040"}}});
}

TEST_CASE("A main on new hardware is recorded once, and is the one of several from then on",
          "[copies]") {
    const Set set(1);
    remap::MemoryIo spare("spare", set.pair.spare);
    remap::Identity moved;
    CHECK_FALSE(remap::record_main_identity(spare, moved));
    moved.serial = "M1";
    CHECK_FALSE(remap::record_main_identity(spare, moved));
    CHECK(spare.content() == set.pair.spare);
    moved.serial = "M2";
    moved.wwn = "W2";
    CHECK(remap::record_main_identity(spare, moved));
    CHECK_FALSE(remap::record_main_identity(spare, moved));
    const remap::Superblock superblock = remap::load_superblock(spare);
    CHECK(superblock.members[0].serial == "M2");
    CHECK(superblock.members[0].wwn == "W2");
    CHECK(superblock.members[0].size == fixture::main_sectors);
    CHECK(superblock.head.state == REMAP_STATE_COMPLETE);

    const Image recorded = spare.content();
    check_rows(
        set.uuid,
        {{"copy and former main",
          {{"sdo", "M1", &set.pair.main}, {"sdp", "M2", &set.pair.main}, {"sdq", "S1", &recorded}},
          {"sdp+sdq"}}});

    // Cut at any write: the set opens, with the one or the other.
    const Pair before{set.pair.main, set.pair.spare, 512};
    const auto log = fixture::record(before, [&](remap::BlockIo&, remap::BlockIo& io) {
        remap::record_main_identity(io, moved);
    });
    fixture::each_crash(before, log, [&](const Pair& crashed) {
        CHECK(fixture::composed_view(crashed) == fixture::composed_view(before));
    });
}
