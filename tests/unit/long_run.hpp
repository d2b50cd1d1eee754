// SPDX-License-Identifier: GPL-2.0-or-later
//
// How much a test does whose cases are endless: seconds' worth, or all that can be had. Such tests
// have the tag [long].
#pragma once

#include <cstdlib>

namespace remap::test {

/// Does the caller want it all (REMAP_TEST_LONG=1)?
inline bool long_run() {
    return std::getenv("REMAP_TEST_LONG") != nullptr;
}

/// Rounds of a test that makes up its sets at random.
inline unsigned int property_rounds() {
    return long_run() ? 10000 : 200;
}

}  // namespace remap::test
