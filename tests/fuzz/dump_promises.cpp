// SPDX-License-Identifier: GPL-2.0-or-later
#include "dump_promises.hpp"

#include <algorithm>
#include <sstream>

#include "hostile_set.hpp"
#include "libremap/error.hpp"
#include "libremap/export.hpp"
#include "libremap/restore.hpp"
#include "libremap/set_reader.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/text.hpp"
#include "memory_use.hpp"

namespace fuzz {
namespace {

using remap::Error;
using remap::Exit;
using remap::StagedSet;

constexpr const char* name = "dump";
/// A token of 1 MiB while its memory grows, twice; a superblock's fields.
constexpr std::size_t enough_memory = std::size_t{8} << 20;

/// Keeps nothing.
class Nobody : public remap::SetVisitor {
  public:
    void superblock(const remap::DumpInfo& info, const remap::Superblock& superblock) override {
        static_cast<void>(info);
        static_cast<void>(superblock);
    }
    void block(std::uint64_t index, std::uint64_t generation) override {
        static_cast<void>(index);
        static_cast<void>(generation);
    }
    void lost_block(std::uint64_t index) override { static_cast<void>(index); }
    void entry(std::uint64_t slot, const remap::Entry& entry) override {
        static_cast<void>(slot);
        static_cast<void>(entry);
    }
    void finish() override {}
};

/// A text, and then a part of it again and again.
class Endless : public std::streambuf {
  public:
    Endless(std::string text, std::string part, std::size_t times)
        : text_(std::move(text)), part_(std::move(part)), times_(times) {
        setg(text_.data(), text_.data(), text_.data() + text_.size());
    }

  protected:
    int_type underflow() override {
        if (part_.empty() || times_ == 0) {
            return traits_type::eof();
        }
        --times_;
        setg(part_.data(), part_.data(), part_.data() + part_.size());
        return traits_type::to_int_type(*gptr());
    }

  private:
    std::string text_;
    std::string part_;
    std::size_t times_;
};

bool reads(ReadDump read, std::streambuf& in, remap::SetVisitor& set) {
    try {
        read(in, name, set);
        return true;
    } catch (const Error& error) {
        check_refusal(error, name);
        return false;
    }
}

/// What a reader that keeps nothing takes while it reads.
void check_memory(ReadDump read, std::streambuf& in) {
    Nobody nobody;
    const MemoryUse memory;
    reads(read, in, nobody);
    promise(memory.most() <= enough_memory, remap::cat("reading took ", memory.most(), " bytes"));
}

void read_without_end(Input& input, ReadDump read) {
    constexpr std::size_t in_all = std::size_t{5} << 19;
    const std::size_t at = input.word();
    const std::size_t length = std::size_t{input.byte()} + 1;
    const std::string text = input.text();
    const std::string part = text.substr(std::min(at, text.size()), length);
    Endless in(text.substr(0, at + length), part, part.empty() ? 0 : in_all / part.size());
    check_memory(read, in);
}

bool same(const StagedSet& a, const StagedSet& b) {
    return a.info.taken_in_use == b.info.taken_in_use && a.superblock == b.superblock &&
           a.generations == b.generations && a.entries == b.entries;
}

std::string written(const StagedSet& set, bool json) {
    std::ostringstream out;
    const auto writer = json ? remap::make_json_writer(out) : remap::make_text_writer(out);
    writer->superblock(set.info, set.superblock);
    for (std::uint64_t index = 0; index < set.generations.size(); ++index) {
        writer->block(index, set.generations[index]);
        for (std::uint64_t i = 0; i < REMAP_ENTRIES_PER_BLOCK; ++i) {
            const std::uint64_t slot = index * REMAP_ENTRIES_PER_BLOCK + i;
            if (!set.entries[slot].is_free()) {
                writer->entry(slot, set.entries[slot]);
            }
        }
    }
    writer->finish();
    return out.str();
}

void check_round_trip(const StagedSet& set) {
    for (const bool json : {true, false}) {
        const std::string text = written(set, json);
        if (json) {
            check_json(text);
        } else {
            check_text(text);
        }
        std::stringbuf in(text);
        remap::SetBuilder again;
        (json ? remap::read_json_dump : remap::read_text_dump)(in, name, again);
        const StagedSet back = again.take();
        promise(same(back, set), "a dump does not come back");
        promise(written(back, json) == text, "the same set is written differently");
    }
}

/// Onto a device that holds a sample's set, or nothing.
void check_restore(const StagedSet& set, bool blank) {
    static const std::vector<std::uint8_t> nothing;
    const auto& base = blank ? nothing : sample_sets().front().spare.content();
    const remap::Superblock& sb = set.superblock;
    Overlay target("target", base, 512);
    target.resize(std::min<std::uint64_t>(sb.spare_size, std::uint64_t{1} << 21));
    target.freeze("a target is only looked at");
    const remap::RestoreTarget found = remap::look_at_target(target, set);
    try {
        remap::require_restorable(target, set, found);
    } catch (const Error& error) {
        promise(error.code() == Exit::unrecognised, error.what());
        return;
    }
    target.thaw();
    remap::Observer quiet;
    remap::write_set(target, set, quiet);
    target.freeze("reading back");
    remap::SetBuilder back;
    remap::visit_set(target, set.info.taken_in_use, back);
    promise(same(back.take(), set), "what was restored is not what is read back");
    promise(remap::look_at_target(target, set).identical, "a restored set is not identical");
}

}  // namespace

void check_dump(Input& input, ReadDump read) {
    const std::uint8_t flags = input.byte();
    if ((flags & 15) == 15) {
        read_without_end(input, read);
        return;
    }
    const std::string text = input.text();
    std::stringbuf first(text);
    check_memory(read, first);
    std::stringbuf second(text);
    remap::SetBuilder builder;
    if (!reads(read, second, builder)) {
        return;
    }
    const StagedSet set = builder.take();
    check_round_trip(set);
    check_restore(set, (flags & 16) != 0);
}

}  // namespace fuzz
