// SPDX-License-Identifier: GPL-2.0-or-later
#include "stage.hpp"

namespace model {

Stage::Stage(const StageOptions& options, Counters& counters)
    : counters_(counters),
      random_(7),
      layout_(plan_set(options.set, random_)),
      main_(layout_.main_sectors),
      spare_(layout_.options.spare_sectors),
      traits_(options.traits),
      verbose_(options.verbose),
      start_(layout_.window, layout_.lost),
      oracle_(start_) {
    format_set(layout_, random_, main_, spare_);
    world_ =
        std::make_unique<World>(layout_, traits_, std::array{&main_, &spare_}, random_, counters_);
    world_->faults = &faults;
    world_->log = &log_;
    world_->oracle = &oracle_;
}

std::string Stage::try_open() {
    return world_->open();
}

void Stage::open() {
    const std::string reason = try_open();
    if (reason.empty())
        return;
    std::string text = reason;
    for (const std::string& message : world_->messages)
        text += "\n    " + message;
    throw Violation("3", "without a power cut the set does not load: " + text);
}

void Stage::close() {
    world_->close();
}

void Stage::reload() {
    close();
    open();
}

bool Stage::write(std::uint64_t block, std::uint32_t count, bool fua) {
    const std::uint64_t failed = counted("writes failed");

    world_->user_write(block, count, fua, false);
    world_->drain();
    return counted("writes failed") == failed;
}

bool Stage::flush() {
    const std::uint64_t failed = counted("flushes failed");

    world_->user_flush();
    world_->drain();
    return counted("flushes failed") == failed;
}

int Stage::message(const std::string& words) {
    return world_->message(words);
}

int Stage::remap(std::uint64_t block, std::uint32_t count) {
    return world_->user_remap(block, count);
}

int Stage::forget(std::uint64_t block, std::uint32_t count) {
    return world_->user_forget(block, count);
}

void Stage::expect(bool is, const std::string& what) const {
    if (is)
        return;
    std::string text = "does not come to its point: " + what;
    for (const std::string& message : world_->messages)
        text += "\n    " + message;
    throw Violation("script", text);
}

void Stage::must(bool is, const std::string& invariant, const std::string& what) {
    if (!is)
        throw Violation(invariant, what);
}

void Stage::must_refuse_kept_spare() {
    World world(layout_, traits_, {&main_, kept_.get()}, random_, counters_);

    must(!world.open().empty(), "8", "an old copy of the spare is accepted");
}

std::uint64_t Stage::status(StatusField field) {
    return world_->status_number(field);
}

std::size_t Stage::slots_of(std::uint64_t block) const {
    const auto live = live_entries(layout_, spare_);
    if (!live)
        return 0;
    const auto at = live->find(block);
    return at == live->end() ? 0 : at->second.size();
}

std::uint64_t Stage::counted(const std::string& what) const {
    const auto at = counters_.find(what);
    return at == counters_.end() ? 0 : at->second;
}

std::uint64_t Stage::check(const CrashPlan& plan) {
    world_.reset();
    if (!model_clean())
        throw Violation("6", "memory or work is left over");
    main_.undo_to(0);
    spare_.undo_to(0);
    Scene scene{layout_, traits_, {&main_, &spare_}, &after_cut_, {}, random_, counters_, verbose_};
    return check_crash_states(scene, log_, start_, 0, plan);
}

}  // namespace model
