// SPDX-License-Identifier: GPL-2.0-or-later
#include "dump_promises.hpp"
#include "libremap/set_reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    fuzz::check_dump(input, remap::read_text_dump);
    return 0;
}
