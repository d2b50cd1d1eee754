# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets with as many entries as wanted, written to the images on the host: see docs/format.md for the layout.

A valid set is made by remapsetup; its table blocks are then filled in here, with zlib's crc32.
"""

import random
import struct
import time
import zlib
from itertools import islice

from .disk import SECTOR, Disk
from .sets import SB_OFFSET, Spare

ENTRIES = 252  # of a table block
TABLE_BLOCK = 4096
_HEADER = struct.Struct("<8sIBBHQQQ24x")
_MAGIC = b"RmapTbl\x1a"
MAPPED, WRITE_ERROR, EIO = 1, 1, 5


def scattered(count: int, blocks: int, run=1, taken=(), seed=1):
    """`count` blocks of a main with that many blocks, in runs, none in `taken`; runs in random order as errors come."""
    dice = random.Random(seed)
    starts, busy = set(), {block // run for block in taken}
    while len(starts) < count // run:
        start = dice.randrange(blocks // run - 1)
        if start not in busy:
            starts.add(start)
    order = list(starts)
    dice.shuffle(order)
    return [start * run + offset for start in order for offset in range(run)]


class Filler:
    """Puts entries into the table of a spare's image, on all copies."""

    def __init__(self, disk: Disk):
        self.spare = Spare(disk)
        self.disk = disk
        superblock = disk.read(SB_OFFSET, 4096)
        self.generation = struct.unpack_from("<Q", superblock, 56)[0]
        self.main_blocks = struct.unpack_from("<Q", superblock, 144)[0] * SECTOR // self.spare.block_size
        self.seed = zlib.crc32(self.spare.set_uuid + struct.pack("<Q", self.spare.nonce))
        self.entries = {
            slot: (block, sequence) for slot, (_, block, sequence) in self.spare.entries().items()
        }
        self.hidden = [
            (start, count)
            for start, count in struct.iter_unpack("<QI4x", superblock[512 : 512 + 16 * superblock[138]])
        ]

    def taken(self):
        """Main blocks that have an entry already."""
        return [block for block, _ in self.entries.values()]

    def add(self, blocks):
        """Map these blocks to the next free slots; returns [(block, slot)]."""
        sequence = max((sequence for _, sequence in self.entries.values()), default=0) + 1
        free = (slot for slot in range(self.spare.slots) if slot not in self.entries and not self._reserved(slot))
        placed = list(zip(blocks, islice(free, len(blocks))))
        if len(placed) < len(blocks):
            raise ValueError(f"the spare has slots for {len(placed)} of {len(blocks)} blocks only")
        raw = self._old_entries()
        now = int(time.time())
        for number, (block, slot) in enumerate(placed):
            raw[slot] = (block | MAPPED << 48 | WRITE_ERROR << 56, (sequence + number) & 0xFFFFFF | EIO << 24 | now << 32)
        self._write_table(raw)
        return placed

    def _reserved(self, slot: int) -> bool:
        """Whether a superblock lies in this slot."""
        sectors = self.spare.block_size // SECTOR
        start = self.spare.slot_sector(slot)
        return any(start < place + 8 and place < start + sectors for place in self._inner)

    @property
    def _inner(self):
        return [place for place in self.spare.superblocks if place >= self.spare.data]

    def _old_entries(self):
        raw = {}
        for index in range(self.spare.table_length):
            block = self.disk.read(self.spare.tables[0] * SECTOR + index * TABLE_BLOCK, TABLE_BLOCK)
            for number, pair in enumerate(struct.iter_unpack("<QQ", block[64:])):
                if any(pair):
                    raw[index * ENTRIES + number] = pair
        return raw

    def _write_table(self, raw):
        length = max(max(raw, default=0) // ENTRIES + 1, self.spare.table_length)
        copies = [bytearray() for _ in self.spare.tables]
        for index in range(length):
            pairs = [raw.get(slot, (0, 0)) for slot in range(index * ENTRIES, (index + 1) * ENTRIES)]
            body = struct.pack(f"<{2 * ENTRIES}Q", *(word for pair in pairs for word in pair))
            in_use = sum(1 for pair in pairs if any(pair))
            for copy, image in enumerate(copies):
                image += self._block(copy, index, in_use, body)
        for start, image in zip(self.spare.tables, copies):
            self.disk.write(start * SECTOR, bytes(image))
        self._set_length(length)

    def _block(self, copy, index, in_use, body) -> bytes:
        def header(crc):
            return _HEADER.pack(_MAGIC, crc, copy, 0, in_use, index, self.generation, self.spare.tables[copy] + index * 8)

        return header(zlib.crc32(header(0) + body, self.seed)) + body

    def _set_length(self, length):
        for sector in self.spare.superblocks:
            block = bytearray(self.disk.read(sector * SECTOR, 4096))
            struct.pack_into("<Q", block, 160, length)
            struct.pack_into("<I", block, 16, 0)
            struct.pack_into("<I", block, 16, zlib.crc32(block, self.seed))
            self.disk.write(sector * SECTOR, bytes(block))
        self.spare.table_length = length

    def metadata(self):
        """Where superblocks and table lie on the spare: (first byte, bytes)."""
        yield from ((sector * SECTOR, 4096) for sector in self.spare.superblocks)
        # one block more: the kernel looks whether the table ends where the superblocks say
        yield from ((start * SECTOR, (self.spare.table_length + 1) * TABLE_BLOCK) for start in self.spare.tables)

    def hidden_places(self):
        """Where label and filler lie on the main: (first byte, bytes)."""
        size = self.spare.block_size
        yield from ((start * size, count * size) for start, count in self.hidden)
