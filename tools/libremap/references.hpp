// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a machine's configuration calls a device. Adoption moves the payload's UUID and label to the
// remap device, so what goes by them keeps working; what names the device itself would find a label
// of ours where its data was. Everything here only reads.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libremap/identity.hpp"

namespace remap {

/// The names of all files in an initramfs image; nothing if it cannot be told.
using InitramfsLister =
    std::function<std::optional<std::vector<std::string>>(const std::string& image)>;

/// Where a machine's configuration is; tests put a tree of their own here.
struct Host {
    std::string root;  ///< put before "/etc/fstab" and the like
    MachineRoot machine;
    InitramfsLister list_initramfs;  ///< empty: lsinitramfs(8) or lsinitrd(1)

    /// Where a file of that machine is, "/etc/fstab", "/dev/sda1".
    std::string path(const std::string& file) const;
};

/// A device that is to become a main.
struct FutureMain {
    std::string path;                   ///< device or image
    std::optional<BlockDevice> device;  ///< nothing for an image
    std::string type;                   ///< of its payload, as libblkid calls it; empty: none
    std::string uuid;                   ///< of its payload, may be empty
    std::string label;                  ///< of its payload, may be empty
    bool bare = false;                  ///< the raw main goes on to show the payload
    std::string name;  ///< of the remap device below /dev/mapper; empty: not known yet
};

/// Does a word of a configuration file mean the main, and how?
enum class Named {
    no,
    by_payload,  ///< UUID or label: stays right
    by_device,   ///< anything else
};

/// The main as configuration files may name it.
class MainNames {
  public:
    MainNames(FutureMain main, const Host& host);

    /// `word` is "UUID=…", "PARTLABEL=…", "/dev/disk/by-id/…" and the like.
    Named named(const std::string& word) const;

    /// Is it the main's device number, "8:2" or "802"?
    bool is_number(const std::string& word) const;

    /// Does the device that `word` means lie on the main, as a logical volume may?
    bool lies_on_main(const std::string& word) const;

    /// What to write in fstab, crypttab and on the kernel command line.
    std::string instead() const;

    /// "/dev/mapper/NAME".
    std::string mapper() const;

    const FutureMain& main() const { return main_; }

  private:
    bool same_device(const std::string& path) const;
    Named by_tag(const std::string& key, const std::string& value) const;

    FutureMain main_;
    const Host& host_;
    std::string partuuid_;
    std::string partlabel_;
};

/// One line of a configuration file; `where` is "/etc/fstab:3".
struct ConfigLine {
    std::string where;
    std::string text;
};

/// The lines of a file, without comments and empty ones; none if the file cannot be read.
std::vector<ConfigLine> config_lines(const Host& host, const std::string& file);

/// The files of a folder, sorted, as "/etc/x.d/file".
std::vector<std::string> files_in(const Host& host, const std::string& folder);

/// Words between white space, without quotes.
std::vector<std::string> config_words(const std::string& text);

/// "\040" and the like, as fstab writes blanks.
std::string fstab_text(const std::string& word);

/// One parameter of a kernel command line.
struct KernelParameter {
    std::string where;
    std::string key;
    std::string value;
};

/// The parameters with which this kernel runs, and those that the next ones will get, as the files
/// of grub, kernel-install and the boot loader specification have them.
std::vector<KernelParameter> kernel_parameters(const Host& host);

/// Names of the main that will no longer work, or would get behind the remap device's back: in
/// fstab, crypttab, mdadm.conf, LVM's devices file and the kernel command line. Each says where,
/// what was seen, and what to write instead.
std::vector<std::string> objections_to_names(const MainNames& names, const Host& host);

}  // namespace remap
