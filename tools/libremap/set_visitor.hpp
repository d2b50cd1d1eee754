// SPDX-License-Identifier: GPL-2.0-or-later
//
// One way through a set's metadata. What walks (a spare, a dump in JSON, a dump as text) and what
// is done with it (writing such a dump, building a set again) meet here and nowhere else.
#pragma once

#include <cstdint>
#include <vector>

#include "libremap/format.hpp"

namespace remap {

/// What a dump says besides the metadata.
struct DumpInfo {
    /// Somebody held the device when it was read: what was remapped afterwards is not in the dump.
    bool taken_in_use = false;
};

/// Receives a set: the superblock, then each table block in order of its index, within it the
/// entries that are not free in order of their slots, then finish().
class SetVisitor {
  public:
    virtual ~SetVisitor() = default;

    virtual void superblock(const DumpInfo& info, const Superblock& superblock) = 0;
    virtual void block(std::uint64_t index, std::uint64_t generation) = 0;
    /// A table block of which no copy is valid; its entries are not known.
    virtual void lost_block(std::uint64_t index) = 0;
    virtual void entry(std::uint64_t slot, const Entry& entry) = 0;
    virtual void finish() = 0;

  protected:
    SetVisitor() = default;
    SetVisitor(const SetVisitor&) = default;
    SetVisitor& operator=(const SetVisitor&) = default;
};

/// A set in memory: 16 bytes per slot of the table blocks.
struct StagedSet {
    DumpInfo info;
    Superblock superblock;
    std::vector<std::uint64_t> generations;  ///< by table block
    std::vector<Entry> entries;              ///< by slot, whole table blocks

    /// The highest generation of superblock and table.
    std::uint64_t highest_generation() const;
};

/// Builds a set and believes nothing: every number is checked against the format's bounds, every
/// table block must be there once and none may be lost. Throws Error (unrecognised).
class SetBuilder : public SetVisitor {
  public:
    void superblock(const DumpInfo& info, const Superblock& superblock) override;
    void block(std::uint64_t index, std::uint64_t generation) override;
    void lost_block(std::uint64_t index) override;
    void entry(std::uint64_t slot, const Entry& entry) override;
    void finish() override;

    StagedSet take() { return std::move(set_); }

  private:
    StagedSet set_;
    bool started_ = false;
    std::uint64_t next_slot_ = 0;
};

}  // namespace remap
