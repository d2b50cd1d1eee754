# SPDX-License-Identifier: GPL-2.0-or-later
"""Races on two processors. scripts/test --long runs them on a kernel that watches itself; they run on any other as well."""

import random

import pytest
from remapvm.sets import Spare, format_set, open_set, status, table

pytestmark = [pytest.mark.vm, pytest.mark.long]

BAD = range(8192, 8192 + 1200)
DEVICE = "/dev/mapper/r0"
TIMEOUT = 900


@pytest.fixture(name="machine")
def two_processors(boot, disk):
    """A machine of two processors with a set whose main does not take writes to BAD; and its main and spare."""
    main, spare = disk("main", "32M", bad_write=BAD), disk("spare", "8M")
    format_set(main, spare, "--bare")
    vm = boot(main, spare, smp=2)
    open_set(vm)
    vm.push(table(vm).encode(), "/tmp/table")
    return vm, main, spare


def start_writers(vm, sectors, seeds, **options):
    return [vm.start_blkio("write", DEVICE, sectors, seed=seed, **options) for seed in seeds]


def all_well(processes):
    return [process.wait(TIMEOUT).exit for process in processes] == [0] * len(processes)


def close_and_check(vm, spare, blocks):
    """Both copies of the table have each of the blocks, once, and so they are read after the device was made anew."""
    vm.run("dmsetup remove r0")
    for copy in range(2):
        entries = [block for state, block, _ in Spare(spare).entries(copy).values() if state == "mapped"]
        assert sorted(entries) == sorted(blocks)
    open_set(vm)


def test_many_errors_on_one_block_at_a_time_make_one_remap(machine):
    vm, _, spare = machine
    seeds = (1, 2, 3, 4)
    assert all_well(start_writers(vm, BAD[:300], seeds, threads=2))
    assert status(vm).mapped == 300
    assert vm.blkio("verify", DEVICE, BAD[:300], seed=seeds).ok
    close_and_check(vm, spare, BAD[:300])
    assert vm.blkio("verify", DEVICE, BAD[:300], seed=seeds).ok


def test_two_writers_and_a_reader_of_one_block(machine):
    vm, _, spare = machine
    block = BAD[5]
    assert vm.blkio("write", DEVICE, [block], seed=1).ok
    writers = start_writers(vm, [block] * 400, (1, 2), fua=True)
    reader = vm.start_blkio("verify", DEVICE, [block] * 400, seed=(1, 2))
    assert all_well([*writers, reader])
    close_and_check(vm, spare, [block])
    assert vm.blkio("verify", DEVICE, [block], seed=(1, 2)).ok


@pytest.mark.parametrize("how", ["", "--noflush --nolockfs"])
def test_errors_while_the_device_is_suspended(machine, how):
    vm, _, spare = machine
    writers = start_writers(vm, BAD[:600], (1,), threads=4) + start_writers(vm, BAD[600:], (1,), threads=4)
    vm.run(f"for i in $(seq 30); do dmsetup suspend {how} r0 && sleep 0.02 && dmsetup resume r0 || exit 1; done", TIMEOUT)
    assert all_well(writers)
    assert status(vm).mapped == len(BAD)
    close_and_check(vm, spare, BAD)
    assert vm.blkio("verify", DEVICE, BAD, seed=1).ok


def test_the_table_is_reloaded_under_load(machine):
    vm, _, spare = machine
    writers = start_writers(vm, f"{BAD[0] - 512}-{BAD[-1]}", (1,), threads=4)
    reader = vm.start_blkio("verify", DEVICE, "0+6000", seed=0, threads=2)
    vm.run("for i in $(seq 30); do dmsetup load r0 /tmp/table && dmsetup resume r0 || exit 1; done", TIMEOUT)
    assert all_well([*writers, reader])
    close_and_check(vm, spare, BAD)
    assert vm.blkio("verify", DEVICE, BAD, seed=1).ok


def test_the_device_goes_while_it_commits(machine):
    vm, _, spare = machine
    rng = random.Random(3)
    acked = set()
    for number in range(20):
        writer = vm.start_blkio("write", DEVICE, BAD[number * 60 : number * 60 + 60], seed=1, threads=4, ack=True)
        # its table is replaced by errors at once; it goes when the writer has
        vm.run(f"sleep {rng.uniform(0, 0.2):.2f}; dmsetup remove --force r0 2>/dev/null || dmsetup remove --deferred r0")
        result = writer.wait(TIMEOUT)
        lines = [line.split() for line in result.lines if line.startswith("ok ")]
        acked.update(sector for _, first, count in lines for sector in range(int(first), int(first) + int(count)))
        vm.run("while dmsetup info r0 >/dev/null 2>&1; do sleep 0.05; done")
        open_set(vm)
    assert acked
    assert vm.blkio("verify", DEVICE, sorted(acked), seed=1).ok
    assert vm.blkio("verify", DEVICE, BAD, seed=(0, 1)).ok
    assert set(Spare(spare).mapped()) >= acked


def test_messages_against_writers_and_readers(machine):
    vm, _, _ = machine
    first, count = BAD[0] - 600, 1200  # half of them bad
    assert vm.blkio("write", DEVICE, f"{first}+{count}", seed=1, threads=4).ok
    moves = f"""
        for i in $(seq 25); do
            at=$(({first} + i * 23))
            dmsetup message r0 0 remap $at 40 || exit 1
            dmsetup message r0 0 list 0 20 >/dev/null || exit 2
            dmsetup message r0 0 forget $at 17 2>/dev/null || [ $at -gt {BAD[0] - 17} ] || exit 3
        done
    """
    checks = "for i in $(seq 25); do [ \"$(dmsetup message r0 0 check)\" = ok ] || exit 1; done"
    busy = [vm.start(moves), vm.start(checks)]
    for seed in (2, 3, 4):
        writer = vm.start_blkio("write", DEVICE, f"{first}+{count}", seed=seed, threads=4)
        reader = vm.start_blkio("verify", DEVICE, f"{first}+{count}", seed=(seed - 1, seed), threads=2)
        assert all_well([writer, reader])
    assert all_well(busy)
    assert vm.blkio("verify", DEVICE, f"{first}+{count}", seed=4).ok
    vm.run("dmsetup remove r0")
    open_set(vm)
    assert vm.blkio("verify", DEVICE, f"{first}+{count}", seed=4).ok
    assert status(vm).doubt == status(vm).lost == 0


def test_1000_devices_come_and_go_while_remaps_happen(machine):
    vm, _, spare = machine
    rng = random.Random(7)
    written = [rng.sample(BAD, 6) for _ in range(1000)]
    vm.push("".join(",".join(map(str, sectors)) + "\n" for sectors in written).encode(), "/tmp/written")
    vm.run("dmsetup remove r0")
    assert vm.run("comeandgo r0 /tmp/table </tmp/written", timeout=4 * TIMEOUT).stdout == "done lives=1000\n"
    vm.run("rmmod dm-remap && modprobe dm-remap")
    mapped = sorted(Spare(spare).mapped())
    assert mapped == sorted(set().union(*written))
    open_set(vm)
    assert vm.blkio("verify", DEVICE, mapped, seed=1).ok
