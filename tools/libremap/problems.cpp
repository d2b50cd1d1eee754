// SPDX-License-Identifier: GPL-2.0-or-later
//
// Every problem that a check can find. An id stays for ever: scripts and documents refer to it.
#include <stdexcept>

#include "libremap/check.hpp"
#include "libremap/text.hpp"

namespace remap {

const std::vector<Problem>& problem_table() {
    constexpr auto note = Severity::note;
    constexpr auto warning = Severity::warning;
    constexpr auto error = Severity::error;
    constexpr auto none = Repair::none;
    constexpr auto preen = Repair::preen;
    constexpr auto confirmed = Repair::confirmed;
    static const char* const rewrite = "write it again from the newest copy";
    static const std::vector<Problem> table = {
        // Superblock
        {"RMF-0101", warning, preen, "checksum is wrong", rewrite},
        {"RMF-0102", warning, preen, "cannot be read", rewrite},
        {"RMF-0103", warning, preen, "is older than the others", rewrite},
        {"RMF-0104", warning, preen, "was written for another place", rewrite},
        {"RMF-0105", warning, preen, "is not there", rewrite},
        {"RMF-0106", warning, preen, "holds an impossible value", rewrite},
        {"RMF-0107", warning, preen, "is of the other role", rewrite},
        {"RMF-0108", warning, confirmed,
         "belongs to another set, or to an earlier life of this one", rewrite},
        {"RMF-0109", warning, none, "lies beyond the end of the device", nullptr},
        {"RMF-0110", error, none, "copies differ but are equally new", nullptr},
        {"RMF-0111", error, none, "copies of two sets, and neither has a majority", nullptr},
        {"RMF-0112", error, none, "is of a format newer than this program", nullptr},
        {"RMF-0113", error, none, "no valid copy is left", nullptr},
        {"RMF-0114", note, none, "an update was interrupted; the next activation completes it",
         nullptr},
        {"RMF-0115", warning, none, "has features that allow reading only", nullptr},
        {"RMF-0116", error, none, "not found: this is no spare of dm-remap", nullptr},
        {"RMF-0117", error, preen,
         "no copy is valid, but sectors of several make up one whose checksum is right",
         "write it to all places"},
        {"RMF-0118", warning, preen, "is half of one write and half of another", rewrite},
        {"RMF-0119", error, confirmed,
         "no copy is valid; one was made anew from the main's labels and the table",
         "write it, read-only until --confirm-loss"},

        // Table blocks
        {"RMF-0201", warning, preen, "checksum is wrong", rewrite},
        {"RMF-0202", warning, preen, "cannot be read", rewrite},
        {"RMF-0203", warning, preen, "is older than another copy", rewrite},
        {"RMF-0204", warning, preen, "was written for another place", rewrite},
        {"RMF-0205", warning, preen, "is not there", rewrite},
        {"RMF-0206", error, none, "no valid copy is left", nullptr},
        {"RMF-0207", error, none, "copies differ but are equally new", nullptr},
        {"RMF-0208", note, none, "is one commit behind; the next activation completes it", nullptr},
        {"RMF-0209", warning, preen, "is marked dead", "write all of it again and mark it live"},
        {"RMF-0210", warning, none, "is marked dead, and cannot be rebuilt from the others",
         nullptr},
        {"RMF-0211", error, none, "does not count its entries rightly", nullptr},
        {"RMF-0212", note, none, "empty blocks after the table's end; an extension was interrupted",
         nullptr},
        {"RMF-0213", error, confirmed, "used blocks after the table's end",
         "extend the table so that it holds them"},
        {"RMF-0214", error, preen,
         "no copy is valid, but sectors of several make up one whose checksum is right",
         "write it to all live copies"},
        {"RMF-0215", warning, preen, "is half of one write and half of another", rewrite},
        {"RMF-0216", error, confirmed,
         "entries cannot be proved: blocks that their slots stood for may read old data",
         "keep the other entries, give up these slots, mark lost what they name, and make the set "
         "read-only until --confirm-loss"},

        // Entries
        {"RMF-0301", error, none, "entry is free but not empty", nullptr},
        {"RMF-0302", error, none, "entry beyond the last slot", nullptr},
        {"RMF-0303", error, none, "entry has an unknown state", nullptr},
        {"RMF-0304", error, none, "entry names a block beyond the end of the main", nullptr},
        {"RMF-0305", error, none, "entry uses a slot that holds a superblock", nullptr},
        {"RMF-0310", note, none, "several slots for this block; the newest wins", nullptr},
        {"RMF-0311", error, none,
         "several slots for this block, and none is the newest: it reads as an error", nullptr},
        {"RMF-0312", error, none, "hidden block has no slot: it reads as an error", nullptr},
        {"RMF-0313", note, none, "blocks whose data is lost; they read as errors until written",
         nullptr},

        // The set
        {"RMF-0401", error, none, "the device is smaller than when the set was made", nullptr},
        {"RMF-0402", note, none, "the device is larger than when the set was made", nullptr},
        {"RMF-0403", error, preen, "adoption or release is not finished",
         "finish it, or roll it back if the main was not touched yet"},
        {"RMF-0404", error, none, "adoption or release is not finished; give the main with --main",
         nullptr},
        {"RMF-0405", warning, Repair::on_request, "is read-only until a loss of data is confirmed",
         "make it writable again"},
        {"RMF-0406", note, none, "no label place of the main could be written lately", nullptr},
        {"RMF-0407", note, none, "is other hardware than when the set was made", nullptr},
        {"RMF-0408", error, none, "the spare's logical block size is larger than the set's",
         nullptr},

        // The main
        {"RMF-0501", error, none, "the main is smaller than when the set was made", nullptr},
        {"RMF-0502", error, none, "the main belongs to another set or another spare", nullptr},
        {"RMF-0503", error, none, "the main carries no valid label of this set", nullptr},
        {"RMF-0504", error, none, "the main was used with a newer spare: this spare is an old copy",
         nullptr},
        {"RMF-0505", error, none, "this main is an old copy of the set's main", nullptr},
        {"RMF-0506", warning, preen, "is damaged", "write it again from another label"},
        {"RMF-0507", warning, preen, "cannot be read", "write it again from another label"},
        {"RMF-0508", warning, confirmed, "is not there: somebody wrote to the raw main",
         "write it again from another label"},
        {"RMF-0509", note, none, "is older than another; the next activation completes it",
         nullptr},
        {"RMF-0510", warning, confirmed, "is not there: somebody wrote to the raw main",
         "write the filler again"},
        {"RMF-0511", note, none, "could not be overwritten at adoption and may be visible",
         nullptr},
        {"RMF-0512", note, none, "cannot be read", nullptr},
        {"RMF-0513", error, none, "the main's logical block size is larger than the set's",
         nullptr},
        {"RMF-0514", note, none, "is other hardware than when the set was made", nullptr},
        {"RMF-0515", error, none, "is of a format newer than this program", nullptr},
    };
    return table;
}

const Problem& problem(const std::string& id) {
    for (const Problem& row : problem_table()) {
        if (id == row.id)
            return row;
    }
    throw std::logic_error(cat("no problem has the id ", id));
}

}  // namespace remap
