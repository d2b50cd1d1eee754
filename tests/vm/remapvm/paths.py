# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are: the source tree, the build folder, the cache."""

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3]
GUEST = SOURCE / "tests" / "vm" / "guest"


def build() -> Path:
    """The build folder, DM_REMAP_BUILD or build/ in the source tree."""
    return Path(os.environ.get("DM_REMAP_BUILD") or SOURCE / "build").resolve()


def cache() -> Path:
    """The cache folder of scripts/lib/packages.sh: expensive to make, safe to delete."""
    given = os.environ.get("DM_REMAP_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dm-remap"
