// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the remap device of a set shows, without the kernel: the main with the mapped slots laid
// over it.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"
#include "libremap/metadata.hpp"

namespace remap {

/// For reading only; writes fail with EROFS. Blocks that are lost, hidden without an entry, or that
/// the device they lie on does not give, read as errors.
class SetView : public BlockIo {
  public:
    /// Loads the table. Throws Error if it is damaged. Both members must outlive the view.
    SetView(BlockIo& main, BlockIo& spare, Superblock superblock);

    int try_read(std::uint64_t sector, Bytes to) override;
    int try_write(std::uint64_t sector, ConstBytes from) override;
    int try_flush() override { return 0; }
    std::uint64_t size() const override { return superblock_.main_size; }
    std::uint32_t logical_block_size() const override { return superblock_.block_size(); }
    std::uint32_t physical_block_size() const override { return superblock_.block_size(); }
    const std::string& name() const override { return name_; }
    bool is_block_device() const override { return false; }

    const Superblock& superblock() const { return superblock_; }
    BlockIo& main() { return main_; }
    BlockIo& spare() { return spare_; }

    /// By main block, those that lie on the spare or nowhere.
    const std::map<std::uint64_t, Mapping>& mappings() const { return mappings_; }

    /// Blocks whose contents nobody has, as the table says it.
    const std::set<std::uint64_t>& lost() const { return lost_; }

  private:
    int read_block(const Mapping& mapping, std::uint64_t skipped, Bytes to);

    BlockIo& main_;
    BlockIo& spare_;
    Superblock superblock_;
    std::string name_;
    std::map<std::uint64_t, Mapping> mappings_;
    std::set<std::uint64_t> lost_;
};

}  // namespace remap
