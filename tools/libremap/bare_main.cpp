// SPDX-License-Identifier: GPL-2.0-or-later
#include "libremap/bare_main.hpp"

#include <array>
#include <set>

#include "libremap/error.hpp"
#include "libremap/text.hpp"

namespace remap {
namespace {

struct Field {
    std::string_view key;
    std::string Identity::*value;
};
constexpr std::array<Field, 3> fields = {
    {{"wwn", &Identity::wwn}, {"serial", &Identity::serial}, {"partuuid", &Identity::partuuid}}};

constexpr std::string_view hex_digits = "0123456789abcdef";

/// What disks say of themselves may be anything, also what ends an option or a line.
std::string encoded(const std::string& text) {
    constexpr std::string_view plain = "._:-";
    std::string out;
    for (const char c : text) {
        const bool kept = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                          (c >= 'A' && c <= 'Z') || plain.find(c) != std::string_view::npos;
        const auto byte = static_cast<unsigned char>(c);
        out += kept ? std::string(1, c)
                    : std::string({'%', hex_digits[byte >> 4], hex_digits[byte & 15]});
    }
    return out;
}

std::optional<std::string> decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        if (text.size() - i < 3) {
            return std::nullopt;
        }
        const auto high = hex_digits.find(text[i + 1]);
        const auto low = hex_digits.find(text[i + 2]);
        if (high == std::string_view::npos || low == std::string_view::npos) {
            return std::nullopt;
        }
        out += static_cast<char>(high << 4 | low);
        i += 2;
    }
    // One way to write each identity: else two lines could mean one disk and not show it.
    return encoded(out) == text ? std::optional(out) : std::nullopt;
}

bool set_field(Identity& identity, std::string_view text) {
    const auto colon = text.find(':');
    const std::string_view key = text.substr(0, colon);
    for (const Field& field : fields) {
        if (colon != std::string_view::npos && field.key == key &&
            (identity.*field.value).empty()) {
            const auto value = decoded(text.substr(colon + 1));
            identity.*field.value = value.value_or("");
            return value && !value->empty();
        }
    }
    return false;
}

bool is_remap_device(const BlockDevice& device) {
    return device.dm_uuid.compare(0, 6, "REMAP-") == 0;
}

class Search {
  public:
    Search(const Remaptab& tab, const MachineRoot& root) : root_(root) {
        for (const RemaptabEntry& entry : tab.entries()) {
            if (const auto listed = listed_main(entry)) {
                listed_.push_back({&entry, *listed});
            }
        }
    }

    std::optional<RawMain> below(const BlockDevice& device) {
        if (listed_.empty() || is_remap_device(device) || !seen_.insert(device.name).second) {
            return std::nullopt;
        }
        for (const auto& [entry, listed] : listed_) {
            if (looks_like_main(listed, device, root_)) {
                return RawMain{*entry, device};
            }
        }
        // The partitions of a main that is a whole disk are parts of what it shows.
        if (device.is_partition) {
            return below_named(device.whole);
        }
        for (const std::string& slave : slaves_of(device, root_)) {
            if (const auto found = below_named(slave)) {
                return found;
            }
        }
        return std::nullopt;
    }

  private:
    std::optional<RawMain> below_named(const std::string& name) {
        const auto device = block_device_named(name, root_);
        return device ? below(*device) : std::nullopt;
    }

    struct Listed {
        const RemaptabEntry* entry;
        Identity main;
    };
    std::vector<Listed> listed_;
    std::set<std::string> seen_;
    const MachineRoot& root_;
};

}  // namespace

std::string identity_text(const Identity& identity) {
    std::string text;
    for (const Field& field : fields) {
        const std::string& value = identity.*field.value;
        if (!value.empty()) {
            text += cat(text.empty() ? "" : "+", field.key, ":", encoded(value));
        }
    }
    return text;
}

std::optional<Identity> parse_identity(std::string_view text) {
    Identity identity;
    for (;;) {
        const auto plus = text.find('+');
        if (!set_field(identity, text.substr(0, plus))) {
            return std::nullopt;
        }
        if (plus == std::string_view::npos) {
            return identity;
        }
        text.remove_prefix(plus + 1);
    }
}

std::optional<Identity> listed_main(const RemaptabEntry& entry) {
    const auto text = entry.value("main");
    return text ? parse_identity(*text) : std::nullopt;
}

Identity hideable_identity(const BlockDevice& device, const MachineRoot& root) {
    const auto refuse = [&device](const char* why) -> Error {
        return {Exit::usage, cat(device.path, ": ", why)};
    };
    // Rules that run later look for a payload on these once more.
    if (!device.dm_uuid.empty() || !device.dm_name.empty() ||
        device.whole.compare(0, 2, "md") == 0) {
        throw refuse("expected a disk or a partition, found a device of device-mapper or MD");
    }
    Identity identity = kernel_identity(device, root);
    identity.size = 0;
    if (device.is_partition ? identity.partuuid.empty() : identity.empty()) {
        throw refuse(device.is_partition ? "its partition table gives it no PARTUUID"
                                         : "the kernel knows neither WWN nor serial number of it");
    }
    return identity;
}

bool looks_like_main(const Identity& listed, const BlockDevice& device, const MachineRoot& root) {
    if (device.is_partition != !listed.partuuid.empty()) {
        return false;
    }
    const Identity found = kernel_identity(device, root);
    return device.is_partition ? found.partuuid == listed.partuuid
                               : listed.compare(found) == Identity::Match::same;
}

bool is_listed_main(const Identity& listed, const BlockDevice& device, const MachineRoot& root) {
    if (!looks_like_main(listed, device, root)) {
        return false;
    }
    const Identity found = kernel_identity(device, root);
    for (const Field& field : fields) {
        if (!(listed.*field.value).empty() && found.*field.value != listed.*field.value) {
            return false;
        }
    }
    return true;
}

std::optional<RawMain> raw_main_below(const BlockDevice& device, const Remaptab& tab,
                                      const MachineRoot& root) {
    return Search(tab, root).below(device);
}

std::string hiding_properties(const RawMain& raw, const BlockDevice& device) {
    // No blkid, no links, no unit, no automatic mount.
    std::string text =
        "UDEV_DISABLE_PERSISTENT_STORAGE_BLKID_FLAG=1\nSYSTEMD_READY=0\nUDISKS_IGNORE=1\n"
        "ID_FS_USAGE=raid\nID_REMAP_RAW=1\n";
    if (raw.main.devno == device.devno) {
        // As a member: its event has the set opened, and whoever asks sees what it is.
        text += cat("ID_FS_TYPE=remap_member\nID_REMAP_ROLE=main\nID_FS_UUID=", raw.entry.set,
                    "\nID_FS_UUID_ENC=", raw.entry.set, "\nID_REMAP_SET=", raw.entry.set, "\n");
    }
    if (device.name.compare(0, 3, "dm-") == 0) {
        // The rules for device-mapper's devices have flags of their own.
        text += "DM_UDEV_DISABLE_DISK_RULES_FLAG=1\nDM_UDEV_DISABLE_OTHER_RULES_FLAG=1\n";
    }
    return text;
}

}  // namespace remap
