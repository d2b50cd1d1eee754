// SPDX-License-Identifier: GPL-2.0-or-later
//
// Writes the inputs that the fuzz targets begin with: fuzz-seeds FOLDER makes FOLDER/TARGET/NAME.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "hostile_set.hpp"
#include "libremap/error.hpp"
#include "libremap/export.hpp"
#include "libremap/places.hpp"
#include "libremap/rehearsal.hpp"
#include "libremap/rescue_file.hpp"
#include "libremap/set_writer.hpp"
#include "libremap/text.hpp"
#include "libremap/undo.hpp"
#include "memory_sink.hpp"
#include "older_spare.hpp"

namespace {

namespace fs = std::filesystem;
using Buffer = std::vector<std::uint8_t>;
using fuzz::Step;

class Corpus {
  public:
    explicit Corpus(fs::path folder) : folder_(std::move(folder)) {}

    /// One input; `lead` are the flags and so on in front of the bytes.
    template <typename Bytes>
    void add(const std::string& target, const Buffer& lead, const Bytes& bytes) {
        fs::create_directories(folder_ / target);
        std::ofstream out(folder_ / target / remap::cat("seed-", ++count_), std::ios::binary);
        out.write(reinterpret_cast<const char*>(lead.data()),
                  static_cast<std::streamsize>(lead.size()));
        out.write(reinterpret_cast<const char*>(bytes.data()),
                  static_cast<std::streamsize>(bytes.size()));
        if (!out.flush()) {
            throw remap::Error(remap::Exit::operational, target + ": cannot write a seed");
        }
    }

  private:
    fs::path folder_;
    unsigned int count_ = 0;
};

void add_structures(Corpus& corpus, const remap::test::SampleSet& set) {
    const remap::Superblock& sb = set.superblock;
    for (unsigned int copy = 0; copy < REMAP_SB_COPIES; ++copy) {
        corpus.add("superblock", {0}, remap::encode_superblock(sb, copy));
    }
    if (!sb.is_bare()) {
        const remap::Label label = remap::make_label(sb);
        corpus.add("label", {0}, remap::encode_label(label, 0, sb.label_sector[0]));
        corpus.add("label", {0}, remap::encode_filler(remap::make_filler(sb), 3));
    }
    const std::span<const remap::Entry> entries(set.entries);
    for (std::uint64_t index = 0; index < sb.table_length; ++index) {
        const auto some = entries.subspan(index * REMAP_ENTRIES_PER_BLOCK, REMAP_ENTRIES_PER_BLOCK);
        for (std::uint8_t copy = 0; copy < sb.segment().nr_copies; ++copy) {
            corpus.add("table", {0, copy},
                       remap::table_block_bytes(sb, copy, index, set.generation, some));
        }
    }
}

void add_rescue_file(Corpus& corpus, const remap::test::SampleSet& set) {
    remap::MemoryIo main("main", set.main.content(), set.superblock.block_size());
    remap::MainBlocks blocks(main, set.superblock.block_sectors());
    const fs::path file = fs::temp_directory_path() / remap::cat("rescue-seed.", getpid());
    remap::HiddenContent content = remap::read_hidden(blocks, set.superblock);
    if (!content.blocks.empty()) {
        content.lost.insert(content.blocks.back());
    }
    remap::write_rescue_file(file.string(), set.superblock, content);
    std::ifstream in(file, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    fs::remove(file);
    corpus.add("rescue", {0}, bytes);
}

constexpr std::uint8_t step(Step kind) {
    return static_cast<std::uint8_t>(kind);
}

/// One damage of each kind on each set, without and with the main, careful and not.
void add_hostile_sets(Corpus& corpus) {
    const std::vector<Buffer> damages = {
        {},
        {step(Step::superblock), 0x81, 0x90, 0, 1, 0xff, 0xff},           // a bad checksum
        {step(Step::superblock), 0x1f, 0x92, 0, 3, 0xff, 0xff, 0xff, 1},  // main_size, sealed
        {step(Step::superblock), 0x1f, 26, 0, 0, 2},                      // adopting
        {step(Step::superblock), 0x1f, 26, 0, 0, 3},                      // releasing
        {step(Step::superblock), 0x1f, 0x8c, 0, 0, 1},                    // one live copy
        {step(Step::superblock), 0x03, 56, 0, 0, 0x77},                   // newer generation
        {step(Step::superblock), 0x1f, 20, 0, 0, 2},                      // newer version
        {step(Step::superblock), 0x1f, 48, 0, 0, 1},                      // unknown feature
        {step(Step::superblock), 0x1f, 160, 0, 0, 9},                     // table length
        {step(Step::table), 0, 0x81, 0x50, 0, 1, 0xff, 0xff},
        {step(Step::table), 0, 0x83, 0x50, 0, 1, 0xff, 0xff},
        {step(Step::table), 0, 0x03, 0x40, 0, 1, 0xff, 0xff},  // an entry, both copies
        {step(Step::table), 0, 0x01, 24, 0, 0, 0x77},          // newer generation
        {step(Step::label), 0, 0, 128, 0, 0, 9},               // a label's epoch
        {step(Step::label), 0, 0x80, 0, 0, 0, 9},
        {step(Step::scribble), 1, 0, 0x5a},
        {step(Step::bad_read), 1, 0},
        {step(Step::bad_write), 1, 0, step(Step::scribble), 1, 0, 0},
        {step(Step::copy), 1, 0, 5, 0},
        {step(Step::resize), 0, 6},
        {step(Step::resize), 0, 9},
        {step(Step::bad_main), 0},
    };
    for (std::uint8_t set = 0; set < fuzz::sample_sets().size(); ++set) {
        for (const Buffer& damage : damages) {
            corpus.add("probe", {set}, damage);
            corpus.add("forensic", {8, 0, 4, set}, damage);
            corpus.add("forensic", {0, 0, 9, set}, damage);
            for (const std::uint8_t flags : {std::uint8_t{0}, std::uint8_t{3}, std::uint8_t{5}}) {
                corpus.add("set", {flags, set}, damage);
            }
        }
    }
}

/// The undo files of a careful and of a full repair, the second with images added.
void add_undo_files(Corpus& corpus) {
    for (const bool everything : {false, true}) {
        remap::test::SampleSet set = fuzz::damaged_set();
        remap::BlockIo* main = everything ? &set.main : nullptr;
        const remap::CheckResult result = remap::check_set(set.spare, main);
        const remap::Rehearsal rehearsal =
            remap::rehearse(result, set.spare, main, [](const remap::Finding&) { return true; });
        const remap::UndoHeader header = remap::undo_header(*result.superblock, rehearsal);
        remap::test::MemorySink sink;
        remap::write_undo(sink, header, rehearsal.journal, set.spare, main);
        if (everything) {
            const std::vector<std::uint32_t> crcs = {1, 2, 3};
            remap::add_undo_images(sink, header.id, 0, set.superblock.sb_sector[1], crcs);
        }
        corpus.add("undo", {0}, sink.bytes);
    }
}

/// Both forms of each set, in a state of its own; and input that goes on and on.
void add_dumps(Corpus& corpus) {
    for (const remap::test::SampleSet& sample : fuzz::sample_sets()) {
        remap::test::SampleSet set = sample;
        for (const bool json : {true, false}) {
            const char* target = json ? "json_dump" : "text_dump";
            std::ostringstream out;
            const auto writer = json ? remap::make_json_writer(out) : remap::make_text_writer(out);
            remap::visit_set(set.spare, json, *writer);
            corpus.add(target, {0}, out.str());
            corpus.add(target, {16}, out.str());
            corpus.add(target, {15, 40, 0, 10}, out.str().substr(0, 60));
        }
    }
}

void add_lists(Corpus& corpus) {
    for (const unsigned int set : {0x00U, 0x20U, 0x40U, 0xe0U}) {
        const auto choice = [set](unsigned int low) {
            return static_cast<std::uint8_t>(set | low);
        };
        corpus.add("lists", {choice(0)},
                   std::string("# by hand\n0x400 + 1\n0 0x400 +\n0x400 0x2000 -\n0x2400 512 ?\n"));
        corpus.add("lists", {choice(1)}, std::string("20\n21\n 300\n7\n"));
        corpus.add("lists", {choice(1 | 2 << 2)}, std::string("20\n21\n100\n"));
        corpus.add("lists", {choice(2)}, std::string("30 8\n1000 1\n40 2 # why\n"));
        corpus.add("lists", {choice(2)}, std::string("9223372036854775 807\n4000 4000\n"));
    }
}

/// Copies that agree or do not, entries that share sectors, data behind them, the script's headers.
void add_older_spares(Corpus& corpus) {
    const auto step = [](fuzz::OlderStep s) { return static_cast<std::uint8_t>(s); };
    const Buffer dmr4 = {
        step(fuzz::OlderStep::dmr4), 0x1f, 7, 3, 10, 0, 0, 8, 11, 0, 1, 8, 12, 0, 0, 9};
    const Buffer data = {step(fuzz::OlderStep::data), 0, 8, 0x77,
                         step(fuzz::OlderStep::data), 1, 8, 0x78};
    const std::vector<Buffer> more = {
        {},
        {step(fuzz::OlderStep::script), 3},
        {step(fuzz::OlderStep::dmr4), 0x04, 9, 1, 10, 0, 0, 8},
        {step(fuzz::OlderStep::patch), 0, 0, 40, 1, 3, 1, 0, 0, 0},
        {step(fuzz::OlderStep::patch), 0, 0x80, 10, 0, 0, 1},
        {step(fuzz::OlderStep::bad_read), 0, 8},
        {step(fuzz::OlderStep::bad_read), 5, 0},
        {step(fuzz::OlderStep::dmremap3), 2, 10, 0, 0, 8, 11, 0, 1, 8},
    };
    for (const std::uint8_t rules : Buffer{0, 1, 8, 2 | 5 << 3, 4 | 2 << 3}) {
        for (const Buffer& last : more) {
            Buffer all = dmr4;
            all.insert(all.end(), data.begin(), data.end());
            all.insert(all.end(), last.begin(), last.end());
            corpus.add("older", {rules}, all);
        }
        corpus.add("older", {rules}, Buffer{step(fuzz::OlderStep::script), 0});
    }
}

void add_texts(Corpus& corpus) {
    for (const char* text : {
             "",
             "# nothing\n",
             "root UUID=11111111-2222-3333-4444-555555555556 -\n",
             "a UUID=11111111-2222-3333-4444-555555555556 noauto,main=/dev/sda # why\n\nb UUID=x\n"
             "a UUID=21111111-2222-3333-4444-555555555556\n..\tUUID=\n",
         }) {
        corpus.add("remaptab", {}, std::string(text));
    }
    const std::string line =
        "11111111-2222-3333-4444-555555555556 8 12/3000 10 1 1 8 2/2 7 3 4 5 6 7 8 1 0 0 ok rw";
    corpus.add("status", {0}, line);
    corpus.add("status", {0}, line.substr(0, 60));
    corpus.add("status", {0}, std::string("Error"));
    corpus.add("status", {1},
               std::string("quiet rd.remap.uuid=11111111-2222-3333-4444-555555555556 rd.remap=0 "
                           "rd.remap.uuid=x rd.remap.timeout=3"));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: fuzz-seeds FOLDER\n";
        return 2;
    }
    try {
        Corpus corpus(argv[1]);
        for (const remap::test::SampleSet& set : fuzz::sample_sets()) {
            add_structures(corpus, set);
            add_rescue_file(corpus, set);
        }
        add_hostile_sets(corpus);
        add_undo_files(corpus);
        add_dumps(corpus);
        add_lists(corpus);
        add_older_spares(corpus);
        add_texts(corpus);
    } catch (const std::exception& error) {
        std::cerr << "fuzz-seeds: " << error.what() << "\n";
        return 1;
    }
    return 0;
}
