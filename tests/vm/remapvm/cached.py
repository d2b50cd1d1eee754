# SPDX-License-Identifier: GPL-2.0-or-later
"""Files made once and kept in the cache folder under the hash of all that went into them."""

import contextlib
import fcntl
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
    with making(folder, key):
        if not target.exists():
            _drop_old(folder)
            _make(folder, target, make)
    return target


@contextlib.contextmanager
def making(folder: Path, key: str):
    """A lock on making `key` in this folder: two test workers must not do the same expensive work side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".lock.{key}", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, target: Path, make):
    handle, name = tempfile.mkstemp(dir=folder, prefix=".new.")
    os.close(handle)
    try:
        make(Path(name))
        os.rename(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _drop_old(folder: Path):
    """Forget what no test has used for a while, so that the cache does not grow with each build."""
    limit = time.time() - KEEP_SECONDS
    for entry in folder.iterdir():
        try:
            if entry.is_file() and entry.stat().st_mtime < limit:
                entry.unlink()
        except FileNotFoundError:
            pass  # another run was faster
