// SPDX-License-Identifier: GPL-2.0-or-later
//
// The verbs: each takes its parsed options and returns the exit code; what fails throws
// remap::Error. Each has a file of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "libremap/migrate.hpp"
#include "libremap/report.hpp"
#include "libremap/restore.hpp"

namespace remap_dump {

struct ShowVerb {
    std::string device;
    bool json = false;
    bool timeline = false;
};
int run_show(const ShowVerb& verb);

struct ExportVerb {
    std::string device;
    std::string format = "json";
    std::string main;              ///< for dmtable
    std::uint64_t block_size = 0;  ///< bytes, for badblocks; 0: not given
};
int run_export(const ExportVerb& verb);

struct RestoreVerb {
    remap::RestoreOptions options;
    std::string undo_file;  ///< empty: none was named
    bool slots_in_place = false;
    bool slots_lost = false;
    bool yes = false;
    bool dry_run = false;
};
int run_restore(const RestoreVerb& verb);

struct ImportVerb {
    std::string list;
    std::string spare;
    std::string format;
    std::uint64_t block_size = 0;  ///< bytes, for badblocks; 0: not given
    std::string undo_file;         ///< empty: none was named
    bool skip = false;
    bool yes = false;
    bool dry_run = false;
};
int run_import(const ImportVerb& verb);

struct MigrateVerb {
    remap::MigrateOptions options;
    std::string undo_file;  ///< empty: none was named
    std::string doubtful = "lost";
    std::uint32_t entry_sectors = 0;  ///< 0: not given
    bool json = false;
    bool yes = false;
    bool dry_run = false;
};
int run_migrate(const MigrateVerb& verb);

/// For verbs that only read: a reader of the output who has gone ends them at once and quietly, as
/// with any filter, whatever was inherited. Verbs that write must not be ended by it, and ignore
/// the signal.
void end_with_reader();

/// What -z was given.
std::optional<std::string> wished_undo_file(const std::string& option);

/// Text or JSON on standard output.
std::unique_ptr<remap::Emitter> make_emitter(bool json);

}  // namespace remap_dump
