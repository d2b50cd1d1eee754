// SPDX-License-Identifier: GPL-2.0-or-later
//
// /etc/remaptab, the list of the sets that this machine may open by itself:
//
//     NAME UUID=<set> OPTIONS
//
// with options separated by commas, or "-", and comments after "#".
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libremap/uuid.hpp"

namespace remap {

constexpr const char* default_remaptab = "/etc/remaptab";
/// How long to wait for the members of a set, in seconds, if its line does not say.
constexpr unsigned int default_member_timeout = 90;

/// One set that the machine knows.
struct RemaptabEntry {
    std::string name;  ///< of the device below /dev/mapper
    Uuid set;
    std::vector<std::string> options;

    /// Is that option given? Of "key=value" the key is compared.
    bool has(std::string_view option) const;

    /// The value of "option=value"; nothing if it is not given so.
    std::optional<std::string> value(std::string_view option) const;

    /// What `timeout=` says, in seconds; 0 stands for no limit. Nothing if it is not given, or not
    /// understood.
    std::optional<unsigned int> timeout() const;
};

/// May a device-mapper device be called so? Letters, digits and "#+-.:=@_", not longer than 127
/// bytes, and not ".", ".." or "control".
bool valid_device_name(std::string_view name);

/// The name of a set that nobody named: "remap-" and the first eight digits of its UUID.
std::string default_device_name(const Uuid& set);

/// The line of an entry.
std::string line_of(const RemaptabEntry& entry);

/// The file, kept line by line so that comments and lines which are not understood survive an edit.
class Remaptab {
  public:
    /// Parses text; `file` is what messages call it.
    static Remaptab parse(std::string_view text, std::string file);

    /// Reads a file; one that does not exist is empty. Throws Error if it cannot be read.
    static Remaptab load(const std::string& file);

    const std::vector<RemaptabEntry>& entries() const { return entries_; }
    /// What was not understood, as "FILE:LINE: why", for a warning.
    const std::vector<std::string>& problems() const { return problems_; }

    /// The file that it was read from.
    const std::string& file() const { return file_; }

    const RemaptabEntry* find(const Uuid& set) const;
    const RemaptabEntry* find(std::string_view name) const;

    /// Adds a line. Throws Error (usage) if the name is not valid, or the name or the set is listed
    /// already.
    void add(const RemaptabEntry& entry);

    /// Removes the lines of that set; true if there was one.
    bool remove(const Uuid& set);

    /// The text of the file.
    std::string text() const;

    /// Replaces the file as one step: a temporary file beside it, fsync, rename, fsync of the
    /// directory. Mode and owner are kept. Throws Error.
    void save() const;

  private:
    struct Line {
        std::string text;
        std::optional<Uuid> set;
    };

    void append(const std::string& text);

    std::string file_;
    std::vector<Line> lines_;
    std::vector<RemaptabEntry> entries_;
    std::vector<std::string> problems_;
};

/// Loads the file, lets `change` edit it, and saves it if that returns true. No two updates are at
/// it at a time, so none is lost. Throws Error, and what `change` throws.
void update_remaptab(const std::string& file, const std::function<bool(Remaptab&)>& change);

}  // namespace remap
