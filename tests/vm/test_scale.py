# SPDX-License-Identifier: GPL-2.0-or-later
"""A million remaps, each made by a write that failed."""

import time

import pytest
from remapvm.bench_kernel import free_memory
from remapvm.sets import Spare, format_set, open_set, status, tool

pytestmark = [pytest.mark.vm, pytest.mark.long]

MILLION = 1_000_000
ENTRIES = 252  # of a table block
REQUEST = 1 << 20


@pytest.mark.kernels("6.1", "6.12")
def test_a_million_remaps_are_made_reloaded_and_read_back(boot, disk, record_property, capsys):
    # Of each request of 2048 sectors the search tests 256; the rest goes to slots untested.
    main, spare = disk("main", "500M", fail_write=True), disk("spare", "600M")
    format_set(main, spare, "--bare")
    vm = boot(main, spare, memory="1G")
    device = open_set(vm)
    started = time.monotonic()
    assert vm.blkio("write", device, f"0+{MILLION}", seed=7, bs=REQUEST, timeout=1800).ok
    made = time.monotonic() - started
    now = status(vm)
    assert (now.mapped, now.remapped, now.lost, now.bad, now.failed, now.doubt) == (MILLION, MILLION, 0, 0, 0, 0)
    assert now.health == "low-space" and now.mode == "rw"
    vm.power_cut()

    assert not any(main.read(0, MILLION * 512)), "the main took a write that was to fail"
    copies = [Spare(spare).entries(copy) for copy in (0, 1)]
    assert copies[0] == copies[1]
    assert {block for state, block, _ in copies[0].values() if state == "mapped"} == set(range(MILLION))
    assert len(copies[0]) == MILLION
    assert tool("remap-fsck", "-n", spare, check=False).returncode == 0

    vm = boot(main, spare, memory="1G")
    vm.run("modprobe dm-remap")
    free = free_memory(vm)
    started = time.monotonic()
    device = open_set(vm)
    loaded = time.monotonic() - started
    used = free - free_memory(vm)
    now = status(vm)
    assert (now.mapped, now.lost, now.bad) == (MILLION, 0, 0)
    assert MILLION / ENTRIES <= now.table_blocks <= 1.25 * MILLION / ENTRIES + 16
    assert vm.blkio("verify", device, f"0+{MILLION}", seed=7, bs=REQUEST, timeout=600).ok

    figures = {
        "remaps_per_second": round(MILLION / made),
        "load_seconds": round(loaded, 2),
        "bytes_per_entry_with_slub_debug": round(used / MILLION, 1),
    }
    for name, value in figures.items():
        record_property(name, value)
    with capsys.disabled():
        print("", *(f"{name}={value}" for name, value in figures.items()))
