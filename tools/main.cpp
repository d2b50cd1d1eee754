// SPDX-License-Identifier: GPL-2.0-or-later
#include <string_view>

#include "cli/entry.hpp"

int main(int argc, char** argv) {
    const std::string_view path = argc > 0 ? argv[0] : "";
    const std::string_view name = path.substr(path.rfind('/') + 1);

    if (name == "remap-fsck" || name == "fsck.remap")
        return remap_fsck_main(argc, argv);
    if (name == "remap-dump")
        return remap_dump_main(argc, argv);
    return remapsetup_main(argc, argv);
}
