// SPDX-License-Identifier: GPL-2.0-or-later
#include "oracle.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "image.hpp"

namespace model {
namespace {

struct SectorHead {
    std::uint64_t block;
    std::uint32_t version;
    std::uint32_t index;
};

SectorHead sector_head(const std::uint8_t* sector) {
    SectorHead head;
    std::memcpy(&head, sector, sizeof(head));
    return head;
}

bool intact(const std::uint8_t* sector, const SectorHead& head) {
    std::array<std::uint8_t, sector_size> expected;
    fill_sector(expected.data(), head.block, head.version, head.index);
    return std::memcmp(expected.data(), sector, sector_size) == 0;
}

std::string version_name(std::uint32_t id) {
    if (id == first_version)
        return "the content at format";
    if (id == lost_version)
        return "lost";
    return "write " + std::to_string(id);
}

std::string describe(const std::vector<Version>& versions) {
    std::string text;
    for (const Version& v : versions) {
        text += text.empty() ? "" : ", ";
        text += version_name(v.id);
        text += v.state == Version::pending  ? " (pending)"
                : v.state == Version::failed ? " (failed)"
                : v.durable                  ? " (durable)"
                                             : "";
    }
    return text;
}

}  // namespace

void fill_sector(std::uint8_t* to, std::uint64_t block, std::uint32_t version,
                 std::uint32_t index) {
    const SectorHead head{block, version, index};
    std::uint64_t word = Random::mix(block * 8 + index + (std::uint64_t{version} << 32));

    std::memcpy(to, &head, sizeof(head));
    for (std::size_t at = sizeof(head); at < sector_size; at += sizeof(word)) {
        std::memcpy(to + at, &word, sizeof(word));
        word = word * 6364136223846793005 + 1442695040888963407;
    }
}

Oracle::Oracle(const Window& window, const std::vector<bool>& lost) : window_(&window) {
    for (std::size_t i = 0; i < window.blocks.size(); i++) {
        const std::uint32_t id = lost[i] ? lost_version : first_version;
        versions_.push_back({{id, Version::acknowledged, false, true, false, false, false, 0, 0}});
    }
}

void Oracle::write(const UserWrite& write) {
    clock_++;
    for (std::uint64_t b = write.block; b < write.block + write.count; b++)
        versions_[window_->index_of[b]].push_back(
            {write.version, Version::pending, write.fua, false, false, false, false, clock_, 0});
    if (write.preflush)
        flush(write.version | 0x80000000);
}

void Oracle::write_done(const UserWrite& write, bool ok) {
    clock_++;
    for (std::uint64_t b = write.block; b < write.block + write.count; b++) {
        for (Version& v : versions_[window_->index_of[b]]) {
            if (v.id != write.version || v.state != Version::pending)
                continue;
            v.state = ok ? Version::acknowledged : Version::failed;
            v.durable = ok && write.fua && !v.undefined;
            v.end = clock_;
        }
    }
    if (write.preflush)
        flush_done(write.version | 0x80000000, ok);
}

void Oracle::flush(std::uint32_t id) {
    clock_++;
    flushes_[id] = clock_;
}

void Oracle::flush_done(std::uint32_t id, bool ok) {
    const std::uint64_t began = flushes_.at(id);

    clock_++;
    flushes_.erase(id);
    if (!ok) {
        std::erase_if(hopes_, [id](const Hope& hope) { return hope.others.count(id) != 0; });
        flush_failed();
        return;
    }
    std::set<std::uint32_t> others;
    for (const auto& [other, since] : flushes_) {
        if (since < began)
            others.insert(other);
    }
    hopes_.push_back({began, others});
    for (Hope& hope : hopes_)
        hope.others.erase(id);
    for (const Hope& hope : hopes_) {
        if (hope.others.empty())
            flush_ok(hope.began);
    }
    std::erase_if(hopes_, [](const Hope& hope) { return hope.others.empty(); });
}

void Oracle::flush_ok(std::uint64_t began) {
    for (auto& all : versions_) {
        for (Version& v : all) {
            if (!v.undefined && v.state == Version::acknowledged && v.end <= began)
                v.durable = true;
        }
    }
}

void Oracle::flush_failed() {
    for (auto& all : versions_) {
        for (Version& v : all) {
            // A drive may have lost what it had not answered yet, too.
            if (!v.durable && !v.undefined)
                v.undefined = v.state != Version::failed;
        }
    }
}

void Oracle::cache_lost(bool fua) {
    for (auto& all : versions_) {
        for (Version& v : all) {
            v.shaken = v.shaken || (v.state != Version::failed && !v.durable);
            v.undefined = v.undefined || (v.state == Version::pending && v.fua && !fua);
        }
    }
}

bool Oracle::shaken() const {
    return std::any_of(versions_.begin(), versions_.end(), [](const auto& all) {
        return std::any_of(all.begin(), all.end(),
                           [](const Version& v) { return v.shaken && !v.durable && !v.undefined; });
    });
}

bool Oracle::certain(const Version& v, const When& when) {
    if (v.state != Version::acknowledged || v.former || v.end > when.began)
        return false;
    return when.cut ? v.durable : v.durable || !(v.shaken || v.undefined);
}

std::vector<Version> Oracle::allowed(const std::vector<Version>& all, const When& when) {
    std::vector<Version> result;

    for (const Version& v : all) {
        const bool superseded = std::any_of(all.begin(), all.end(), [&](const Version& newer) {
            return certain(newer, when) && v.before(newer);
        });
        if (!superseded && (!v.former || when.back))
            result.push_back(v);
    }
    return result;
}

std::string Oracle::check(std::uint64_t block, const Seen& seen, const When& when) const {
    const std::vector<Version> versions = allowed(versions_[window_->index_of[block]], when);

    if (seen.error) {
        const bool may_fail = std::any_of(versions.begin(), versions.end(), [&](const Version& v) {
            return v.id == lost_version || !certain(v, when);
        });
        return may_fail ? "" : "reads as an error, expected " + describe(versions);
    }
    for (std::uint32_t i = 0; i < window_->block_sectors; i++) {
        const std::uint8_t* sector = seen.data + i * sector_size;
        const SectorHead head = sector_head(sector);
        if (!intact(sector, head))
            return "holds no data of ours, expected " + describe(versions);
        if (head.block != block || head.index != i)
            return "holds block " + std::to_string(head.block) + " (" + version_name(head.version) +
                   "), expected " + describe(versions);
        if (std::none_of(versions.begin(), versions.end(),
                         [&](const Version& v) { return v.id == head.version; }))
            return "holds " +
                   (head.version == foreign_version ? std::string("a former content")
                                                    : version_name(head.version)) +
                   ", expected " + describe(versions);
    }
    return "";
}

std::string Oracle::check_read(std::uint64_t block, const Seen& seen, std::uint64_t began) const {
    return check(block, seen, {false, began, false});
}

std::string Oracle::check_after_cut(std::uint64_t block, const Seen& seen, bool back) const {
    return check(block, seen, {true, clock_, back});
}

void Oracle::settle(std::uint64_t block, const Seen& seen) {
    auto& all = versions_[window_->index_of[block]];

    all = allowed(all, {true, clock_, true});
    if (seen.error) {
        for (Version& v : all) {
            if (v.id == lost_version)
                continue;
            v.state = Version::failed;
            v.durable = false;
            v.end = clock_;
        }
        return;
    }
    for (Version& v : all) {
        bool read = false;
        for (std::uint32_t i = 0; i < window_->block_sectors; i++)
            read = read || sector_head(seen.data + i * sector_size).version == v.id;
        v = {v.id, Version::acknowledged, false, true, false, false, !read, 0, 0};
    }
}

std::uint64_t Oracle::pending_writes(std::uint64_t block) const {
    const auto& all = versions_[window_->index_of[block]];
    return static_cast<std::uint64_t>(std::count_if(
        all.begin(), all.end(), [](const Version& v) { return v.state == Version::pending; }));
}

}  // namespace model
