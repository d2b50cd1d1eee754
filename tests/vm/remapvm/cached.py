# SPDX-License-Identifier: GPL-2.0-or-later
"""Files made once and kept in the cache folder under the hash of all that went into them."""

import hashlib
import os
import tempfile
import time
from pathlib import Path

from . import paths

KEEP_SECONDS = 14 * 24 * 3600


def digest(*parts) -> str:
    """Hash of strings, bytes and the contents of files (Path)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            part = part.read_bytes()
        if isinstance(part, str):
            part = part.encode()
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()[:32]


def cached_file(kind: str, key: str, make) -> Path:
    """The file <cache>/<kind>/<key>; if it is not there, make(path) writes it. It appears whole or not at all."""
    folder = paths.cache() / kind
    target = folder / key
    if target.exists():
        os.utime(target)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    _drop_old(folder)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".new.")
    os.close(handle)
    try:
        make(Path(name))
        os.rename(name, target)
    except BaseException:
        os.unlink(name)
        raise
    return target


def _drop_old(folder: Path):
    """Forget what no test has used for a while, so that the cache does not grow with each build."""
    limit = time.time() - KEEP_SECONDS
    for entry in folder.iterdir():
        try:
            if entry.stat().st_mtime < limit:
                entry.unlink()
        except FileNotFoundError:
            pass  # another run was faster
