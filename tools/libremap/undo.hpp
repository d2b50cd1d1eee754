// SPDX-License-Identifier: GPL-2.0-or-later
//
// The undo file of a repair: what lay where the repair writes. It is durable before the first
// change to a device, and undo_repair() gives back the identical bytes. docs/undo.md has its
// format.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "libremap/block_io.hpp"
#include "libremap/format.hpp"
#include "libremap/overlay_io.hpp"

namespace remap {

/// A member of the set as an undo file knows it.
struct UndoMember {
    std::uint8_t role = 0;
    Uuid uuid;
    std::uint64_t size = 0;               ///< sectors
    std::uint32_t logical = sector_size;  ///< bytes
    std::uint32_t place_sectors = 1;      ///< sectors per place
    std::uint32_t places_crc = 0;         ///< see places_checksum()
    /// Where superblocks or labels lie. What of them the repair does not write shows whether
    /// anybody changed the set since.
    std::vector<std::uint64_t> places;
    std::string name;  ///< for messages
};

/// To what an undo file belongs.
struct UndoHeader {
    std::uint64_t id = 0;    ///< random; in every checksum of the file
    std::uint64_t time = 0;  ///< unix seconds
    std::string tool;
    Uuid set_uuid;
    std::uint64_t nonce = 0;
    /// Highest epoch and generation of the set when the repair is through: more means that the set
    /// was used since.
    std::uint32_t epoch_limit = 0;
    std::uint64_t generation_limit = 0;
    std::vector<UndoMember> members;  ///< the spare first; the main only if it is written to
};

/// Where an undo file's bytes go.
class UndoSink {
  public:
    virtual ~UndoSink() = default;
    UndoSink() = default;
    UndoSink(const UndoSink&) = delete;
    UndoSink& operator=(const UndoSink&) = delete;

    /// Adds bytes at the end. Throws Error.
    virtual void append(ConstBytes bytes) = 0;
    /// Makes the file with everything in it durable, and its name. Throws Error.
    virtual void sync() = 0;
};

/// A new file, readable by its owner only.
class UndoFileSink : public UndoSink {
  public:
    /// Throws Error if `path` exists or cannot be made.
    explicit UndoFileSink(const std::string& path);
    ~UndoFileSink() override;

    void append(ConstBytes bytes) override;
    void sync() override;
    /// Removes the file again: nothing was changed.
    void discard();
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    int fd_ = -1;
    bool named_ = false;  ///< the name is durable
};

/// Checksum over the places of a member as far as `journal` does not write them. Sectors that
/// cannot be read count as such.
std::uint32_t places_checksum(BlockIo& io, const UndoMember& member,
                              const std::function<bool(std::uint64_t)>& skip);

/// Bytes that write_undo() is going to need.
std::uint64_t undo_size(const WriteJournal& journal);

/// Writes header, the present contents of everything that `journal` writes, and the end record,
/// and syncs. `main` may be null if the journal does not write it. Throws Error.
void write_undo(UndoSink& sink, UndoHeader header, const WriteJournal& journal, BlockIo& spare,
                BlockIo* main);

/// Adds what the repair is going to write besides what it was thought to, and syncs. Throws Error.
void add_undo_images(UndoSink& sink, std::uint64_t id, unsigned int member, std::uint64_t sector,
                     std::span<const std::uint32_t> crcs);

/// An undo file that was read and verified as a whole. Its ranges point into its bytes.
struct UndoLog {
    UndoLog() = default;
    UndoLog(UndoLog&&) = default;
    UndoLog& operator=(UndoLog&&) = default;

    struct Range {
        unsigned int member = 0;
        std::uint64_t sector = 0;
        std::uint64_t count = 0;  ///< sectors
        bool unreadable = false;  ///< there is nothing to give back
        ConstBytes content;       ///< in `bytes`
    };
    UndoHeader header;
    std::vector<Range> ranges;  ///< in the order in which the repair wrote them
    /// By member and sector: CRCs of what the repair may have left there.
    std::vector<std::unordered_map<std::uint64_t, std::vector<std::uint32_t>>> images;
    std::vector<std::uint8_t> bytes;

    /// Sectors that are given back.
    std::uint64_t sectors() const;
    /// Sectors that could not be read when the file was written.
    std::uint64_t unreadable_sectors() const;
    bool writes(unsigned int member) const;
};

/// Reads an undo file; `name` is for messages. Throws Error (unrecognised) for anything that is
/// not a whole and valid one.
UndoLog parse_undo(std::vector<std::uint8_t> bytes, const std::string& name);
UndoLog read_undo(const std::string& path);

/// Verifies that the devices hold what the repair left, or what it found, at every place in
/// question, and that they were not used since. Throws Error (unrecognised) if not. `main` may be
/// null if the file has nothing for it.
void verify_undo(const UndoLog& log, BlockIo& spare, BlockIo* main);

struct UndoResult {
    std::uint64_t restored = 0;  ///< sectors that were written
    std::uint64_t same = 0;      ///< sectors that held the old content already
    std::vector<std::string> errors;
};

/// verify_undo(), then gives back the old content in the reverse order of the repair, each range
/// durable before the next. A range that cannot be written is told, and the rest goes on. May be
/// interrupted at any point and run again.
UndoResult undo_repair(const UndoLog& log, BlockIo& spare, BlockIo* main);

}  // namespace remap
