# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels in the cache folder: Debian's, that scripts/lib/packages.sh unpacked, and those of scripts/lib/debug_kernels.sh."""

import lzma
import re
import struct
import subprocess
from pathlib import Path

from . import cached, paths
from .errors import SetupError

SERIES = ("6.1", "6.12")
# Kernels that watch themselves, user-mode Linux and one for QEMU, and what has scripts/test build them.
DEBUG = {"uml": "--uml", "x86-debug": "--vm --long"}


class Kernel:
    """One kernel: its release name, image and modules. `debug` is its name in DEBUG, or None."""

    def __init__(self, folder: Path, debug=None):
        self.release = folder.name
        self.debug = debug
        self.folder = folder
        self.modules = folder / "lib" / "modules" / self.release
        self.vmlinuz = folder / "vmlinuz"

    def headers(self) -> Path:
        """The folder to build modules for this kernel in."""
        return self.folder / "build" if self.debug else Path("/lib/modules", self.release, "build")

    def image(self) -> Path:
        """What QEMU boots fastest: the uncompressed ELF image, through its PVH entry point.

        Unpacking the kernel inside the guest costs up to 2.5 s without KVM. Falls back to vmlinuz when the
        compression is unknown.
        """
        if self.debug:
            return self.folder / "linux"
        key = cached.digest(self.release, str(self.vmlinuz.stat().st_mtime_ns), str(self.vmlinuz.stat().st_size))
        target = paths.cache() / "vmlinux" / key
        if not target.exists():
            elf = _uncompress(self.vmlinuz.read_bytes())
            if elf is None:
                return self.vmlinuz
            return cached.cached_file("vmlinux", key, lambda path: path.write_bytes(elf))
        return cached.cached_file("vmlinux", key, None)


def _uncompress(bzimage: bytes):
    """The ELF image in a bzImage (x86 boot protocol, payload_offset at 0x248); None when it can't be had."""
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    if payload[:6] == b"\xfd7zXZ\0":
        elf = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":
        # the last four bytes are the length of the result, not part of the stream
        done = subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE, check=False)
        elf = done.stdout if done.returncode == 0 else b""
    else:
        return None
    return elf if elf[:4] == b"\x7fELF" else None


def _version(release: str):
    return [int(part) for part in re.findall(r"\d+", release)]


def find(wanted: str) -> Kernel:
    """The newest unpacked kernel of a series ("6.1"), exactly that release, or a debug kernel by its name."""
    if wanted in DEBUG:
        return _find_debug(wanted)
    folder = paths.cache() / "kernels"
    found = [
        entry
        for entry in (folder.iterdir() if folder.is_dir() else [])
        if (entry / "complete").exists() and (entry.name == wanted or entry.name.startswith(wanted + "."))
    ]
    # The newest whose headers are there: that is the one the module is built for.
    buildable = [entry for entry in found if Path("/lib/modules", entry.name, "build").exists()]
    candidates = buildable or found
    if not candidates:
        raise SetupError(f"no kernel {wanted} below {folder}: run scripts/test --prepare")
    return Kernel(max(candidates, key=lambda entry: _version(entry.name)))


def _find_debug(name: str) -> Kernel:
    """The debug kernel that the module was built for last: its release name tells what it was made of."""
    folder = paths.cache() / "debug-kernels"
    found = [entry for entry in folder.glob(f"*-{name}-*") if (entry / "complete").exists()]
    if not found:
        raise SetupError(f"no kernel {name} below {folder}: run scripts/test --prepare {DEBUG[name]}")

    def built(entry):
        module = paths.build() / "kmod" / entry.name / "dm-remap.ko"
        return module.stat().st_mtime if module.exists() else 0

    return Kernel(max(found, key=built), name)
