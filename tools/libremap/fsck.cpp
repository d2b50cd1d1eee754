// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/fsck.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <ostream>
#include <set>
#include <sstream>

#include "libremap/copy_spare.hpp"
#include "libremap/error.hpp"
#include "libremap/findings.hpp"
#include "libremap/overlay_io.hpp"
#include "libremap/rehearsal.hpp"
#include "libremap/report.hpp"
#include "libremap/text.hpp"
#include "libremap/undo.hpp"
#include "libremap/undo_place.hpp"

namespace remap {
namespace {

struct Devices {
    std::unique_ptr<BlockIo> spare;
    std::unique_ptr<BlockIo> main;
};

bool wants_main(const CheckResult& result, const Wanted& wanted) {
    return std::any_of(result.plan.begin(), result.plan.end(), [&](const PlannedWrite& step) {
        return step.on_main() && wanted(result.findings[step.finding]);
    });
}

bool wants_any(const CheckResult& result, const Wanted& wanted) {
    return std::any_of(result.plan.begin(), result.plan.end(), [&](const PlannedWrite& step) {
        return wanted(result.findings[step.finding]);
    });
}

/// Says which finding this is, also when the check is made again.
std::string key(const Finding& finding) {
    return cat(finding.problem->id, "/", finding.device, "/", finding.index.value_or(~0ULL), "/",
               finding.copy.value_or(~0ULL));
}

class Run {
  public:
    Run(const FsckOptions& options, FsckFrontend& frontend)
        : options_(options), frontend_(frontend) {}

    int go();

  private:
    Devices open(Mode spare_mode, Mode main_mode) const;
    bool cancelled() const;
    void progress(unsigned int pass, std::uint64_t done, std::uint64_t total) const;
    CheckResult check(BlockIo& spare, BlockIo* main) const;
    void apply(CheckResult& result, const Wanted& wanted,
               const std::function<void(const Wanted&)>& apply) const;
    int check_and_repair();
    int check_and_copy();
    int report_all(const CheckResult& result, int bits) const;
    Wanted wanted_of_mode(const CheckResult& result);
    void repair(CheckResult& result, const Wanted& wanted);
    UndoWish undo_wish() const;
    void report(const CheckResult& result) const;
    void report_text(const CheckResult& result) const;
    void summary(const CheckResult& result) const;
    void report_json(const CheckResult& result, int exit_code) const;

    const FsckOptions& options_;
    FsckFrontend& frontend_;
    std::string undo_path_;  ///< of the undo file that was written
    bool copied_ = false;    ///< the new image is there
};

Devices Run::open(Mode spare_mode, Mode main_mode) const {
    Devices devices;

    devices.spare = open_block_io(options_.spare, spare_mode);
    if (options_.main)
        devices.main = open_block_io(*options_.main, main_mode);
    return devices;
}

bool Run::cancelled() const {
    return frontend_.cancelled && frontend_.cancelled();
}

void Run::progress(unsigned int pass, std::uint64_t done, std::uint64_t total) const {
    static constexpr std::array<const char*, 4> names = {"", "checking", "repairing", "copying"};

    if (frontend_.progress)
        frontend_.progress(names.at(pass), done, total);
    if (options_.progress_fd <= 0)
        return;
    const std::string line = cat(pass, " ", done, " ", total, " ", options_.spare, "\n");
    pollfd to{options_.progress_fd, POLLOUT, 0};

    // Whoever has stopped to read must not keep us from ending.
    while (!cancelled() && poll(&to, 1, 100) == 0) {
    }
    if (cancelled())
        return;
    // Whoever gave the descriptor may have gone; that is no reason to stop.
    static_cast<void>(!write(options_.progress_fd, line.data(), line.size()));
}

CheckResult Run::check(BlockIo& spare, BlockIo* main) const {
    std::uint64_t all = 1;
    CheckResult result = check_set(spare, main, [&](std::uint64_t done, std::uint64_t total) {
        all = total;
        progress(1, done, total);
        if (cancelled())
            throw Cancelled();
    });

    progress(1, all, all);
    return result;
}

/// Carries out `apply` with those steps that are `wanted`, until the run shall end. What is left
/// undone of a finding leaves it unrepaired.
void Run::apply(CheckResult& result, const Wanted& wanted,
                const std::function<void(const Wanted&)>& apply) const {
    const auto steps = static_cast<std::uint64_t>(std::count_if(
        result.plan.begin(), result.plan.end(),
        [&](const PlannedWrite& step) { return wanted(result.findings[step.finding]); }));
    std::set<std::string> left;
    std::uint64_t done = 0;

    apply([&](const Finding& finding) {
        if (!wanted(finding))
            return false;
        progress(2, done++, steps);
        if (cancelled())
            left.insert(key(finding));
        return !cancelled();
    });
    progress(2, steps, steps);
    for (Finding& finding : result.findings) {
        if (left.count(key(finding)) == 0)
            continue;
        finding.repaired = false;
        finding.repair_error = "interrupted";
    }
}

/// Which findings shall be repaired; asks where the mode says so.
Wanted Run::wanted_of_mode(const CheckResult& result) {
    const auto answers = std::make_shared<std::set<std::string>>();

    if (options_.confirm_loss)
        return [](const Finding& f) { return f.problem->repair == Repair::on_request; };
    switch (options_.mode) {
        case FsckMode::check:
            return [](const Finding&) { return false; };
        case FsckMode::preen:
            return [](const Finding& f) { return f.problem->repair == Repair::preen; };
        case FsckMode::yes:
            return [](const Finding& f) { return f.problem->repair != Repair::on_request; };
        case FsckMode::interactive:
            break;
    }
    for (const Finding& finding : result.findings) {
        if (cancelled())
            break;
        if (finding.repairable && finding.problem->repair != Repair::on_request &&
            frontend_.ask(cat(printable(describe(finding)), "\n  ", finding.problem->fix, "?")))
            answers->insert(key(finding));
    }
    return [answers](const Finding& f) { return answers->count(key(f)) > 0; };
}

UndoWish Run::undo_wish() const {
    UndoWish wish{options_.undo_file, {options_.spare}};

    if (options_.main)
        wish.devices.push_back(*options_.main);
    return wish;
}

void Run::repair(CheckResult& result, const Wanted& wanted) {
    if (!wants_any(result, wanted))
        return;
    const Mode main_mode = wants_main(result, wanted) ? Mode::read_write : Mode::read_only;
    const Devices devices = open(Mode::read_write, main_mode);
    BlockIo* main = main_mode == Mode::read_write ? devices.main.get() : nullptr;
    result = check(*devices.spare, devices.main.get());
    if (cancelled() || !wants_any(result, wanted) || !result.superblock)
        return;
    const Rehearsal rehearsal = rehearse(result, *devices.spare, main, wanted);
    const UndoHeader header = undo_header(*result.superblock, rehearsal);
    const auto sink = rehearsal.journal.empty()
                          ? nullptr
                          : keep_undo(undo_wish(), header, rehearsal.journal, *devices.spare,
                                      devices.main.get(), [this](const std::string& why) {
                                          frontend_.err
                                              << options_.spare
                                              << ": no undo file is written: " << printable(why)
                                              << "\n";
                                      });
    if (sink)
        undo_path_ = sink->path();
    unsigned int refused = 0;
    apply(result, wanted, [&](const Wanted& now) {
        if (sink)
            refused =
                apply_rehearsed(result, rehearsal, *devices.spare, main, now, *sink, header.id);
        else
            apply_plan(result, *devices.spare, main, now);
    });
    if (refused > 0)
        throw Error(Exit::operational,
                    cat(options_.spare, ": ", refused,
                        " writes were not made: they were not in the undo file ", undo_path_));
}

void Run::report_text(const CheckResult& result) const {
    for (const Finding& finding : result.findings) {
        frontend_.out << printable(describe(finding)) << "\n";
        if (finding.repaired)
            frontend_.out << "  repaired: " << finding.problem->fix << "\n";
        else if (!finding.repair_error.empty())
            frontend_.out << "  not repaired: " << printable(finding.repair_error) << "\n";
    }
    summary(result);
}

void Run::summary(const CheckResult& result) const {
    const auto count = [&result](auto predicate) {
        return std::count_if(result.findings.begin(), result.findings.end(), predicate);
    };
    const auto problems =
        count([](const Finding& f) { return f.problem->severity != Severity::note; });
    const auto repaired = count([](const Finding& f) { return f.repaired; });

    frontend_.out << options_.spare << ": ";
    if (result.superblock)
        frontend_.out << "set " << result.superblock->head.set_uuid << ", " << result.slots_used
                      << "/" << result.slots_total << " slots used, ";
    if (!result.refused.empty())
        frontend_.out << "nothing was or will be written: " << result.refused << "\n";
    else if (problems == 0)
        frontend_.out << "clean\n";
    else
        frontend_.out << problems << (problems == 1 ? " problem" : " problems") << ", " << repaired
                      << " repaired\n";
    if (copied_)
        frontend_.out << *options_.out << ": the repaired copy; " << options_.spare
                      << " is as it was\n";
    if (!undo_path_.empty())
        frontend_.out << options_.spare << ": to take it back: remap-fsck --undo "
                      << printable(undo_path_) << " "
                      << (options_.main ? cat("--main ", *options_.main, " ") : "")
                      << options_.spare << "\n";
}

void Run::report_json(const CheckResult& result, int exit_code) const {
    JsonEmitter json(frontend_.out);
    emit_report(json, options_.spare, result, undo_path_, exit_code);
}

int Run::report_all(const CheckResult& result, int bits) const {
    if (cancelled()) {
        bits |= fsck::cancelled;
        frontend_.err << options_.spare << ": interrupted"
                      << (result.cancelled ? " while it was checked: there may be more to find"
                                           : "")
                      << "\n";
    }
    if (options_.json)
        report_json(result, bits);
    else if (options_.mode != FsckMode::preen || bits != fsck::ok || result.damaged())
        report_text(result);
    else
        summary(result);
    return bits;
}

int Run::check_and_repair() {
    CheckResult result;

    {
        const Devices devices = open(Mode::read_only, Mode::read_only);
        if (in_use(*devices.spare))
            frontend_.err << options_.spare << ": in use: what is read may change meanwhile\n";
        result = check(*devices.spare, devices.main.get());
    }
    int bits = fsck::ok;
    bool busy = false;
    try {
        if (result.refused.empty() && !cancelled())
            repair(result, wanted_of_mode(result));
    } catch (const BusyError& error) {
        frontend_.err << printable(error.what()) << "\n";
        bits = fsck::operational;
        busy = true;
    } catch (const Error& error) {
        frontend_.err << printable(error.what()) << "\n";
        bits = fsck::operational;
    }
    // Busy is 8 and nothing else: systemd-fsck lets a boot go on then.
    if (!busy)
        bits |= result.exit_bits(options_.mode == FsckMode::preen);
    return report_all(result, bits);
}

/// The repair is made in memory, and what it leads to goes to a new image.
int Run::check_and_copy() {
    const Devices devices = open(Mode::read_exclusive, Mode::read_only);
    OverlayIo repaired(*devices.spare, nullptr, 0);
    CheckResult result = check(repaired, devices.main.get());
    int bits = fsck::ok;

    if (devices.main)
        frontend_.err << options_.main.value() << ": with -o the main is not written to\n";
    if (!result.superblock || !result.refused.empty()) {
        frontend_.err << options_.spare << ": nothing is copied to " << *options_.out << "\n";
        return report_all(result, result.exit_bits());
    }
    const Wanted wanted = wanted_of_mode(result);
    if (!cancelled())
        apply(result, wanted,
              [&](const Wanted& now) { apply_plan(result, repaired, nullptr, now); });
    try {
        if (!cancelled()) {
            std::uint64_t all = 1;
            copy_spare(repaired, result, *options_.out, [&](auto done, auto total) {
                all = total;
                progress(3, done, total);
                if (cancelled())
                    throw Cancelled();
            });
            progress(3, all, all);
            copied_ = true;
        }
    } catch (const Cancelled&) {
        bits = fsck::cancelled;
    } catch (const Error& error) {
        frontend_.err << printable(error.what()) << "\n";
        bits = fsck::operational;
    }
    if (!copied_) {
        // What was repaired in memory only is not there.
        for (Finding& finding : result.findings)
            finding.repaired = false;
        frontend_.err << *options_.out << ": not made\n";
    }
    return report_all(result, bits | result.exit_bits(options_.mode == FsckMode::preen));
}

int Run::go() {
    return options_.out ? check_and_copy() : check_and_repair();
}

}  // namespace

int run_fsck(const FsckOptions& options, FsckFrontend& frontend) {
    try {
        return Run(options, frontend).go();
    } catch (const Error& error) {
        frontend.err << printable(error.what()) << "\n";
        return error.code() == Exit::usage ? fsck::usage : fsck::operational;
    } catch (const std::exception& error) {
        // Above all std::bad_alloc: what is on the disk must not end a program that has more to do.
        frontend.err << options.spare << ": cannot be checked: " << error.what() << "\n";
        return fsck::operational;
    }
}

namespace {

int undo(const UndoOptions& options, FsckFrontend& frontend) {
    const UndoLog log = read_undo(options.file);
    const auto mode = [&](unsigned int member) {
        return log.writes(member) && !options.only_check ? Mode::read_write : Mode::read_only;
    };
    const auto spare = open_block_io(options.spare, mode(0));
    const bool has_main = log.header.members.size() > 1;
    const auto main = options.main && has_main ? open_block_io(*options.main, mode(1)) : nullptr;

    if (options.main && !has_main)
        frontend.out << *options.main << ": the repair did not write to the main\n";
    if (options.only_check) {
        verify_undo(log, *spare, main.get());
        frontend.out << options.spare << ": " << log.sectors() << " sectors can be given back\n";
        return fsck::ok;
    }
    const UndoResult result = undo_repair(log, *spare, main.get());
    for (const std::string& error : result.errors)
        frontend.err << printable(error) << "\n";
    frontend.out << options.spare << ": set " << log.header.set_uuid << ", "
                 << log.sectors() - result.restored - result.same << " of " << log.sectors()
                 << " sectors are not as they were before the repair; " << result.restored
                 << " written, " << result.same << " had not been changed or were back already\n";
    if (log.unreadable_sectors() > 0)
        frontend.out << options.spare << ": " << log.unreadable_sectors()
                     << " sectors could not be read before the repair and stay as they are\n";
    return result.errors.empty() ? fsck::ok : fsck::operational;
}

}  // namespace

int run_undo(const UndoOptions& options, FsckFrontend& frontend) {
    try {
        return undo(options, frontend);
    } catch (const Error& error) {
        frontend.err << printable(error.what()) << "\n";
        return error.code() == Exit::usage ? fsck::usage : fsck::operational;
    } catch (const std::exception& error) {
        frontend.err << options.spare << ": cannot be undone: " << error.what() << "\n";
        return fsck::operational;
    }
}

int preen(const std::string& spare, const std::optional<std::string>& main,
          const std::function<void(const std::string&)>& message) {
    FsckOptions options;
    std::ostringstream out;
    std::ostringstream err;
    FsckFrontend frontend{out, err, {}, {}};

    options.spare = spare;
    options.main = main;
    options.mode = FsckMode::preen;
    const int bits = run_fsck(options, frontend);
    const auto pass_on = [&message](const std::ostringstream& from) {
        std::istringstream lines(from.str());
        for (std::string line; std::getline(lines, line);)
            message(line);
    };
    // One line says that all is well, which a boot need not hear.
    const std::string said = out.str();
    if (bits != fsck::ok || std::count(said.begin(), said.end(), '\n') > 1)
        pass_on(out);
    pass_on(err);
    return bits;
}

int inspect(const std::string& spare, const std::optional<std::string>& main,
            const std::function<void(const std::string&)>& message) {
    try {
        const auto spare_io = open_block_io(spare, Mode::read_only);
        const auto main_io = main ? open_block_io(*main, Mode::read_only) : nullptr;
        const CheckResult result = check_set(*spare_io, main_io.get());
        int bits = result.unknown ? fsck::operational : fsck::ok;

        for (const Finding& finding : result.findings) {
            if (finding.problem->severity == Severity::note)
                continue;
            message(printable(describe(finding)));
            if (finding.problem->severity == Severity::error && !result.unknown)
                bits = fsck::uncorrected;
        }
        return bits;
    } catch (const std::exception& error) {
        message(cat(spare, ": cannot be checked: ", error.what()));
        return fsck::operational;
    }
}

}  // namespace remap
