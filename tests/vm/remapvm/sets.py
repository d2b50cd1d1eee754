# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of a main and a spare for tests: formatting on the host, tables, status, and where things lie on a spare.

What is read here of the on-disk format is read with Python's struct, not with the tools under test.
"""

import re
import struct
import subprocess
from dataclasses import dataclass, fields

from . import paths
from .disk import SECTOR, Disk

SB_OFFSET = 4096
_SUPERBLOCK = struct.Struct("<16sII4BI3QQ16sQQ16s16s")
ENTRY_STATES = {0: "free", 1: "mapped", 2: "lost", 3: "bad"}


def tool(name: str, *words, check=True) -> subprocess.CompletedProcess:
    """Run one of the project's tools on the host; with check, its failure raises with what it said."""
    done = subprocess.run(
        [paths.build() / "bin" / name, *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{name} {' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def format_set(main: Disk, spare: Disk, *options):
    """Make a set of two disks while they are images on the host; a bare one with "--bare"."""
    block = ["--block-size", str(main.block)] if main.block != SECTOR else []
    tool("remapsetup", "format", "--yes", "--rescue-file", "none", *block, *options, main, spare)


def table(vm, main="main", spare="spare", features="0", target="remap", sectors=None) -> str:
    """The table line for two disks of a machine; the length is the main's."""
    sectors = sectors or int(vm.run(f"blockdev --getsz {{{main}}}").stdout)
    return f"0 {sectors} {target} {vm.dev(main)} {vm.dev(spare)} {features}"


def open_set(vm, name="r0", **options) -> str:
    """Create the remap device through dmsetup, without any tool of ours, and return its path."""
    vm.run(["dmsetup", "create", name, "--table", table(vm, **options)])
    return f"/dev/mapper/{name}"


@dataclass
class Status:
    """The kernel's status line, see docs/dm-remap.rst."""

    set_uuid: str
    block_sectors: int
    slots: str
    mapped: int
    lost: int
    bad: int
    hidden: int
    copies: str
    epoch: int
    remapped: int
    main_write_errors: int
    main_read_errors: int
    spare_errors: int
    failed: int
    doubt: int
    table_blocks: int
    circuit: int
    burst: int
    health: str
    mode: str


def status(vm, name="r0") -> Status:
    """`dmsetup status` of a remap device."""
    return parse_status(vm.run(["dmsetup", "status", name]).stdout)


def parse_status(line: str) -> Status:
    """A status line. Fields are appended before the last two: unknown ones are passed over, absent ones are 0."""
    known = fields(Status)
    *words, health, mode = line.split()[3:]
    words = (words + ["0"] * len(known))[: len(known) - 2]
    return Status(*(field.type(word) for field, word in zip(known, [*words, health, mode], strict=True)))


class Spare:
    """Where things lie on a spare's image, from its first superblock."""

    def __init__(self, disk: Disk):
        self.disk = disk
        block = disk.read(SB_OFFSET, 4096)
        head = _SUPERBLOCK.unpack_from(block)
        self.block_size = 1 << head[6]
        self.set_uuid, self.nonce = head[12], head[13]
        self.superblocks = struct.unpack_from("<5Q", block, 168)  # sectors
        self.table_length = struct.unpack_from("<Q", block, 160)[0]  # table blocks
        self.labels = [0, *filter(None, struct.unpack_from("<16Q", block, 232))]  # sectors of the main; the first is always one
        segment = struct.unpack_from("<BB6x4QQQQ", block, 1536)
        self.tables = segment[2 : 2 + segment[1]]  # sectors where the copies begin
        self.slots, self.data = segment[7], segment[8]

    def entries(self, copy=0):
        """The entries in use of a table copy: {slot: (state, main block, sequence)}."""
        found = {}
        for index in range(self.table_length):
            block = self.disk.read(self.tables[copy] * SECTOR + index * 4096, 4096)
            for number, (low, high) in enumerate(struct.iter_unpack("<QQ", block[64:])):
                if low or high:
                    state = ENTRY_STATES.get((low >> 48) & 0xFF, "unknown")
                    found[index * 252 + number] = (state, low & ((1 << 48) - 1), high & 0xFFFFFF)
        return found

    def mapped(self, copy=0):
        """Main blocks that have a slot: {block: slot}."""
        return {block: slot for slot, (state, block, _) in self.entries(copy).items() if state == "mapped"}

    def slot_sector(self, slot: int) -> int:
        """First sector of a slot."""
        return self.data + slot * (self.block_size // SECTOR)


class Trace:
    """Records what is sent to a disk, in order, while the `with` block runs: .requests is a list of (kind, sector).

    kind is "flush", or the kernel's word for the request: R, W or D, with F before it for a flush and behind it for FUA.
    """

    FOLDER = "/sys/kernel/tracing"
    _LINE = re.compile(r"block_bio_queue: (\d+),(\d+) (\S+) (\d+) \+ (\d+) ")

    def __init__(self, vm, disk: Disk):
        self.vm = vm
        self.device = vm.run(f"cat /sys/block/{vm.dev(disk).rpartition('/')[2]}/dev").stdout.strip()
        self.requests = []

    def __enter__(self):
        self.vm.run(
            f"mountpoint -q {self.FOLDER} || mount -t tracefs tracefs {self.FOLDER}; cd {self.FOLDER} && echo >trace && "
            "echo 1 >events/block/block_bio_queue/enable"
        )
        return self

    def __exit__(self, *_):
        text = self.vm.run(f"cd {self.FOLDER} && echo 0 >events/block/block_bio_queue/enable && cat trace").stdout
        for major, minor, kind, sector, size in self._LINE.findall(text):
            if f"{major}:{minor}" == self.device:
                self.requests.append((kind if int(size) else "flush", int(sector)))

    def writes(self):
        """Sectors written, in order."""
        return [sector for kind, sector in self.requests if "W" in kind]
