# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of a test: a raw image file, how the guest sees it, and which of its sectors fail."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
INTERFACES = ("virtio", "scsi", "nvme")


def parse_size(size) -> int:
    """Bytes of "100M", "20MiB" (binary units), "4096s" (sectors) or a number of bytes."""
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(\d+)([sKMGT]?)(?:iB)?", size)
    if not match:
        raise ValueError(f"not a size: {size!r}")
    unit = {"": 1, "s": SECTOR, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[match[2]]
    return int(match[1]) * unit


@dataclass(frozen=True)
class Faults:
    """Which requests of a disk fail, from power-on, every time. Sectors are numbers of 512-byte sectors.

    A request that touches one bad sector fails whole and transfers nothing. errno: what the disk
    reports; 5 is EIO, with 61 a scsi disk reports a medium error.
    """

    bad_write: tuple = ()
    bad_read: tuple = ()
    fail_write: bool = False
    fail_read: bool = False
    fail_flush: bool = False
    errno: int = 5

    @staticmethod
    def make(bad_write=(), bad_read=(), **rest) -> "Faults":
        """Faults from any iterables of sector numbers."""
        return Faults(tuple(sorted(set(bad_write))), tuple(sorted(set(bad_read))), **rest)

    def rules(self):
        """blkdebug's inject-error rules, as (kind of request, sector or None for all)."""
        # write-zeroes is a request of its own: a sector that cannot be written cannot be zeroed either
        for kinds, sectors, everywhere in (
            (("write", "write-zeroes"), self.bad_write, self.fail_write),
            (("read",), self.bad_read, self.fail_read),
            (("flush",), (), self.fail_flush),
        ):
            for kind in kinds:
                if everywhere:
                    yield kind, None
                else:
                    yield from ((kind, sector) for sector in sectors)

    def config(self) -> str:
        """The rules as QEMU's blkdebug driver reads them from a file; empty when nothing fails."""
        # "none" is the one event that fires on raw images
        return "".join(
            f'[inject-error]\nevent = "none"\niotype = "{kind}"\nerrno = "{self.errno}"\nonce = "off"\n'
            + ("" if sector is None else f'sector = "{sector}"\n')
            for kind, sector in self.rules()
        )


class Disk:
    """A raw image that virtual machines attach, one after the other: it is the same disk after a power cut.

    name        also the default serial number, and {name} in commands
    interface   "virtio", "scsi" or "nvme"
    block       logical block size in bytes, 512 or 4096
    physical    physical block size in bytes, default the same
    wwn         64-bit number, scsi only
    faults      may be replaced between boots; VM.set_faults() changes them on the running disk
    """

    def __init__(
        self,
        path,
        name,
        size=None,
        interface="virtio",
        block=512,
        physical=None,
        serial=None,
        wwn=None,
        faults=Faults(),
    ):
        if interface not in INTERFACES:
            raise ValueError(f"interface {interface!r}: one of {', '.join(INTERFACES)}")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise ValueError(f"a disk's name must be an identifier: {name!r}")
        self.path = Path(path)
        self.name = name
        self.interface = interface
        self.block = block
        self.physical = physical or block
        self.serial = serial or name
        self.wwn = wwn
        self.faults = faults
        self.attached_to = None
        if size is not None:
            with open(self.path, "xb") as image:
                image.truncate(parse_size(size))

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @property
    def sectors(self) -> int:
        """Size in sectors."""
        return self.size // SECTOR

    def set_faults(self, **faults):
        """Faults of the next boot; arguments as for Faults.make()."""
        self.faults = Faults.make(**faults)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the image, past all faults."""
        with open(self.path, "rb") as image:
            image.seek(offset)
            return image.read(length)

    def write(self, offset: int, data: bytes):
        """Change the image behind the guest's back, past all faults. Not while a machine runs on it."""
        if self.attached_to is not None:
            raise RuntimeError(f"disk {self.name} is in use by a running machine")
        with open(self.path, "r+b") as image:
            image.seek(offset)
            image.write(data)

    def __str__(self):
        return str(self.path)

    def __fspath__(self):
        return os.fspath(self.path)
