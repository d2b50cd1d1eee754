# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel target's figures: instructions per I/O and per loaded entry, memory, reads of a load, flushes of a burst.

Instructions are counted by QEMU: with -icount shift=0 the guest's time-stamp counter is the number of instructions executed. Devices
that finish their I/O within the submission (null_blk with irqmode=0) leave nothing but our own work, the block layer's and the
device's in it, and dm-linear on the same device beside it takes the latter two away.
"""

import contextlib
import random
import re
from array import array
from dataclasses import dataclass

from . import initramfs, kernels
from .bench_sets import Filler, scattered
from .disk import Disk
from .errors import VmError
from .sets import format_set
from .vm import VM

READS = 5_000
IO_BYTES = 4096
TRACED_READS = 2_000
MAIN_MIB = 1 << 20  # 1 TiB
MIB = 1 << 20
MILLION = 1_000_000
BURST_MIB = 391  # of 4 KiB blocks: 100,096
TRACING = "/sys/kernel/tracing"

# As the harness's own kernel command line, but nothing that costs instructions or memory. With sleep=off the guest's clock
# races ahead whenever it is idle, so nothing may be judged by it.
QUIET_KERNEL = (
    "loglevel=5 panic=-1 oops=panic mitigations=off no_timer_check tsc=reliable sysctl.kernel.hung_task_timeout_secs=0 "
    "remapvm.modules=virtio_pci,virtio_console,virtio_blk"
)
# rep movsb is one instruction to a processor, but one for each byte to QEMU's count; without erms the kernel copies by words.
EXACT = ["-icount", "shift=0,sleep=off", "-cpu", "max,-erms"]


@dataclass(frozen=True)
class SetKind:
    """A set to measure."""

    name: str
    entries: int
    block: int = 4096
    run: int = 1
    bare: bool = True

    @property
    def spare_mib(self) -> int:
        """Room for the entries, the hidden blocks, and two copies of the table."""
        return 16 + (self.entries + 1000) * (self.block + 48) // MIB

    @property
    def text(self) -> str:
        """For the table of figures."""
        how = f"runs of {self.run}" if self.run > 1 else "scattered"
        return f"{self.entries:,} {how}, {self.block}-byte blocks"


EMPTY = SetKind("empty", 0)
ADOPTED = (SetKind("thousand", 1_000, bare=False), SetKind("million", MILLION, bare=False))
LOADED = (
    SetKind("scattered", MILLION),
    SetKind("runs", MILLION, run=64),
    SetKind("sectors", MILLION, block=512),
    SetKind("sector_runs", MILLION, block=512, run=64),
)


class Set:
    """A set on images of the host, and where its entries are."""

    def __init__(self, kind: SetKind, folder):
        self.kind = kind
        self.main = Disk(folder / f"{kind.name}.main", f"{kind.name}_main", f"{MAIN_MIB}M", block=kind.block)
        self.spare = Disk(folder / f"{kind.name}.spare", f"{kind.name}_spare", f"{kind.spare_mib}M", block=kind.block)
        format_set(self.main, self.spare, *(["--bare"] if kind.bare else []))
        filler = Filler(self.spare)
        taken = filler.taken()
        blocks = scattered(kind.entries, filler.main_blocks, kind.run, taken)
        self.placed = filler.add(blocks) if blocks else []
        self.mapped = {*blocks, *taken}
        self.blocks = filler.main_blocks
        self.slot_sector = filler.spare.slot_sector
        self.metadata = list(filler.metadata())
        self.tables = [(start * 512, filler.spare.table_length * 4096) for start in filler.spare.tables]
        self.hidden = [] if kind.bare else list(filler.hidden_places())

    def misses(self):
        """Byte offsets of 4 KiB reads that meet no mapped block."""
        dice = random.Random(2)
        count = IO_BYTES // self.kind.block
        found = []
        while len(found) < READS:
            block = dice.randrange(self.blocks // count) * count
            if not self.mapped.intersection(range(block, block + count)):
                found.append(block * self.kind.block)
        return found

    def hits(self):
        """Byte offsets of mapped blocks, on the main and on the spare."""
        chosen = random.Random(3).choices(self.placed, k=READS)
        size = self.kind.block
        return [block * size for block, _ in chosen], [self.slot_sector(slot) * 512 for _, slot in chosen]


class Guest:
    """A machine with null_blk, device-mapper and tracing at hand."""

    def __init__(self, folder, series: str, disks, exact: bool):
        kernel = kernels.find(series)
        folder.mkdir(parents=True, exist_ok=True)
        root = folder / "bench.initramfs"
        root.write_bytes(initramfs.build(kernel, True, {"/usr/bin/iocost": initramfs.guest_program("iocost")}))
        self.vm = VM(
            disks, folder, "bench", kernel.image(), root, QUIET_KERNEL, memory="2G", qemu_args=EXACT if exact else []
        )
        self.vm.run(
            "modprobe configfs; mount -t configfs configfs /sys/kernel/config; modprobe null_blk nr_devices=0; modprobe dm-remap; "
            f"mount -t tracefs tracefs {TRACING}; modprobe dm-flakey"
        )

    def null_disk(self, name: str, mib: int, block: int, backed: bool, cache_mib=0) -> str:
        """A null_blk disk that finishes each request as it is submitted; `backed` ones remember what is written."""
        place = f"/sys/kernel/config/nullb/{name}"
        settings = {
            "size": mib,
            "blocksize": block,
            "memory_backed": int(backed),
            "cache_size": cache_mib,
            "irqmode": 0,
            "queue_mode": 2,
            "power": 1,
        }
        lines = "; ".join(f"echo {value} >{place}/{key}" for key, value in settings.items())
        self.vm.run(f"set -e; mkdir {place}; {lines}; echo none >/sys/block/{name}/queue/scheduler")
        return f"/dev/{name}"

    def remove_null_disk(self, name: str):
        """Give the memory of a null disk back."""
        self.vm.run(f"echo 0 >/sys/kernel/config/nullb/{name}/power; rmdir /sys/kernel/config/nullb/{name}")

    def copy(self, source, target: str, places):
        """Copy these places (first byte, bytes) of a disk to the same places of another."""
        options = "bs=1M conv=notrunc status=none iflag=direct,skip_bytes,count_bytes oflag=direct,seek_bytes"
        for start, size in places:
            self.vm.run(f"dd if={{source}} of={target} {options} skip={start} seek={start} count={size}", source=source)

    def cost(self, what: str, *requests):
        """Mean instructions of 4 KiB reads or writes for each (device, offsets), those hit by an interrupt left out."""
        devices, offsets = zip(*requests)
        merged = array("Q", (offset for row in zip(*offsets) for offset in row))
        done = self.vm.run(["iocost", what, str(IO_BYTES), *devices], stdin=merged.tobytes(), timeout=300)
        figures = [dict(pair.split("=") for pair in line.split()) for line in done.lines]
        if any(int(found["clean"]) < 0.98 * int(found["requests"]) for found in figures):
            raise VmError(f"these requests cost too different amounts:\n{done}")
        return [float(found["mean"]) for found in figures]

    def ticks(self, command) -> int:
        """Instructions of a whole command."""
        done = self.vm.run(["iocost", "run", *command], timeout=300).stdout
        return int(done.split("ticks=")[1].split()[0])

    @contextlib.contextmanager
    def histogram(self, event: str, keys: str, condition=""):
        """Counts events by keys while the block runs; yields a dict {text of the keys: count}, filled in at its end."""
        trigger = f"hist:keys={keys}:size=4096" + (f" if {condition}" if condition else "")
        place = f"{TRACING}/events/{event}"
        counts = {}
        self.vm.run(f"echo '{trigger}' >{place}/trigger")
        yield counts
        text = self.vm.run(f"cat {place}/hist; echo '!{trigger}' >{place}/trigger").stdout
        for key, count in re.findall(r"^\{ (.*?) \} hitcount: +(\d+)", text, re.M):
            counts[" ".join(key.split())] = int(count)


def free_memory(vm) -> int:
    """Bytes, with caches dropped; what the processor has on its own list of free pages is free as well (up to tens of MiB)."""
    text = vm.run("echo 3 >/proc/sys/vm/drop_caches; sleep 1; cat /proc/meminfo /proc/zoneinfo").stdout
    listed = sum(int(count) for count in re.findall(r"^ +count: +(\d+)", text, re.M))
    return int(re.search(r"MemFree: +(\d+) kB", text)[1]) * 1024 + listed * 4096


def _number(vm, device: str) -> str:
    """The device number as the block layer's trace events have it, for a filter."""
    name = vm.run(f"readlink -f {device}").stdout.strip().rpartition("/")[2]
    major, minor = vm.run(f"cat /sys/block/{name}/dev").stdout.strip().split(":")
    return str(int(major) << 20 | int(minor))


def _expect_mapped(vm, count: int):
    """So many blocks must be mapped: field 4 of the status line."""
    line = vm.run("dmsetup status remap").stdout
    if line.split()[6] != str(count):
        raise VmError(f"{count} blocks were to be mapped: {line}")


@contextlib.contextmanager
def _mapped(vm, name: str, table: str):
    vm.run(["dmsetup", "create", name, "--table", table])
    yield f"/dev/mapper/{name}"
    vm.run(["dmsetup", "remove", name])


def _sectors(mib: int) -> int:
    return mib * 2048


class SetInGuest:
    """A set's devices in the guest, the main and the spare being null disks."""

    def __init__(self, guest: Guest, made: Set):
        kind = made.kind
        self.guest, self.vm, self.set = guest, guest.vm, made
        self.main = guest.null_disk(f"{kind.name}_main", MAIN_MIB, kind.block, backed=not kind.bare)
        self.spare = guest.null_disk(f"{kind.name}_spare", kind.spare_mib, kind.block, backed=True)
        guest.copy(made.spare, self.spare, made.metadata)
        if made.hidden:
            guest.copy(made.main, self.main, made.hidden)
        self.table = f"0 {_sectors(MAIN_MIB)} remap {self.main} {self.spare} 0"

    def remapped(self):
        """The remap device, for a `with` block."""
        return _mapped(self.vm, "remap", self.table)

    def linear(self, device: str, mib: int):
        """dm-linear over one of the two, for a `with` block."""
        return _mapped(self.vm, "linear", f"0 {_sectors(mib)} linear {device} 0")

    def close(self):
        """Give the memory back."""
        for member in ("main", "spare"):
            self.guest.remove_null_disk(f"{self.set.kind.name}_{member}")


def _cost_of_miss(at: SetInGuest, remap: str, take, bar):
    offsets = at.set.misses()
    with at.linear(at.main, MAIN_MIB) as linear:
        base, cost = at.guest.cost("read", (linear, offsets), (remap, offsets))
    what = f"adopted, {at.set.kind.text}" if at.set.kind.entries else "bare, empty"
    take(f"miss: {what}: over dm-linear", cost - base, "instructions", bar)
    take("      dm-linear with the device below it", base, "instructions")
    if not at.set.kind.entries:
        with at.linear(at.main, MAIN_MIB) as linear:
            base, cost = at.guest.cost("write", (linear, offsets), (remap, offsets))
        take(f"write: {what}: over dm-linear", cost - base, "instructions")


def _allocations(guest: Guest, device: str, offsets) -> int:
    """Allocations that reading makes, those of starting and ending a program among them."""
    events = ("kmem/kmalloc", "kmem/kmem_cache_alloc", "kmem/mm_page_alloc")
    with contextlib.ExitStack() as stack:
        counts = [stack.enter_context(guest.histogram(event, "common_pid.execname")) for event in events]
        guest.cost("read", (device, offsets))
    return sum(count for found in counts for key, count in found.items() if "iocost" in key)


def _cost_of_hit(at: SetInGuest, remap: str, take):
    on_main, on_spare = at.set.hits()
    with at.linear(at.spare, at.set.kind.spare_mib) as linear:
        base, cost = at.guest.cost("read", (linear, on_spare), (remap, on_main))
        more = _allocations(at.guest, remap, on_main[:TRACED_READS]) - _allocations(at.guest, linear, on_spare[:TRACED_READS])
    with at.guest.histogram("workqueue/workqueue_execute_start", "function.sym") as works:
        at.guest.cost("read", (remap, on_main[:TRACED_READS]))
    take(f"hit: adopted, {at.set.kind.text}: over dm-linear", cost - base, "instructions", 400)
    take("     allocations per read more than dm-linear's", round(more / TRACED_READS, 2), "", 0)
    take(f"     runs of the worker in {TRACED_READS:,} reads", _ours(works), "", 0)


def _ours(works) -> int:
    """Runs of work that is the module's, in a histogram by function."""
    return sum(count for function, count in works.items() if "dm_remap" in function)


def _cost_of_load(at: SetInGuest, take):
    entries = at.set.kind.entries
    before = free_memory(at.vm)
    ticks = at.guest.ticks(["dmsetup", "create", "remap", "--table", at.table])
    used = before - free_memory(at.vm)
    _expect_mapped(at.vm, len(at.set.mapped))
    at.vm.run("dmsetup remove remap")
    text = at.set.kind.text
    take(f"load, per entry: {text}", ticks / entries, "instructions", 500)
    take(f"memory, per entry: {text}", used / entries, "bytes", 24 if at.set.kind.run > 1 else 40)


def _reads_of_load(at: SetInGuest, take):
    """How the table is read while a set is loaded; the last read of each copy, which ends where the table does, does not count."""
    requests = {}
    device = _number(at.vm, at.spare)
    with contextlib.ExitStack() as stack:
        for event in ("block_bio_queue", "block_rq_issue"):
            requests[event] = stack.enter_context(
                at.guest.histogram(f"block/{event}", "sector,nr_sector", f"dev == {device}")
            )
        with at.remapped():
            pass
    sizes = {event: list(_sizes(found, at.set.tables)) for event, found in requests.items()}
    take("load: smallest read of the table", min(sizes["block_bio_queue"]), "bytes", MIB, at_least=True)
    take("      mean size as the device gets them", sum(sizes["block_rq_issue"]) / len(sizes["block_rq_issue"]), "bytes")


def _sizes(requests, tables):
    """Bytes of the requests within the tables but for their ends."""
    for key in requests:
        sector, sectors = (int(number) for number in re.findall(r"\d+", key))
        if any(start <= sector * 512 and (sector + sectors) * 512 < start + size for start, size in tables):
            yield sectors * 512


def _measure(folder, series: str, kinds, measurement):
    """Make these sets, boot a machine that counts instructions, and call the measurement for each of them there."""
    folder.mkdir(parents=True)
    sets = [Set(kind, folder) for kind in kinds]
    disks = [disk for made in sets for disk in ((made.spare,) if made.kind.bare else (made.main, made.spare))]
    guest = Guest(folder, series, disks, exact=True)
    try:
        for made in sets:
            at = SetInGuest(guest, made)
            measurement(at)
            at.close()
    finally:
        guest.vm.power_cut()


def reads(folder, series: str, take):
    """What a read costs over dm-linear: of an empty set, beside remapped blocks, of remapped blocks."""

    def measurement(at):
        with at.remapped() as remap:
            _cost_of_miss(at, remap, take, 70 if at.set.kind.entries else 40)
            if at.set.kind.entries:
                _cost_of_hit(at, remap, take)

    _measure(folder, series, (EMPTY, *ADOPTED), measurement)


def load(folder, series: str, take):
    """What loading a million entries costs, the memory they take, and how the table is read."""

    def measurement(at):
        _cost_of_load(at, take)
        if at.set.kind is LOADED[0]:
            _reads_of_load(at, take)

    _measure(folder, series, LOADED, measurement)


def burst(folder, series: str, take):
    """Flushes of the spare while a long run of bad blocks is written."""
    folder.mkdir(parents=True)
    kind = SetKind("burst", BURST_MIB * 256)
    spares = {}
    for mode in ("1 MiB O_DIRECT", "buffered"):
        for fua in (True, False):
            name = f"spare{len(spares)}"
            main = Disk(folder / f"{name}.main", "main", "1G", block=4096)
            spare = Disk(folder / name, name, f"{kind.spare_mib}M", block=4096)
            format_set(main, spare, "--bare")
            spares[mode, fua] = spare
    guest = Guest(folder, series, spares.values(), exact=False)
    try:
        main = guest.null_disk("burst_main", 1024, 4096, backed=False)
        for (mode, fua), spare in spares.items():
            device = guest.vm.dev(spare)
            if fua:
                device = guest.null_disk(spare.name, kind.spare_mib, 4096, backed=True, cache_mib=32)
                guest.copy(spare, device, Filler(spare).metadata())
            _burst(guest, take, main, device, mode, fua)
            if fua:
                guest.remove_null_disk(spare.name)
    finally:
        guest.vm.power_cut()


def _burst(guest, take, main, spare, mode, fua):
    vm = guest.vm
    blocks = BURST_MIB * 256
    size = _sectors(1024)
    failing = f"0 {size} flakey {main} 0 0 3600 1 error_writes"
    words = ["iocost", "fill", "/dev/mapper/remap", str(MIB), "0", str(BURST_MIB)]
    with _mapped(vm, "failing", failing) as bad, _mapped(vm, "remap", f"0 {size} remap {bad} {spare} 0"):
        with contextlib.ExitStack() as stack:
            issued = stack.enter_context(
                guest.histogram("block/block_rq_issue", "rwbs", f"dev == {_number(vm, spare)}")
            )
            works = stack.enter_context(guest.histogram("workqueue/workqueue_execute_start", "function.sym"))
            vm.run([*words, "buffered"] if mode == "buffered" else words, timeout=600)
        _expect_mapped(vm, blocks)
    runs = _ours(works)
    if not runs:
        raise VmError("the worker's runs are not seen in the trace")
    flushes = sum(count for kind, count in issued.items() if kind.removeprefix("rwbs:").strip().startswith("F"))
    drive = "with FUA" if fua else "without FUA"
    take(f"burst: {blocks:,} bad blocks, {mode}, spare {drive}: flushes", 250 * flushes / blocks, "per 250 remaps", 1)
    take(f"       requests to the spare ({runs:,} runs of the worker)", sum(issued.values()) / blocks, "per remap")


MEASUREMENTS = {"reads": reads, "load": load, "burst": burst}
