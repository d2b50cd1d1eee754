// SPDX-License-Identifier: GPL-2.0-or-later
//
// The raw mains of bare sets. Such a main carries no label and goes on to show its payload, so that
// only remaptab(5) can tell that it must be left alone: the `main=` of a set's line has its
// hardware identity, which is there whether the spare is or not.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "libremap/identity.hpp"
#include "libremap/remaptab.hpp"

namespace remap {

/// The identity as the value of `main=`: "wwn:naa.5000…+serial:X+partuuid:Y", without what is
/// empty; every byte but letters, digits and "._:-" as %XX.
std::string identity_text(const Identity& identity);

/// What identity_text() has written; nothing for any other text.
std::optional<Identity> parse_identity(std::string_view text);

/// What `main=` of a line says; nothing if it is not given, or not understood.
std::optional<Identity> listed_main(const RemaptabEntry& entry);

/// The identity by which a device can be hidden at its first event. Throws Error (usage) with the
/// reason if there is none that holds.
Identity hideable_identity(const BlockDevice& device, const MachineRoot& root = {});

/// Must the device be left alone as that main? A partition is known by its PARTUUID, whatever disk
/// it lies on; a whole disk by WWN and serial number, of which none differs and one is equal.
/// Doubt means yes: a copy of the main shows the same payload.
bool looks_like_main(const Identity& listed, const BlockDevice& device,
                     const MachineRoot& root = {});

/// May the device be opened as that main? Everything that is listed must be there and equal.
bool is_listed_main(const Identity& listed, const BlockDevice& device,
                    const MachineRoot& root = {});

/// A device that shows what a bare set's main shows.
struct RawMain {
    RemaptabEntry entry;  ///< the line that lists it
    BlockDevice main;     ///< what looks like the main
};

/// The raw main that the device is or lies on, directly or through what is stacked between them but
/// not through a remap device. Nothing for all other devices.
std::optional<RawMain> raw_main_below(const BlockDevice& device, const Remaptab& tab,
                                      const MachineRoot& root = {});

/// Properties for the udev database, as KEY=value lines, that hide the device.
std::string hiding_properties(const RawMain& raw, const BlockDevice& device);

}  // namespace remap
