// SPDX-License-Identifier: GPL-2.0-or-later
//
// A set on two disks whose life is told step by step, and all crash states of that life.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "crash.hpp"

namespace model {

/// Fields of the status line, docs/dm-remap.rst.
enum StatusField : unsigned int {
    status_epoch = 9,
    status_remapped = 10,
    status_doubt = 15,
    status_table_length = 16,
};

struct StageOptions {
    SetOptions set;
    std::array<DiskTraits, 2> traits;
    bool verbose = false;
};

class Stage {
  public:
    Stage(const StageOptions& options, Counters& counters);
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;

    // ---- What a life may ask for. All wait until everything is done. ----
    void open();
    /// Empty, or why the set was refused.
    std::string try_open();
    void close();
    void reload();
    /// Were all of them acknowledged?
    bool write(std::uint64_t block, std::uint32_t count = 1, bool fua = false);
    bool flush();
    int message(const std::string& words);
    int remap(std::uint64_t block, std::uint32_t count = 1);
    int forget(std::uint64_t block, std::uint32_t count = 1);

    /// Throws Violation unless the life goes as it has to for its point to be made.
    void expect(bool is, const std::string& what) const;

    /// The same for what an invariant asks of the target.
    static void must(bool is, const std::string& invariant, const std::string& what);

    /// Keeps a copy of the spare as it is; later it must be refused beside the main.
    void keep_spare() { kept_ = std::make_unique<Image>(spare_); }
    void must_refuse_kept_spare();

    std::uint64_t status(StatusField field);
    /// How many entries of the table on disk, mapped or lost, name the block?
    std::size_t slots_of(std::uint64_t block) const;
    void count(const std::string& what) { counters_[what]++; }
    std::uint64_t counted(const std::string& what) const;

    /// The life is over: what may a power cut have left at any point of it? The disks are as they
    /// were before it then. Returns the number of states.
    std::uint64_t check(const CrashPlan& plan);

    const SetLayout& layout() const { return layout_; }
    World& world() { return *world_; }
    Faults faults;  ///< while it lives

  private:
    Counters& counters_;
    Random random_;
    SetLayout layout_;
    Image main_, spare_;
    std::array<DiskTraits, 2> traits_;
    bool verbose_;
    Faults after_cut_;  ///< none
    Oracle start_, oracle_;
    Log log_;
    std::unique_ptr<World> world_;
    std::unique_ptr<Image> kept_;
};

}  // namespace model
