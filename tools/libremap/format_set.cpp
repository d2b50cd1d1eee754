// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/format_set.hpp"

#include <sys/stat.h>

#include <ctime>
#include <filesystem>

#include "libremap/bare_main.hpp"
#include "libremap/boot_use.hpp"
#include "libremap/error.hpp"
#include "libremap/hardware_name.hpp"
#include "libremap/metadata.hpp"
#include "libremap/older_format.hpp"
#include "libremap/remaptab.hpp"
#include "libremap/rescue_file.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

namespace fs = std::filesystem;

constexpr const char* none = "none";
constexpr const char* rescue_folder = "/var/lib/dm-remap";
constexpr std::uint32_t large_block = 4096;

void require_unused(const std::string& path) {
    const auto users = users_of(path);
    if (users.empty()) {
        return;
    }
    std::string text;
    for (const std::string& user : users) {
        text += (text.empty() ? "" : "; ") + user;
    }
    throw BusyError(cat(path, ": in use: ", text,
                        "; stop that first (a running root is adopted from a rescue system)"));
}

bool same_file(const std::string& a, const std::string& b) {
    struct stat first {};
    struct stat second {};
    if (::stat(a.c_str(), &first) != 0 || ::stat(b.c_str(), &second) != 0) {
        return false;
    }
    if (S_ISBLK(first.st_mode) && S_ISBLK(second.st_mode)) {
        return first.st_rdev == second.st_rdev;
    }
    return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

std::string member_text(const MemberInfo& member) {
    if (member.newer) {
        return cat("a member of a set in format ", member.version, ", newer than this program");
    }
    const bool half = member.role == REMAP_ROLE_SPARE && member.state != REMAP_STATE_COMPLETE;
    return cat("the ", role_name(member.role), " of set ", member.set,
               member.label.empty() ? "" : cat(" (", member.label, ")"),
               half ? cat(", which is ", set_state_name(member.state),
                          " (remap-fsck -p --main MAIN SPARE ends that)")
                    : "");
}

[[noreturn]] void refuse_without_force(const std::string& device, const std::string& what) {
    throw Error(Exit::usage, cat(device, ": ", what, "; --force overwrites it"));
}

bool valid_utf8(const std::string& text) {
    std::size_t i = 0;
    while (i < text.size()) {
        const auto c = static_cast<unsigned char>(text[i]);
        const std::size_t more = c < 0x80             ? 0
                                 : (c & 0xe0) == 0xc0 ? 1
                                 : (c & 0xf0) == 0xe0 ? 2
                                 : (c & 0xf8) == 0xf0 ? 3
                                                      : text.size();
        if (more >= text.size() - i || c < ' ' || c == 0x7f) {
            return false;
        }
        for (std::size_t k = 1; k <= more; ++k) {
            if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) {
                return false;
            }
        }
        // U+0080 to U+009F are control characters as well.
        if (c == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
            return false;
        }
        i += more + 1;
    }
    return true;
}

void require_label(const std::string& label) {
    if (label.size() > REMAP_TEXT_SIZE || !valid_utf8(label)) {
        throw Error(Exit::usage, cat("--label: expected at most ", REMAP_TEXT_SIZE,
                                     " bytes of UTF-8 without control characters, found ",
                                     label.size(), " bytes"));
    }
}

}  // namespace

FormatJob::FormatJob(FormatOptions options) : options_(std::move(options)) {
    require_label(options_.label);
    require_two_devices();
    require_free_devices();
    choose_block_size();
    inspect_spare();
    inspect_main();
    inspect_host();
    plan();
    plan_rescue_file();
    plan_remaptab();
}

void FormatJob::require_two_devices() const {
    if (same_file(options_.main, options_.spare)) {
        throw Error(Exit::usage, cat(options_.spare, ": main and spare are the same device"));
    }
    const auto main = block_device_of(options_.main);
    const auto spare = block_device_of(options_.spare);
    if (main && spare && main->whole == spare->whole && !options_.force) {
        throw Error(Exit::usage,
                    cat(options_.spare, ": lies on the same disk (", spare->whole, ") as ",
                        options_.main, " and would fail with it; --force takes it all the same"));
    }
}

void FormatJob::require_free_devices() {
    const Mode mode = options_.dry_run ? Mode::read_only : Mode::read_write;
    for (const std::string& path : {options_.main, options_.spare}) {
        if (!options_.dry_run) {
            require_unused(path);
        }
    }
    main_ = open_block_io(options_.main, mode);
    spare_ = open_block_io(options_.spare, mode);
}

void FormatJob::choose_block_size() {
    const std::uint32_t own = main_->logical_block_size();
    if (options_.block_size != 0 && options_.block_size != own && main_->is_block_device()) {
        throw Error(Exit::usage,
                    cat(options_.main, ": --block-size is for image files; the device's own is ",
                        own, " bytes"));
    }
    request_.block_size = options_.block_size != 0 ? options_.block_size : own;
    if (request_.block_size != sector_size && request_.block_size != large_block) {
        throw Error(Exit::usage, cat(options_.main,
                                     ": expected logical blocks of 512 or 4096 "
                                     "bytes, found ",
                                     request_.block_size));
    }
    if (main_->size() % (request_.block_size / sector_size) != 0) {
        throw Error(Exit::usage,
                    cat(options_.main, ": expected a multiple of ", request_.block_size,
                        " bytes, found ", main_->size(), " sectors"));
    }
    if (spare_->logical_block_size() > request_.block_size) {
        throw Error(Exit::usage,
                    cat(options_.spare, ": its logical blocks (", spare_->logical_block_size(),
                        " bytes) are larger than the main's (", request_.block_size,
                        "); such a spare cannot replace single blocks"));
    }
}

void FormatJob::inspect_spare() {
    spare_member_ = probe_member(*spare_);
    if (spare_member_ && !options_.force) {
        refuse_without_force(options_.spare, cat("is ", member_text(*spare_member_)));
    }
    // Copies between the ends count as well, even if those at the ends are damaged.
    const SuperblockScan scan = scan_superblocks(*spare_);
    spare_superblock_ = scan.winner ? scan.winner : scan.majority;
    if (!options_.force &&
        (spare_superblock_ || scan.conflict || scan.ambiguous || scan.newer_version)) {
        refuse_without_force(options_.spare,
                             spare_superblock_
                                 ? cat("is the spare of set ", spare_superblock_->head.set_uuid,
                                       ", some of whose superblocks are damaged")
                                 : cat("holds superblocks of a set: ", explain(scan)));
    }
    // The data behind the older project's remaps is nowhere else.
    if (const auto older = recognise_older(*spare_); older && !options_.force) {
        refuse_without_force(options_.spare,
                             cat("holds metadata of the older project (", older_kind_name(*older),
                                 "); remap-dump migrate reads it"));
    }
    spare_signatures_ = signatures_on(*spare_);
    if (!spare_signatures_.empty() && !options_.force) {
        refuse_without_force(options_.spare, cat("holds ", describe(spare_signatures_)));
    }
}

bool FormatJob::shows_labels_of_spare() {
    if (!spare_superblock_) {
        return false;
    }
    MainBlocks blocks(*main_, spare_superblock_->block_sectors());
    for (const std::uint64_t block : hidden_blocks_of(*spare_superblock_)) {
        if (blocks.sector(block) + spare_superblock_->block_sectors() <= main_->size() &&
            look_at_place(blocks, *spare_superblock_, block) == Place::ours) {
            return true;
        }
    }
    return false;
}

void FormatJob::inspect_main() {
    const auto device = block_device_of(options_.main, options_.host.machine);
    if (device && device->dm_uuid.compare(0, 6, "REMAP-") == 0 && !options_.force) {
        throw Error(Exit::usage, cat(options_.main,
                                     ": is a remap device already; --force adopts it all the "
                                     "same"));
    }
    main_member_ = probe_member(*main_);
    const bool same_set =
        main_member_ &&
        ((spare_member_ && spare_member_->set == main_member_->set) ||
         (spare_superblock_ && spare_superblock_->head.set_uuid == main_member_->set));
    const bool labelled = main_member_ && main_member_->role == REMAP_ROLE_MAIN;
    // Adopting labels as if they were the payload would cost what they hide.
    if (same_set || labelled || shows_labels_of_spare()) {
        throw Error(Exit::usage,
                    cat(options_.main, ": is ",
                        main_member_ ? member_text(*main_member_)
                                     : cat("the main of the set on ", options_.spare),
                        "; release it first, or, if its data is not wanted, overwrite all of it "
                        "(dd, blkdiscard -z); --force does not override this"));
    }
    if (main_member_ && !options_.force) {
        throw Error(Exit::usage, cat(options_.main, ": is ", member_text(*main_member_),
                                     "; --force adopts it as it is"));
    }
    if (!options_.bare) {
        request_.payload = recognise_payload(*main_, request_.block_size, options_.force);
    }
}

/// What would go wrong although both devices are fine.
void FormatJob::inspect_host() {
    FutureMain main;
    main.path = options_.main;
    main.device = block_device_of(options_.main, options_.host.machine);
    main.bare = options_.bare;
    for (const Signature& signature : signatures_on(*main_)) {
        if (!signature.partition_table && main.type.empty()) {
            main.type = signature.type;
            main.uuid = signature.uuid;
            main.label = signature.label;
        }
    }
    if (valid_device_name(options_.label)) {
        main.name = options_.label;
    } else if (const auto set = Uuid::parse(options_.uuid)) {
        main.name = default_device_name(*set);
    }
    const MainNames names(main, options_.host);
    objections_ = objections_to_names(names, options_.host);
    const auto more = objections_to_boot(names, options_.host);
    objections_.insert(objections_.end(), more.begin(), more.end());
    if (objections_.empty() || options_.force) {
        return;
    }
    std::string text =
        cat(options_.main, ": not adopted, for the machine would not find it again:");
    for (const std::string& objection : objections_) {
        text += "\n  " + objection;
    }
    throw Error(Exit::usage, text + "\n--force adopts it all the same");
}

void FormatJob::plan() {
    request_.bare = options_.bare;
    request_.zfs = options_.zfs;
    request_.label = options_.label;
    if (!options_.uuid.empty()) {
        request_.set = Uuid::parse(options_.uuid);
        if (!request_.set) {
            throw Error(Exit::usage, cat("--uuid: expected a UUID, found \"", options_.uuid, "\""));
        }
    }
    request_.main_identity = identify_path(options_.main);
    request_.spare_identity = identify_path(options_.spare);
    request_.now = static_cast<std::uint64_t>(std::time(nullptr));
    plan_ = plan_adoption(*main_, *spare_, request_);
}

void FormatJob::plan_rescue_file() {
    if (options_.bare || options_.rescue_file == none) {
        return;
    }
    const std::string file = cat("remap-", plan_.superblock.head.set_uuid, ".rescue");
    if (options_.rescue_file) {
        rescue_file_ = *options_.rescue_file;
    } else if (main_->is_block_device()) {
        rescue_file_ = cat(rescue_folder, "/", file);
    } else {
        rescue_file_ = (fs::path(options_.spare).parent_path() / file).string();
    }
    if (fs::exists(rescue_file_)) {
        throw Error(Exit::usage, cat(rescue_file_,
                                     ": exists already; a rescue file is never "
                                     "overwritten"));
    }
    for (const std::string& path : {options_.main, options_.spare}) {
        const auto device = block_device_of(path);
        if (device && file_lies_on(rescue_file_, *device)) {
            const std::string problem =
                cat(rescue_file_, ": lies on ", path,
                    " itself and would be lost with it; name another with --rescue-file");
            // Asked about its own root: it will be done elsewhere.
            if (!options_.dry_run || options_.rescue_file) {
                throw Error(Exit::usage, problem);
            }
            objections_.push_back(problem);
            rescue_file_.clear();
            return;
        }
    }
}

void FormatJob::make_rescue_folder() const {
    if (rescue_file_.empty()) {
        return;
    }
    std::error_code error;
    if (!options_.rescue_file && main_->is_block_device() &&
        (fs::create_directories(rescue_folder, error), error)) {
        throw Error(Exit::operational, cat(rescue_folder, ": cannot be created: ", error.message(),
                                           "; name another place with --rescue-file"));
    }
}

/// A bare set is listed only if its main can be hidden; true if it may be.
bool FormatJob::plan_hiding() {
    const auto device = block_device_of(options_.main, options_.host.machine);
    if (!options_.bare || !device) {
        return true;
    }
    try {
        hidden_as_ = identity_text(hideable_identity(*device, options_.host.machine));
        return true;
    } catch (const Error& error) {
        not_listed_ = cat(error.what(),
                          "; so its raw data cannot be hidden, and the set is not listed and not "
                          "opened by itself");
        return false;
    }
}

RemaptabEntry FormatJob::future_entry() const {
    RemaptabEntry entry{name_, plan_.superblock.head.set_uuid, {}};
    if (!hidden_as_.empty()) {
        entry.options.push_back("main=" + hidden_as_);
    }
    const std::string spare = hardware_name(options_.spare);
    if (!spare.empty()) {
        entry.options.push_back("spare=" + spare);
    }
    return entry;
}

/// Does a line that is there already say all that it must?
bool FormatJob::keeps(const RemaptabEntry& listed) const {
    return listed.name == name_ &&
           (hidden_as_.empty() || listed.value("main").value_or("") == hidden_as_);
}

void FormatJob::plan_remaptab() {
    const bool devices = main_->is_block_device() && spare_->is_block_device();
    remaptab_ = options_.remaptab.value_or(devices ? default_remaptab : none);
    if (remaptab_ == none || !plan_hiding()) {
        remaptab_.clear();
        return;
    }
    name_ = valid_device_name(options_.label) ? options_.label
                                              : default_device_name(plan_.superblock.head.set_uuid);
    const Remaptab tab = Remaptab::load(remaptab_);
    const Uuid& set = plan_.superblock.head.set_uuid;
    const RemaptabEntry* listed = tab.find(set);
    if (listed != nullptr && keeps(*listed)) {
        entry_ = *listed;
        return;
    }
    entry_ = future_entry();
    if (listed != nullptr && listed->name == name_) {
        throw Error(Exit::usage, cat(remaptab_, ": set ", set, " is listed with ",
                                     listed->has("main") ? "another main=" : "no main=",
                                     ", so that the raw data of ", options_.main,
                                     " would not be hidden: expected main=", hidden_as_));
    }
    if (listed != nullptr) {
        throw Error(Exit::usage, cat(remaptab_, ": set ", set, " is listed as ", listed->name,
                                     " already; give that as --label"));
    }
    const RemaptabEntry* other = tab.find(name_);
    const bool replaced = other != nullptr && spare_member_ && other->set == spare_member_->set;
    if (other != nullptr && !replaced) {
        throw Error(Exit::usage, cat(remaptab_, ": name ", name_, " already stands for set ",
                                     other->set, "; choose another --label"));
    }
}

std::string FormatJob::consequences() const {
    std::string text = cat(options_.spare, ": everything on it will be lost");
    if (spare_member_) {
        text += cat(", it is ", member_text(*spare_member_));
    }
    if (!spare_signatures_.empty()) {
        text += cat(", it holds ", describe(spare_signatures_));
    }
    text += ".";
    for (const std::string& objection : objections_) {
        text += "\n" + objection + ".";
    }
    if (options_.bare) {
        text += cat("\n", options_.main, ": is not changed (bare set).");
        if (!not_listed_.empty()) {
            return cat(text, "\n", not_listed_, ".");
        }
        return remaptab_.empty()
                   ? text
                   : cat(text,
                         " From then on it is hidden, and the set opened by itself, by the line\n",
                         line_of(entry_), "\nof ", remaptab_, ".");
    }
    const std::uint64_t kib =
        plan_.superblock.hidden_blocks() * plan_.superblock.block_size() / 1024;
    const std::string member = main_member_ ? cat("is ", member_text(*main_member_), "; ") : "";
    text +=
        cat("\n", options_.main, ": ", member, "holds ", request_.payload.description, "; ", kib,
            " KiB of it move to the spare. From then on it can only be used through the remap "
            "device, with the spare present.");
    // Without --uuid a dry run plans another set than the one that will be made.
    if (!remaptab_.empty() && (!options_.dry_run || !options_.uuid.empty())) {
        text += cat("\nThe set is opened by itself by the line\n", line_of(entry_), "\nof ",
                    remaptab_, ".");
    }
    return text;
}

/// Lists the set, in the place of that which the spare was in; true if it was not there already.
bool FormatJob::list_set() {
    bool added = false;
    update_remaptab(remaptab_, [&](Remaptab& tab) {
        const Uuid& set = plan_.superblock.head.set_uuid;
        const bool removed =
            spare_member_ && spare_member_->set != set && tab.remove(spare_member_->set);
        added = tab.find(set) == nullptr;
        if (added) {
            tab.add(entry_);
        }
        return added || removed;
    });
    return added;
}

/// Just before the write that decides: if the power fails after it, the next boot must know the
/// set, to finish what was begun. What is in the way is told afterwards.
bool FormatJob::list_early() {
    try {
        return !remaptab_.empty() && list_set();
    } catch (const Error&) {
        return false;
    }
}

/// After a failure. The set stays in the list if it has come into being, or if that cannot be seen.
void FormatJob::unlist() {
    try {
        const Superblock superblock = load_superblock(*spare_);
        if (superblock.head.set_uuid == plan_.superblock.head.set_uuid) {
            return;
        }
    } catch (const Error& error) {
        if (error.code() != Exit::unrecognised) {
            return;
        }
    }
    try {
        update_remaptab(remaptab_,
                        [&](Remaptab& tab) { return tab.remove(plan_.superblock.head.set_uuid); });
    } catch (const Error&) {
        // The failure itself matters more.
    }
}

void FormatJob::add_to_remaptab(FormatResult& result) {
    if (remaptab_.empty()) {
        return;
    }
    try {
        list_set();
        const Remaptab tab = Remaptab::load(remaptab_);
        const RemaptabEntry* listed = tab.find(plan_.superblock.head.set_uuid);
        if (listed != nullptr && keeps(*listed)) {
            result.name = name_;
        } else {
            result.warnings.push_back(cat("the set is complete, but its line in ", remaptab_,
                                          " was changed meanwhile: expected ", line_of(entry_)));
        }
    } catch (const Error& error) {
        result.warnings.push_back(cat("the set is complete, but not listed: ", error.what()));
    }
}

void FormatJob::look_again(FormatResult& result) {
    for (const std::string& path : {options_.main, options_.spare}) {
        if (options_.bare && path == options_.main) {
            continue;
        }
        const auto seen = visible_signatures(path);
        if (!seen.empty()) {
            result.warnings.push_back(cat(path, ": still shows ", describe(seen)));
        }
    }
    const Superblock& superblock = result.adopted.superblock;
    if (!result.adopted.exposed.empty()) {
        result.warnings.push_back(
            cat(options_.main, ": ", result.adopted.exposed.size(),
                " hidden blocks could not be overwritten, the first at sector ",
                *result.adopted.exposed.begin() * superblock.block_sectors()));
    }
    if (!result.adopted.lost.empty()) {
        result.warnings.push_back(
            cat(options_.main, ": ", result.adopted.lost.size(),
                " hidden blocks cannot be read and are lost, the first at sector ",
                *result.adopted.lost.begin() * superblock.block_sectors()));
    }
    if (result.adopted.bad_slots > 0) {
        result.warnings.push_back(cat(options_.spare, ": ", result.adopted.bad_slots,
                                      " slots failed already: this spare is not healthy"));
    }
}

FormatResult FormatJob::run(Observer& observer) {
    for (const std::string& objection : objections_) {
        observer.warning(objection);
    }
    make_rescue_folder();
    const auto rescue = [&](const Superblock& superblock, const HiddenContent& content) {
        if (!rescue_file_.empty()) {
            write_rescue_file(rescue_file_, superblock, content);
        }
    };
    FormatResult result;
    // The rescue file stays also when this fails: the first thing it does is to write to blocks of
    // a disk that fails, and if the spare dies the file may be the only copy.
    bool listed_early = false;
    try {
        result.adopted =
            adopt(*main_, *spare_, plan_, rescue, observer, [&] { listed_early = list_early(); });
    } catch (...) {
        if (listed_early) {
            unlist();
        }
        throw;
    }
    result.rescue_file = rescue_file_;
    look_again(result);
    if (!not_listed_.empty()) {
        result.warnings.push_back(not_listed_);
    }
    add_to_remaptab(result);
    return result;
}

}  // namespace remap
