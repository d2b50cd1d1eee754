// SPDX-License-Identifier: GPL-2.0-or-later
#include "world.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>

namespace model {

World* World::current = nullptr;

namespace {

struct PageFree {
    void operator()(void* p) const { std::free(p); }
};
using Pages = std::unique_ptr<std::uint8_t, PageFree>;

Pages make_pages(std::size_t bytes) {
    const std::size_t whole = (bytes + 4095) / 4096 * 4096;
    return Pages(
        static_cast<std::uint8_t*>(std::aligned_alloc(4096, std::max<std::size_t>(whole, 4096))));
}

/// Steps in which nothing could be done.
constexpr unsigned int max_idle = 100000;

/// What is counted of what the kernel's code says.
struct Report {
    const char* text;
    const char* counter;
};
constexpr std::array reports{
    Report{"are dead,", "table copy dead"},
    Report{"cache lost under a commit", "cache lost under a commit"},
    Report{"cannot begin to write", "activation fails"},
    Report{"commit of ", "commit of remaps fails"},
    Report{"does not answer", "main gives no answer"},
    Report{"is damaged", "table copy damaged at a load"},
    Report{"is unreadable", "table copy unreadable at a load"},
    Report{"label is frozen", "label frozen"},
    Report{"no table copy could be written", "no table copy written"},
    Report{"none is the newest", "undecidable entries"},
    Report{"copies written,", "no quorum of superblocks"},
};

constexpr std::array may_be_bad_sector{MODEL_IOERR, MODEL_IOERR, MODEL_MEDIUM, MODEL_TARGET,
                                       MODEL_TIMEOUT};

}  // namespace

struct World::Request {
    model_request request{};
    World* world = nullptr;
    UserWrite write{};
    std::uint64_t block = 0;
    std::uint32_t count = 0;
    std::uint64_t began = 0;        ///< the oracle's time
    std::uint64_t read_faults = 0;  ///< when it began
    std::uint32_t event = 0;        ///< its number in the log
    bool* finished = nullptr;       ///< somebody waits and looks at the data himself
    model_status* status = nullptr;
    Pages pages;
};

World::World(const SetLayout& layout, const std::array<DiskTraits, 2>& traits,
             const std::array<Image*, 2>& images, Random& random, Counters& counters)
    : layout_(layout), random_(random), counters_(counters), outer_(current) {
    for (const DiskId id : {main_disk, spare_disk}) {
        disks_[id].image = images[id];
        disks_[id].model = {id == main_disk ? "main" : "spare",
                            images[id]->sectors(),
                            512,
                            traits[id].physical_block_size,
                            traits[id].write_cache,
                            traits[id].fua,
                            nullptr};
    }
    disks_[main_disk].model.logical_block_size = layout.block_sectors() * 512;
    current = this;
}

World::~World() {
    current = outer_;
}

// ---- Disks ----

void World::add_event(Event event) {
    if (log != nullptr)
        log->events.push_back(std::move(event));
}

void World::submit(model_io* io) {
    const DiskId id = disk_id(io->disk);
    InFlight request{io, decide(id, *io), 0, ++clock_};

    if (io->op == MODEL_WRITE) {
        writes_seen++;
        if (forbid_writes[id])
            throw Violation("9", std::string("loading writes to the ") + io->disk->name);
        if (log != nullptr) {
            const auto* data = static_cast<const std::uint8_t*>(io->data);
            request.id = static_cast<std::uint32_t>(log->writes.size());
            log->writes.push_back({id, !io->disk->write_cache || io->fua, io->sector,
                                   std::vector<std::uint8_t>(data, data + io->bytes)});
            add_event({Event::write, true, id, request.id, {}, {}});
        }
    } else if (io->op == MODEL_FLUSH && log != nullptr) {
        request.id = log->flushes++;
        add_event({Event::flush, true, id, request.id, {}, {}});
    }
    in_flight_.push_back(request);
}

/// A tear of the only copy of the table that never failed may leave none that is valid.
bool World::may_tear(std::uint64_t sector) const {
    const std::optional<unsigned int> copy = layout_.table_copy(sector);
    const unsigned int all = (1U << layout_.options.nr_copies) - 1;

    return !copy || (all & ~failed_copies & ~(1U << *copy)) != 0;
}

Outcome World::fail_write(DiskId id, const model_io& io, bool bad_sector) {
    const std::uint32_t sectors = io.bytes / 512;
    Outcome outcome;

    outcome.status = may_be_bad_sector[random_.below(may_be_bad_sector.size())];
    if (!bad_sector && random_.percent(5))
        outcome.status = MODEL_TRANSPORT;
    switch (random_.below(3)) {
        case 0:
            outcome.reached.kind = Extent::none;
            counters_["write fails"]++;
            break;
        case 1:
            outcome.reached.kind = Extent::all;
            counters_["write fails yet reaches the medium"]++;
            break;
        default:
            outcome.reached = Extent::torn(random_, sectors);
            counters_["write fails torn"]++;
            break;
    }
    if (id == spare_disk && outcome.reached.partial() && !may_tear(io.sector))
        outcome.reached.kind = Extent::none;
    return outcome;
}

Outcome World::decide(DiskId id, const model_io& io) {
    if (faults == nullptr)
        return {};
    if (faults->gone[id]) {
        counters_[std::string(io.disk->name) + " gone"]++;
        return {MODEL_IOERR, {Extent::none, 0, 0}, false};
    }
    if (faults->script) {
        if (std::optional<Outcome> outcome = faults->script(id, io)) {
            if (id == spare_disk && outcome->reached.partial() && !may_tear(io.sector))
                outcome->reached.kind = Extent::none;
            return *outcome;
        }
    }
    const auto touches = [&io](const std::set<std::uint64_t>& sectors) {
        const auto at = sectors.lower_bound(io.sector);
        return at != sectors.end() && *at < io.sector + io.bytes / 512;
    };
    switch (io.op) {
        case MODEL_WRITE:
            if (touches(faults->bad_write[id]))
                return fail_write(id, io, true);
            if (random_.permille(faults->write_permille[id]))
                return fail_write(id, io, false);
            break;
        case MODEL_READ:
            if (touches(faults->bad_read[id]))
                return {MODEL_MEDIUM, {Extent::none, 0, 0}, false};
            break;
        case MODEL_FLUSH:
            if (random_.permille(faults->flush_permille[id])) {
                counters_[std::string("flush of ") + io.disk->name + " fails"]++;
                return {MODEL_IOERR,
                        {Extent::none, 0, 0},
                        random_.percent(60) && faults->lossy_flushes};
            }
            break;
        case MODEL_DISCARD:
            break;
    }
    return {};
}

void World::write_through(Disk& disk, std::uint64_t sector, const std::uint8_t* data) {
    disk.image->write(sector, data);
    disk.medium.erase(sector);
}

void World::finish_write(const InFlight& request, DiskId id) {
    const model_io& io = *request.io;
    Disk& disk = disks_[id];
    const bool durable = !disk.model.write_cache || io.fua;
    const std::uint32_t sectors = io.bytes / 512;
    const auto* data = static_cast<const std::uint8_t*>(io.data);

    for (std::uint32_t i = 0; i < sectors; i++) {
        const std::uint64_t sector = io.sector + i;
        if (durable && request.outcome.reached.spoilt(i, sectors))
            write_through(disk, sector, garbage());
        if (!request.outcome.reached.has(i, sectors))
            continue;
        if (durable) {
            write_through(disk, sector, data + i * sector_size);
            continue;
        }
        if (disk.medium.count(sector) == 0) {
            Medium& medium = disk.medium[sector];
            medium.since = clock_;
            std::memcpy(medium.data.data(), disk.image->at(sector), sector_size);
        }
        disk.image->write(sector, data + i * sector_size);
    }
    if (!durable)
        disk.cache.push_back({request.id, request.outcome.reached, clock_, io.sector,
                              std::vector<std::uint8_t>(data, data + io.bytes)});
    if (request.outcome.status != MODEL_OK && id == spare_disk) {
        if (const auto copy = layout_.table_copy(io.sector)) {
            failed_copies |= 1U << *copy;
            counters_["table copy fails"]++;
        } else if (layout_.superblock_copy(io.sector)) {
            counters_["superblock write fails"]++;
        } else {
            counters_["slot fails"]++;
        }
    }
    add_event({Event::write_done,
               request.outcome.status == MODEL_OK,
               id,
               request.id,
               request.outcome.reached,
               {}});
}

/// Some of the cache reaches the medium, the rest is as if it had never been written.
void World::lose_cache(Disk& disk, DiskId id) {
    Event event{Event::cache_lost, true, id, 0, {}, {}};

    for (const auto& [sector, content] : disk.medium)
        disk.image->write(sector, content.data.data());
    for (const Volatile& v : disk.cache) {
        if (random_.percent(50))
            continue;
        const auto sectors = static_cast<std::uint32_t>(v.data.size() / sector_size);
        for (std::uint32_t i = 0; i < sectors; i++) {
            const auto old = disk.medium.find(v.sector + i);
            if (v.extent.has(i, sectors) && old != disk.medium.end() && old->second.since <= v.end)
                disk.image->write(v.sector + i, v.data.data() + i * sector_size);
        }
        event.kept.push_back(v.id);
    }
    disk.cache.clear();
    disk.medium.clear();
    // Every flush that is under way hears of it.
    for (InFlight& other : in_flight_) {
        if (other.io->op == MODEL_FLUSH && other.io->disk == &disk.model)
            other.outcome = {MODEL_IOERR, {Extent::none, 0, 0}, false};
    }
    counters_["cache lost"]++;
    add_event(std::move(event));
    if (oracle != nullptr)
        oracle->cache_lost(disk.model.fua);
}

void World::finish_flush(const InFlight& request, DiskId id) {
    Disk& disk = disks_[id];
    const bool ok = request.outcome.status == MODEL_OK;

    if (!ok && id == spare_disk) {
        // The write in front of the flush counts as failed.
        for (const Volatile& v : disk.cache) {
            if (const auto copy = layout_.table_copy(v.sector))
                failed_copies |= 1U << *copy;
        }
    }
    if (ok) {
        std::vector<Volatile> rest;
        std::unordered_map<std::uint64_t, Medium> medium;
        for (Volatile& v : disk.cache) {
            const auto sectors = static_cast<std::uint32_t>(v.data.size() / sector_size);
            const bool durable = v.end <= request.begin;
            for (std::uint32_t i = 0; i < sectors; i++) {
                const auto old = disk.medium.find(v.sector + i);
                if (!v.extent.has(i, sectors) || old == disk.medium.end() ||
                    old->second.since > v.end)
                    continue;
                if (durable)
                    std::memcpy(old->second.data.data(), v.data.data() + i * sector_size,
                                sector_size);
                else
                    medium[v.sector + i] = old->second;
            }
            if (!durable)
                rest.push_back(std::move(v));
        }
        disk.cache = std::move(rest);
        disk.medium = std::move(medium);
    }
    add_event({Event::flush_done, ok, id, request.id, {}, {}});
    if (!ok && request.outcome.cache_lost)
        lose_cache(disk, id);
}

void World::finish(const InFlight& request) {
    const DiskId id = disk_id(request.io->disk);

    clock_++;
    request.io->status = request.outcome.status;
    switch (request.io->op) {
        case MODEL_WRITE:
            finish_write(request, id);
            break;
        case MODEL_FLUSH:
            finish_flush(request, id);
            break;
        case MODEL_READ:
            if (request.outcome.status == MODEL_OK)
                std::memcpy(request.io->data, disks_[id].image->at(request.io->sector),
                            request.io->bytes);
            else
                read_faults_++;
            break;
        case MODEL_DISCARD:
            break;
    }
    request.io->done(request.io);
}

void World::step() {
    jiffies = jiffies + 1;
    if (each_step)
        each_step();
    if (!ordered && meanwhile && random_.percent(15))
        meanwhile();

    const bool work = model_work_pending();
    const auto first = std::find_if(in_flight_.begin(), in_flight_.end(),
                                    [this](const auto& r) { return !late || !late(*r.io); });
    if (first != in_flight_.end() && (!work || (!ordered && random_.percent(60)))) {
        auto it = first;
        if (!ordered && !late)
            std::advance(it, static_cast<std::ptrdiff_t>(random_.below(in_flight_.size())));
        const InFlight request = *it;
        in_flight_.erase(it);
        finish(request);
    } else if (work) {
        model_run_work();
    } else if (++idle_ == max_idle) {
        throw Violation("6", "kernel code waits for something that never happens");
    }
    if (!in_flight_.empty() || work)
        idle_ = 0;
}

void World::kernel_says(const char* line) {
    for (const Report& report : reports) {
        if (std::strstr(line, report.text) != nullptr)
            counters_[report.counter]++;
    }
    messages.emplace_back(line);
}

bool World::allocation_fails() {
    if (!out_of_memory) {
        if (allocations_left == 0 || --allocations_left > 0)
            return false;
        out_of_memory = all_others_too;
    }
    counters_["allocations failed"]++;
    return true;
}

void World::drain() {
    const auto hook = std::move(meanwhile);
    meanwhile = nullptr;
    while (!in_flight_.empty() || model_work_pending())
        step();
    meanwhile = hook;
}

// ---- The device ----

std::string World::open() {
    model_table table{};
    const char* error = nullptr;
    const std::string count = std::to_string(features.size());

    table.argv[table.argc++] = "main";
    table.argv[table.argc++] = "spare";
    if (!features.empty())
        table.argv[table.argc++] = count.c_str();
    for (const std::string& feature : features)
        table.argv[table.argc++] = feature.c_str();
    table.length = layout_.main_sectors;
    table.read_only = read_only;
    table.main = &disks_[main_disk].model;
    table.spare = &disks_[spare_disk].model;

    doubtful_.clear();
    target = model_create(&table, &error);
    if (target == nullptr)
        return std::string("constructor: ") + error;
    const std::string reason = resume();
    if (!reason.empty()) {
        model_destroy(target);
        target = nullptr;
    }
    return reason;
}

std::string World::resume() {
    const int error = model_resume(target);

    return error == 0 ? "" : "preresume: error " + std::to_string(error);
}

void World::suspend(bool noflush) {
    model_suspend(target, noflush);
    if (model_in_flight(target) != 0 || !in_flight_.empty())
        throw Violation("6", "I/O goes on in a suspended device");
}

void World::close() {
    suspend(false);
    model_destroy(target);
    target = nullptr;
}

std::string World::status() {
    std::array<char, 1024> text{};

    model_get_status(target, false, text.data(), text.size());
    return text.data();
}

std::uint64_t World::status_number(unsigned int field) {
    std::istringstream words(status());
    std::string word;

    for (unsigned int i = 0; i < field; i++)
        words >> word;
    return std::strtoull(word.c_str(), nullptr, 10);
}

// ---- I/O from above ----

World::Request* World::make_request(model_op op, std::uint64_t block, std::uint32_t count) {
    auto* r = new Request;

    r->world = this;
    r->block = block;
    r->count = count;
    r->pages = make_pages(std::size_t{count} * layout_.block_sectors() * sector_size);
    r->request.op = op;
    r->request.sector = block * layout_.block_sectors();
    r->request.bytes = static_cast<std::uint32_t>(count * layout_.block_sectors() * sector_size);
    r->request.data = r->pages.get();
    r->request.private_data = r;
    r->request.done = [](model_request* request) {
        auto* self = static_cast<Request*>(request->private_data);
        self->world->done(self);
    };
    r->began = oracle != nullptr ? oracle->now() : 0;
    r->read_faults = read_faults_;
    outstanding_++;
    return r;
}

void World::user_write(std::uint64_t block, std::uint32_t count, bool fua, bool preflush) {
    Request* r = make_request(MODEL_WRITE, block, count);

    r->request.fua = fua;
    r->request.preflush = preflush;
    r->write = {block, count, next_version++, fua, preflush};
    for (std::uint32_t b = 0; b < count; b++) {
        for (std::uint32_t i = 0; i < layout_.block_sectors(); i++)
            fill_sector(r->pages.get() + (b * layout_.block_sectors() + i) * sector_size, block + b,
                        r->write.version, i);
    }
    r->event = log_user_write(r->write);
    oracle->write(r->write);
    model_send(target, &r->request);
}

std::uint32_t World::log_user_write(const UserWrite& write) {
    if (log == nullptr)
        return 0;
    const auto number = static_cast<std::uint32_t>(log->user_writes.size());
    add_event({Event::user_write, true, main_disk, number, {}, {}});
    log->user_writes.push_back(write);
    return number;
}

int World::message(const std::string& words, std::string* reply) {
    std::istringstream in(words);
    std::vector<std::string> list;
    std::vector<char*> argv;
    std::array<char, 4096> result{};

    for (std::string word; in >> word;)
        list.push_back(word);
    for (std::string& word : list)
        argv.push_back(word.data());
    const int ret = model_message(target, static_cast<unsigned int>(argv.size()), argv.data(),
                                  result.data(), result.size());
    if (reply != nullptr)
        *reply = result.data();
    return ret;
}

/// While its commit is in doubt, its blocks read as an error.
int World::move_blocks(const std::string& name, std::uint64_t block, std::uint32_t count) {
    for (std::uint64_t b = block; b < block + count; b++)
        doubtful_.insert(b);
    const int ret = message(name + " " + std::to_string(block) + " " + std::to_string(count));
    for (std::uint64_t b = block; ret == 0 && b < block + count; b++)
        doubtful_.erase(b);
    return ret;
}

int World::user_forget(std::uint64_t block, std::uint32_t count) {
    return move_blocks("forget", block, count);
}

int World::user_remap(std::uint64_t block, std::uint32_t count) {
    std::vector<std::pair<UserWrite, std::uint32_t>> lost;

    for (std::uint64_t b = block; faults != nullptr && b < block + count; b++) {
        const auto& bad = faults->bad_read[main_disk];
        const auto at = bad.lower_bound(b * layout_.block_sectors());
        if (at == bad.end() || *at >= (b + 1) * layout_.block_sectors())
            continue;
        const UserWrite write{b, 1, lost_version, false, false};
        lost.emplace_back(write, log_user_write(write));
        oracle->write(write);
    }
    const int ret = move_blocks("remap", block, count);
    for (const auto& [write, number] : lost) {
        add_event({Event::user_write_done, false, main_disk, number, {}, {}});
        oracle->write_done(write, false);
        counters_["may be lost by a message"]++;
    }
    return ret;
}

void World::user_read(std::uint64_t block, std::uint32_t count) {
    model_send(target, &make_request(MODEL_READ, block, count)->request);
}

void World::user_flush() {
    Request* r = make_request(MODEL_FLUSH, 0, 0);

    r->event = next_flush_++;
    add_event({Event::user_flush, true, main_disk, r->event, {}, {}});
    oracle->flush(r->event);
    model_send(target, &r->request);
}

bool World::read_now(std::uint64_t block, std::uint32_t count, void* data) {
    Request* r = make_request(MODEL_READ, block, count);
    model_status status = MODEL_OK;
    bool finished = false;

    r->finished = &finished;
    r->status = &status;
    r->request.data = data;
    model_send(target, &r->request);
    while (!finished)
        step();
    return status == MODEL_OK;
}

void World::done(Request* request) {
    const std::unique_ptr<Request> r(request);
    const bool ok = r->request.status == MODEL_OK;

    outstanding_--;
    if (r->finished != nullptr) {
        *r->finished = true;
        *r->status = r->request.status;
        return;
    }
    switch (r->request.op) {
        case MODEL_WRITE:
            counters_[ok ? "writes acknowledged" : "writes failed"]++;
            add_event({Event::user_write_done, ok, main_disk, r->event, {}, {}});
            oracle->write_done(r->write, ok);
            break;
        case MODEL_FLUSH:
            counters_[ok ? "flushes acknowledged" : "flushes failed"]++;
            add_event({Event::user_flush_done, ok, main_disk, r->event, {}, {}});
            oracle->flush_done(r->event, ok);
            break;
        case MODEL_READ: {
            std::string problem;
            bool any_may_fail = ok || read_faults_ != r->read_faults;
            for (std::uint32_t b = 0; b < r->count; b++) {
                const Seen seen{!ok, r->pages.get() + b * layout_.block_sectors() * sector_size};
                const std::string text = oracle->check_read(r->block + b, seen, r->began);
                if (ok && !text.empty())
                    throw Violation("2", "block " + std::to_string(r->block + b) + " " + text);
                any_may_fail = any_may_fail || text.empty() || doubtful_.count(r->block + b) != 0;
                problem = text;
            }
            if (!any_may_fail)
                throw Violation("2", "blocks " + std::to_string(r->block) + "+" +
                                         std::to_string(r->count) + ": " + problem);
            counters_["reads checked"]++;
            break;
        }
        case MODEL_DISCARD:
            break;
    }
}

}  // namespace model

// ---- model.h ----

void model_submit(model_io* io) {
    model::World::current->submit(io);
}

void model_step() {
    model::World::current->step();
}

void model_log(const char* line) {
    model::World::current->kernel_says(line);
}

bool model_allocation_fails() {
    return model::World::current->allocation_fails();
}

void model_bug(const char* file, int line, const char* what) {
    throw model::Violation("kernel", std::string(file) + ":" + std::to_string(line) + ": " + what);
}
