// SPDX-License-Identifier: GPL-2.0-or-later
//
// What mains hold: file systems made by their own tools, and headers of the layers whose tools want
// a kernel.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>

#include "catch.hpp"
#include "libremap/error.hpp"
#include "libremap/io_doubles.hpp"
#include "libremap/metadata.hpp"
#include "libremap/payload.hpp"
#include "libremap/places.hpp"
#include "libremap/probe.hpp"
#include "libremap/release.hpp"
#include "payload_images.hpp"
#include "scratch.hpp"
#include "set_fixture.hpp"

namespace {

using fixture::Image;
using namespace payloads;

struct Made {
    const char* name;
    std::function<void(Image&)> make;
    const char* type;
    std::uint64_t deciding;
    std::size_t replicas;
    std::uint64_t size = 0;  ///< sectors, if not `sectors`
};

constexpr std::uint64_t sectors = 8192;
/// 8 KiB from the end, on a boundary of 4 KiB.
constexpr std::uint64_t md_end = sectors - 16;

const std::vector<Made>& made() {
    static const std::vector<Made> all = {
        {"LVM", make_lvm, "LVM2_member", 1, 0},
        {"MD 1.0", [](Image& image) { make_md(image, md_end); }, "linux_raid_member", md_end, 0},
        {"MD 1.1", [](Image& image) { make_md(image, 0); }, "linux_raid_member", 0, 0},
        {"MD 1.2", [](Image& image) { make_md(image, 8); }, "linux_raid_member", 8, 0},
        {"LUKS1", make_luks1, "crypto_LUKS", 0, 0},
        {"LUKS2", [](Image& image) { make_luks2(image, 0x4000); }, "crypto_LUKS", 0, 1},
        {"LUKS2, 1 MiB", [](Image& image) { make_luks2(image, 0x100000); }, "crypto_LUKS", 0, 1},
        {"ZFS", make_zfs, "zfs_member", 32, 3, 2 * 64 * 1024},
    };
    return all;
}

}  // namespace

TEST_CASE("Members of other layers are adopted, hidden, and given back", "[payload]") {
    for (const Made& m : made()) {
        INFO(m.name);
        Image original((m.size != 0 ? m.size : sectors) * 512);
        m.make(original);
        remap::MemoryIo main("main", original);
        remap::MemoryIo spare("spare", Image(2 * sectors * 512));

        const remap::Payload payload = remap::recognise_payload(main, 512, false);
        CHECK(payload.kind == remap::PayloadKind::known);
        CHECK(payload.description.find(m.type) == 0);
        CHECK(payload.deciding_sector == m.deciding);
        CHECK(payload.replicas.size() == m.replicas);

        const auto result = fixture::adopt_now(main, spare, payload, 512);
        CHECK(result.exposed.empty());
        CHECK(remap::signatures_on(main).empty());
        CHECK(remap::signatures_on(spare).empty());
        const auto view = fixture::composed_view({main.content(), spare.content(), 512});
        REQUIRE(view);
        CHECK(*view == original);

        remap::Observer quiet;
        remap::release_set(main, spare, false, quiet);
        CHECK(main.content() == original);
    }
}

TEST_CASE("What is made on a set later does not show on its main", "[payload]") {
    // ZFS takes nothing smaller. Its last label ends where the device does, or up to 256 KiB
    // before.
    for (const std::size_t size : {64U << 20, (64U << 20) + (200U << 10), (80U << 20) - 4096}) {
        for (const Made& m : made()) {
            INFO(m.name << " on " << size << " bytes");
            remap::MemoryIo main("main", Image(size));
            remap::MemoryIo spare("spare", Image(8U << 20));
            auto request = fixture::request_for(remap::recognise_payload(main, 4096, false), 4096);
            request.zfs = m.type == std::string_view("zfs_member");
            remap::Observer quiet;
            remap::adopt(
                main, spare, remap::plan_adoption(main, spare, request),
                [](const auto&, const auto&) {}, quiet);
            const auto hidden = remap::hidden_blocks_of(remap::load_superblock(spare));
            Image later(size);
            if (std::string_view(m.name) == "MD 1.0") {
                make_md(later, size / 512 / 8 * 8 - 16);
            } else {
                m.make(later);
            }
            remap::MemoryIo on_remap("remap", later);
            REQUIRE_FALSE(remap::signatures_on(on_remap).empty());
            Image raw = main.content();
            for (std::size_t block = 0; block < size / 4096; ++block) {
                const auto at = static_cast<std::ptrdiff_t>(block * 4096);
                if (hidden.count(block) == 0) {
                    std::copy_n(later.begin() + at, 4096, raw.begin() + at);
                }
            }
            remap::MemoryIo shown("raw main", raw);
            CHECK(remap::signatures_on(shown).empty());
        }
    }
}

TEST_CASE("remapsetup format --zfs hides the places of ZFS's labels", "[payload]") {
    const scratch::Folder dir;
    const std::string main = dir.file("main");
    const std::string spare = dir.file("spare");
    REQUIRE(scratch::run({"truncate", "-s", "8M", spare}).code == 0);
    const auto format = [&] {
        const std::string setup = std::string(REMAP_BIN_DIR) + "/remapsetup";
        return scratch::run(
            {setup, "format", "--zfs", "--yes", "--rescue-file", "none", main, spare});
    };
    // ZFS itself takes nothing smaller.
    REQUIRE(scratch::run({"truncate", "-s", "67104768", main}).code == 0);
    const auto refused = format();
    CHECK(refused.code == 16);
    CHECK(
        refused.err.find(main + ": too small for ZFS: it has 67104768 bytes, at least 67108864") !=
        std::string::npos);
    CHECK(scratch::slurp(spare).find_first_not_of('\0') == std::string::npos);

    REQUIRE(scratch::run({"truncate", "-s", "64M", main}).code == 0);
    REQUIRE(format().code == 0);
    const auto io = remap::open_block_io(spare, remap::Mode::read_only);
    const remap::Superblock superblock = remap::load_superblock(*io);
    const auto hidden = remap::hidden_blocks_of(superblock);
    const auto wanted = remap::zfs_places(superblock);
    CHECK(wanted.size() == (1U << 20) / superblock.block_size());
    CHECK(std::includes(hidden.begin(), hidden.end(), wanted.begin(), wanted.end()));
}

TEST_CASE("A leg of a mirror is adopted as that, whatever its data shows", "[payload]") {
    const scratch::Folder dir;
    const std::string path = dir.file("leg");
    scratch::spill(path, std::string(sectors * 512, '\0'));
    REQUIRE(scratch::run({"mkfs.ext4", "-q", "-F", path}).code == 0);
    const std::string text = scratch::slurp(path);
    Image original(text.begin(), text.end());
    make_md(original, md_end);

    remap::MemoryIo main("main", original);
    remap::MemoryIo spare("spare", Image(sectors * 512));
    const remap::Payload payload = remap::recognise_payload(main, 512, false);
    CHECK(payload.description.find("linux_raid_member") == 0);
    CHECK(payload.deciding_sector == md_end);
    fixture::adopt_now(main, spare, payload, 512);
    CHECK(remap::signatures_on(main).empty());
    CHECK(fixture::composed_view({main.content(), spare.content(), 512}) == original);
}

TEST_CASE("Two different payloads are refused", "[payload]") {
    Image original(sectors * 512);
    make_lvm(original);
    make_luks1(original);
    remap::MemoryIo main("main", original);
    std::string said;
    try {
        remap::recognise_payload(main, 512, false);
    } catch (const remap::Error& error) {
        said = error.what();
    }
    CHECK(said.find("main: is not clearly one thing: ") == 0);
    CHECK(said.find("LVM2_member") != std::string::npos);
    CHECK(said.find("crypto_LUKS") != std::string::npos);
}

TEST_CASE("File systems made by their own tools are adopted, hidden, and given back", "[payload]") {
    struct Case {
        std::vector<std::string> make;
        const char* size;
        const char* type;
        std::vector<std::string> check;
    };
    const std::vector<Case> cases = {
        {{"mkfs.xfs", "-q", "-f"}, "320M", "xfs", {"xfs_repair", "-n", "-f"}},
        {{"mkfs.btrfs", "-q", "-f"}, "120M", "btrfs", {"btrfs", "check", "-q"}},
        {{"mkfs.f2fs", "-q", "-f"}, "64M", "f2fs", {"fsck.f2fs", "--dry-run"}},
        {{"mkswap", "-q"}, "16M", "swap", {}},
        {{"mkfs.ext2", "-q"}, "16M", "ext2", {"e2fsck", "-fn"}},
        {{"mkfs.ext3", "-q"}, "32M", "ext3", {"e2fsck", "-fn"}},
    };
    const std::string setup = std::string(REMAP_BIN_DIR) + "/remapsetup";
    for (const Case& c : cases) {
        INFO(c.type);
        const scratch::Folder dir;
        const std::string main = dir.file("main");
        const std::string spare = dir.file("spare");
        const std::string original = dir.file("original");
        const auto must = [](std::vector<std::string> command) {
            INFO(command.front());
            const auto result = scratch::run(command);
            INFO(result.out << result.err);
            REQUIRE(result.code == 0);
        };
        const auto with = [](std::vector<std::string> command, const std::string& file) {
            command.push_back(file);
            return command;
        };
        must({"truncate", "-s", c.size, main});
        must({"truncate", "-s", "8M", spare});
        must(with(c.make, main));
        must({"cp", "--sparse=always", main, original});
        must({setup, "format", "--yes", "--rescue-file", dir.file("rescue"), main, spare});

        CHECK(remap::visible_signatures(main).empty());
        CHECK(remap::visible_signatures(spare).empty());
        CHECK(scratch::run({"cmp", "-s", main, original}).code == 1);
        must({setup, "release", "--yes", "--main", main, spare});
        must({"cmp", main, original});
        if (!c.check.empty())
            must(with(c.check, main));
    }
}
