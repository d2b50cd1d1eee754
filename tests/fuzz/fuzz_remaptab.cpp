// SPDX-License-Identifier: GPL-2.0-or-later
//
// A remaptab. Input: its text.
#include "libremap/error.hpp"
#include "libremap/remaptab.hpp"
#include "support.hpp"

using namespace remap;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const Remaptab tab = Remaptab::parse(text, "tab");
    for (const RemaptabEntry& entry : tab.entries()) {
        fuzz::promise(valid_device_name(entry.name), "a name that no device can have");
        fuzz::promise(tab.find(entry.set) != nullptr && tab.find(entry.name) != nullptr,
                      "an entry is not found");
        static_cast<void>(entry.has("noauto"));
    }
    // An edit keeps what it does not concern.
    Remaptab again = Remaptab::parse(tab.text(), "tab");
    fuzz::promise(again.text() == tab.text(), "text changes when it is read and written");
    fuzz::promise(again.entries().size() == tab.entries().size(), "entries are lost");
    const Uuid mine = *Uuid::parse("11111111-2222-3333-4444-555555555555");
    try {
        again.add({"added", mine, {"noauto"}});
    } catch (const Error&) {
        return 0;  // listed already
    }
    const Remaptab added = Remaptab::parse(again.text(), "tab");
    fuzz::promise(added.find(mine) != nullptr && added.find(mine)->name == "added",
                  "what was added is not read");
    fuzz::promise(added.entries().size() == tab.entries().size() + 1, "adding changed others");
    fuzz::promise(again.remove(mine), "what was added is not removed");
    fuzz::promise(Remaptab::parse(again.text(), "tab").entries().size() == tab.entries().size(),
                  "removing changed others");
    return 0;
}
