# SPDX-License-Identifier: GPL-2.0-or-later
"""Every memory allocation of the target fails once, alone: what must work goes on working, what cannot says so.

That nothing is lost, used after it was freed or locked twice on the way is what the kernel under test watches itself.
"""

from dataclasses import dataclass

import pytest
from remapvm.initramfs import guest_program
from remapvm.sets import format_set, open_set, status, table

pytestmark = [pytest.mark.vm, pytest.mark.only_on("uml")]

BAD = range(8192, 24576)
OLD, NEW = 1, 2

# Without these only allocations that cannot wait would fail, and none of single pages.
_PREPARE = """
    [ -e /sys/kernel/debug/failslab ] || mount -t debugfs debugfs /sys/kernel/debug
    cd /sys/kernel/debug || exit 1
    for kind in failslab fail_page_alloc; do
        echo 0 >$kind/verbose && echo N >$kind/ignore-gfp-wait || exit 1
    done
    echo N >fail_page_alloc/ignore-gfp-highmem && echo 0 >fail_page_alloc/min-order
"""


@dataclass
class Run:
    """One run of failnth: its sector or block, whether an allocation failed in it, "ok" or the name of an error."""

    number: int
    failed: bool
    result: str


@pytest.fixture(name="vm")
def machine(boot, disk):
    """A machine with a set, all of it written with OLD, and a disk "source" with NEW. Its main can be made bad later."""
    main, spare, source = disk("main", "32M"), disk("spare", "16M"), disk("source", "32M")
    format_set(main, spare, "--bare")
    vm = boot(main, spare, source, files={"/usr/bin/failnth": guest_program("failnth")})
    vm.run(_PREPARE)
    # that a cache or a large allocation could not be made is reported with a call trace; SLUB, when it has no memory for
    # a cache's lists, says EINVAL
    vm.expect_kernel_message(r"page allocation failure|vmalloc error|kmem_cache_create_usercopy.* failed with error -(12|22)$")
    assert vm.blkio("write", source, bs=65536, seed=NEW).ok
    assert vm.blkio("write", open_set(vm), bs=65536, seed=OLD).ok
    return vm


def fail_each(vm, *words, errors=("ENOMEM",)):
    """The runs of failnth: all allocations have failed, the last run is one in which none did."""
    words = ["failnth", *map(str, words)]
    lines = vm.run(words, timeout=400).lines
    runs = [Run(int(number), state == "failed", result) for _, _, number, state, result in map(str.split, lines)]
    assert [run.failed for run in runs] == [True] * (len(runs) - 1) + [False]
    assert runs[-1].result == "ok"
    assert len(runs) > 1
    assert {run.result for run in runs} <= {"ok", *errors}
    spared = sum(run.result == "ok" for run in runs[:-1])
    print(f"{' '.join(words)}: {len(runs) - 1} allocations, {spared} could be done without")
    return runs


def reopen(vm):
    vm.run("dmsetup remove r0")
    return open_set(vm)


def healthy(vm):
    now = status(vm)
    return (now.health, now.mode, now.copies, now.lost, now.doubt) == ("ok", "rw", "2/2", 0, 0)


def test_the_constructor(vm):
    line = table(vm)
    vm.run("dmsetup remove r0 && dmsetup create r0 --notable")
    _, sectors, kind, parameters = line.split(maxsplit=3)
    fail_each(vm, "load", "r0", sectors, kind, parameters)
    device = reopen(vm)
    assert vm.blkio("verify", device, bs=65536, seed=OLD).ok
    assert healthy(vm)


def test_loading_the_table(vm):
    assert vm.run("dmsetup message r0 0 remap 1000 2000").exit == 0
    vm.push(table(vm).encode(), "/tmp/table")
    fail_each(vm, "--before", "dmsetup load r0 /tmp/table", "resume", "r0")
    assert vm.blkio("verify", "/dev/mapper/r0", bs=65536, seed=OLD).ok
    assert status(vm).mapped == 2000
    assert vm.blkio("verify", reopen(vm), bs=65536, seed=OLD).ok
    assert healthy(vm)


@pytest.mark.parametrize(
    ("message", "who"),
    [
        ("remap @ 3", "caller"),
        ("remap @ 3", "worker"),
        ("forget @ 3", "caller"),
        ("forget @ 3", "worker"),
        ("check", "caller"),
        ("list 0 100", "caller"),
        ("reset_stats", "caller"),
    ],
)
def test_messages(vm, message, who):
    first = 4096
    if not message.startswith("remap"):
        vm.run(f"dmsetup message r0 0 remap {first} 3072")
    before = status(vm).mapped
    options = ["--workers"] if who == "worker" else []
    runs = fail_each(vm, *options, "--from", first, "--step", 3, "message", "r0", message, errors=("ENOMEM", "EIO"))
    done = 3 * sum(run.result == "ok" for run in runs)
    most = 3 * len(runs)
    if message.startswith("remap"):
        assert done <= status(vm).mapped <= most
    elif message.startswith("forget"):
        assert before - most <= status(vm).mapped <= before - done
    else:
        assert status(vm).mapped == before
    assert vm.blkio("verify", "/dev/mapper/r0", bs=4096, seed=OLD).ok
    assert vm.blkio("verify", reopen(vm), bs=4096, seed=OLD).ok
    assert healthy(vm)


def test_check_needs_no_memory_in_the_worker(vm):
    vm.run("dmsetup message r0 0 remap 4096 1024", timeout=120)
    assert vm.run("failnth --workers message r0 check").lines == ["run 1 0 spared ok"]


@pytest.mark.parametrize("who", ["caller", "worker"])
@pytest.mark.parametrize("first", ["a write", "the first write"])
def test_writes_that_fail(vm, who, first):
    vm.set_faults(vm.disks["main"], bad_write=BAD)
    options = ["--workers"] if who == "worker" else []
    if first == "the first write":
        vm.push(table(vm).encode(), "/tmp/table")
        options += ["--before", "dmsetup load r0 /tmp/table && dmsetup suspend r0 && dmsetup resume r0"]
    words = [*options, "--from", BAD[0], "write", "/dev/mapper/r0", vm.dev("source"), 8]
    runs = fail_each(vm, *words, errors=("ENOMEM", "EIO"))
    kept = [sector for run in runs if run.result == "ok" for sector in range(run.number, run.number + 8)]
    others = [sector for run in runs if run.result != "ok" for sector in range(run.number, run.number + 8)]
    assert vm.blkio("verify", "/dev/mapper/r0", kept, seed=NEW).ok
    device = reopen(vm)
    assert vm.blkio("verify", device, kept, seed=NEW).ok
    if others:
        assert vm.blkio("verify", device, others, seed=(OLD, NEW)).ok
    assert vm.blkio("verify", device, f"{runs[-1].number + 8}-{BAD[-1]}", seed=OLD).ok
    assert healthy(vm)
