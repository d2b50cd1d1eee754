// SPDX-License-Identifier: GPL-2.0-or-later
//
// `remapsetup format`: all that must be refused, then adoption, then telling the machine.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libremap/adopt.hpp"
#include "libremap/block_io.hpp"
#include "libremap/observer.hpp"
#include "libremap/probe.hpp"
#include "libremap/references.hpp"
#include "libremap/remaptab.hpp"

namespace remap {

struct FormatOptions {
    std::string main;
    std::string spare;
    bool bare = false;
    bool zfs = false;
    bool force = false;
    std::string label;
    std::string uuid;                        ///< of the set; empty: a random one
    std::optional<std::string> rescue_file;  ///< "none": none; not given: a default place
    std::optional<std::string> remaptab;     ///< "none": none; not given: by the kind of device
    std::uint32_t block_size = 0;            ///< bytes, image files only; 0: the main's own
    /// Only checks and plans: devices may be in use, and are opened for reading.
    bool dry_run = false;
    Host host;  ///< the machine that is to use the set
};

struct FormatResult {
    AdoptResult adopted;
    std::string rescue_file;            ///< empty if none was written
    std::string name;                   ///< in remaptab; empty if none was added
    std::vector<std::string> warnings;  ///< what the user must know; exit 1 if there are any
};

/// One format: made (everything checked and decided), asked about, run.
class FormatJob {
  public:
    /// Opens both devices, exclusively unless it is a dry run, checks all that must be refused, and
    /// plans. Writes nothing. Throws Error with what was seen.
    explicit FormatJob(FormatOptions options);

    /// What will be lost or displaced, for the question to the user.
    std::string consequences() const;

    /// Does it; not for a dry run. Throws Error.
    FormatResult run(Observer& observer);

  private:
    void require_free_devices();
    void require_two_devices() const;
    void choose_block_size();
    void inspect_spare();
    void inspect_main();
    bool shows_labels_of_spare();
    void inspect_host();
    void plan();
    void plan_rescue_file();
    void make_rescue_folder() const;
    void plan_remaptab();
    bool plan_hiding();
    RemaptabEntry future_entry() const;
    bool keeps(const RemaptabEntry& listed) const;
    bool list_set();
    bool list_early();
    void unlist();
    void add_to_remaptab(FormatResult& result);
    void look_again(FormatResult& result);

    FormatOptions options_;
    std::unique_ptr<BlockIo> main_;
    std::unique_ptr<BlockIo> spare_;
    AdoptRequest request_;
    AdoptPlan plan_;
    std::vector<Signature> spare_signatures_;
    std::optional<MemberInfo> spare_member_;
    std::optional<Superblock> spare_superblock_;  ///< of the set that the spare is in now
    std::optional<MemberInfo> main_member_;
    std::vector<std::string> objections_;  ///< of the machine; overruled by force
    std::string rescue_file_;
    std::string remaptab_;  ///< empty: none
    std::string name_;
    RemaptabEntry entry_;     ///< its line, if there is to be one
    std::string hidden_as_;   ///< `main=` of a bare set; empty: none
    std::string not_listed_;  ///< why a bare set gets no line; empty: it does
};

}  // namespace remap
