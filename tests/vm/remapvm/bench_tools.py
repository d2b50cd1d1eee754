# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tools cost on a full table: processor time, time, memory of the whole process, and beside them those of device-mapper's
thin-provisioning-tools on as many mappings.

All on image files, nothing needs root. Medians of several runs with the images in the page cache. Thin's tools read and write their
metadata past the page cache, so only processor time compares like with like.
"""

import json
import random
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from . import paths
from .bench_sets import ENTRIES, TABLE_BLOCK, scattered
from .errors import SetupError, VmError

MAIN = 1 << 40
BLOCK = 4096
SB_SECTORS = 8
SECTOR = 512
MIB = 1 << 20
SEQUENCES = 1 << 24
FEW = 10
RUNS = 9
HIDDEN = 64  # blocks, of an empty main of 4 KiB blocks


@dataclass
class Cost:
    """Medians over the runs: milliseconds, MiB."""

    cpu: float
    wall: float
    rss: float = 0


def measured(runs: int, *words) -> Cost:
    """What measured.py tells of a command."""
    script = Path(__file__).with_name("measured.py")
    words = [str(word) for word in (runs, *words)]
    process = subprocess.run(
        [sys.executable, "-I", "-S", script, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    results = [json.loads(line) for line in process.stdout.splitlines()]
    for result in results:
        if result["exit"] != 0:
            said = Path(words[1] + ".err")
            reason = said.read_text(errors="replace").strip() if said.exists() else ""
            raise VmError(f"{' '.join(words[4:])}: exit status {result['exit']}: {reason}")
    median = {key: statistics.median(result.get(key, 0) for result in results) for key in ("cpu", "wall", "rss")}
    return Cost(median["cpu"] * 1e3, median["wall"] * 1e3, median["rss"] / MIB)


def tool(name: str) -> Path:
    """One of ours."""
    path = paths.build() / "bin" / name
    if not path.exists():
        raise SetupError(f"{path} is missing: build it")
    return path


def run(*command):
    """Run something that must succeed; returns its standard output."""
    process = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise VmError(f"{' '.join(map(str, command))}: exit status {process.returncode}: {process.stderr.strip()}")
    return process.stdout


def sparse(path: Path, size: int) -> Path:
    """A file of zeroes."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


class Set:
    """The spare of an adopted main (of a bare one if there are few), with so many entries in its table, and its dump: made by our own tools."""

    def __init__(self, folder: Path, entries: int):
        self.size = (entries + entries // 8) * BLOCK + 64 * MIB
        self.spare = folder / f"spare-{entries}.img"
        self.dump = folder / f"{entries}.json"
        main = sparse(folder / "main.img", MAIN)
        sparse(self.spare, self.size)
        words = ["--yes", "--block-size", BLOCK, "--rescue-file", "none", "--remaptab", "none"]
        if entries < HIDDEN:
            words.append("--bare")
        run(tool("remapsetup"), "format", *words, main, self.spare)
        dump = json.loads(run(tool("remap-dump"), "export", "--format", "json", self.spare))
        # those of the hidden blocks are there
        old = [entry for block in dump["table"] for entry in block["entries"]]
        self.entries = entries
        self._write_dump(dump, old + self._new_entries(dump["superblock"], old))
        self.metadata = self._metadata(dump["superblock"])
        sparse(self.spare, self.size)
        run(tool("remap-dump"), "restore", "--yes", "--slots-in-place", self.dump, self.spare)
        # as it comes from export: one entry to a line
        self.dump.write_text(run(tool("remap-dump"), "export", "--format", "json", self.spare), encoding="ascii")

    def _new_entries(self, superblock, old):
        """The blocks are scattered over the main, the slots taken one after the other."""
        start = superblock["segments"][0]["data_start"]
        sectors = BLOCK // SECTOR
        taken = {entry["slot"] for entry in old}
        for place in superblock["superblock_sectors"]:
            taken |= {(place - start) // sectors, (place - start + SB_SECTORS - 1) // sectors}
        slots = (slot for slot in count() if slot not in taken)
        blocks = scattered(self.entries - len(old), MAIN // BLOCK, taken=[entry["block"] for entry in old])
        made = {"state": "mapped", "cause": "write-error", "errno": 5, "time": 1700000000}
        return [
            {"slot": slot, "block": block, "sequence": number % SEQUENCES, **made}
            for number, (slot, block) in enumerate(zip(slots, blocks), len(old) + 1)
        ]

    def _write_dump(self, dump, entries):
        superblock = dump["superblock"]
        table = defaultdict(list)
        for entry in entries:
            table[entry["slot"] // ENTRIES].append(entry)
        superblock["table_length"] = max(table) + 1
        dump["table"] = [
            {"index": index, "generation": superblock["generation"], "entries": table[index]}
            for index in range(superblock["table_length"])
        ]
        self.dump.write_text(json.dumps(dump), encoding="ascii")

    @staticmethod
    def _metadata(superblock):
        """Where superblocks and table lie: first byte, bytes, one after the other."""
        segment = superblock["segments"][0]
        places = []
        for sector in superblock["superblock_sectors"]:
            places += [sector * SECTOR, SB_SECTORS * SECTOR]
        for start in segment["table_start"][: segment["copies"]]:
            places += [start * SECTOR, superblock["table_length"] * TABLE_BLOCK]
        return places


class Thin:
    """A thin pool's metadata with so many mappings of single blocks, if its tools are there."""

    def __init__(self, folder: Path, entries: int):
        self.there = shutil.which("thin_check") is not None
        self.size = max(16 * MIB, entries * 256)
        self.image = folder / f"thin-{entries}.img"
        self.xml = folder / f"thin-{entries}.xml"
        if not self.there:
            print("thin-provisioning-tools is not installed: nothing to compare with", file=sys.stderr)
            return
        dice = random.Random(2)
        data = list(range(entries))
        dice.shuffle(data)
        with open(self.xml, "w", encoding="ascii") as file:
            file.write(
                f'<superblock uuid="" time="0" transaction="1" version="2" data_block_size="128" nr_data_blocks="{entries}">\n'
                f'<device dev_id="1" mapped_blocks="{entries}" transaction="0" creation_time="0" snap_time="0">\n'
            )
            for origin, block in zip(sorted(scattered(entries, MAIN // BLOCK)), data):
                file.write(f'<single_mapping origin_block="{origin}" data_block="{block}" time="0"/>\n')
            file.write("</device>\n</superblock>\n")
        sparse(self.image, self.size)
        run("thin_restore", "-i", self.xml, "-o", self.image)


class Bench:
    """Makes what is measured when it is first needed."""

    def __init__(self, entries: int, runs: int):
        self.entries, self.runs = entries, runs
        self._made = {}

    def _make(self, kind, folder: Path, entries: int):
        key = kind, entries
        if key not in self._made:
            # beside the folder of the measurement that came first
            place = folder.parent
            place.mkdir(parents=True, exist_ok=True)
            self._made[key] = kind(place, entries)
        return self._made[key]

    def _command(self, folder: Path, *command, fresh="-", size=0) -> Cost:
        output = folder.parent / "output"
        return measured(self.runs, output, fresh, size, *command)

    def check(self, folder: Path, _series, take):
        """remap-fsck -n, against zlib alone and against thin_check."""
        ours = self._make(Set, folder, self.entries)
        thin = self._make(Thin, folder, self.entries)
        cost = self._command(folder, tool("remap-fsck"), "-n", ours.spare)
        crc = measured(self.runs, "crc", ours.spare, *ours.metadata)
        what = f"remap-fsck -n, {self.entries:,} entries: "
        take(what + "CPU", cost.cpu, "ms", bar=80)
        take(what + "wall", cost.wall, "ms")
        take(what + "peak RSS", cost.rss, "MiB", bar=32)
        take("  reading and CRC-ing the same bytes: CPU", crc.cpu, "ms")
        take("  remap-fsck's CPU over that", cost.cpu / crc.cpu, "times", bar=4)
        if thin.there:
            beside(take, "remap-fsck", cost, "thin_check", self._command(folder, "thin_check", thin.image))

    def few(self, folder: Path, _series, take):
        """What it costs to start at all."""
        ours = self._make(Set, folder, FEW)
        cost = self._command(folder, tool("remap-fsck"), "-n", ours.spare)
        take(f"remap-fsck -n, {FEW} entries: wall", cost.wall, "ms", bar=10)
        take(f"remap-fsck -n, {FEW} entries: CPU", cost.cpu, "ms")
        thin = self._make(Thin, folder, FEW)
        if thin.there:
            beside(take, "remap-fsck", cost, "thin_check", self._command(folder, "thin_check", thin.image))

    def dump(self, folder: Path, _series, take):
        """remap-dump export to a file."""
        ours = self._make(Set, folder, self.entries)
        thin = self._make(Thin, folder, self.entries)
        cost = self._command(folder, tool("remap-dump"), "export", "--format", "json", ours.spare)
        lines = (folder.parent / "output").read_bytes().count(b'\n{"slot"')
        if lines != ours.entries:
            raise VmError(f"remap-dump export: expected {ours.entries} lines with an entry, found {lines}")
        what = f"remap-dump export --format json, {self.entries:,} entries: "
        take(what + "wall", cost.wall, "ms", bar=600)
        take(what + "CPU", cost.cpu, "ms")
        take(what + "peak RSS", cost.rss, "MiB", bar=64)
        if thin.there:
            beside(take, "remap-dump export", cost, "thin_dump", self._command(folder, "thin_dump", thin.image))

    def restore(self, folder: Path, _series, take):
        """remap-dump restore onto an empty image."""
        ours = self._make(Set, folder, self.entries)
        thin = self._make(Thin, folder, self.entries)
        target = folder.parent / "target.img"
        command = partial(self._command, folder, fresh=target)
        cost = command(
            tool("remap-dump"), "restore", "--yes", "--slots-in-place", ours.dump, target, size=ours.size
        )
        what = f"remap-dump restore, {self.entries:,} entries: "
        take(what + "wall", cost.wall, "ms", bar=2000)
        take(what + "CPU", cost.cpu, "ms")
        take(what + "peak RSS", cost.rss, "MiB", bar=64)
        if thin.there:
            other = command("thin_restore", "-i", thin.xml, "-o", target, size=thin.size)
            beside(take, "remap-dump restore", cost, "thin_restore", other)


def beside(take, our_name, ours: Cost, their_name, theirs: Cost):
    """Theirs, and ours over theirs."""
    take(f"  {their_name}: CPU", theirs.cpu, "ms")
    take(f"  {their_name}: wall", theirs.wall, "ms")
    take(f"  {their_name}: peak RSS", theirs.rss, "MiB")
    take(f"  {our_name} over {their_name}: CPU", ours.cpu / max(theirs.cpu, 0.001), "times")
    take(f"  {our_name} over {their_name}: wall", ours.wall / theirs.wall, "times")
    take(f"  {our_name} over {their_name}: peak RSS", ours.rss / theirs.rss, "times")


def measurements(entries: int, runs):
    """The measurements by name; `runs` of each, or RUNS."""
    bench = Bench(entries, runs or RUNS)
    return {"check": bench.check, "few": bench.few, "export": bench.dump, "restore": bench.restore}
