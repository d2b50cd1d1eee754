# SPDX-License-Identifier: GPL-2.0-or-later
"""The members of root's set arrive in any order, any time: 100 boots, or as many as REMAP_TEST_BOOTS says."""

import os
import random
import time

import pytest
from remapvm.stacks import GENERATORS, StackedRoot

pytestmark = [pytest.mark.boot, pytest.mark.long]

STACKS = ("plain", "lvm", "luks")
BOOTS = int(os.environ.get("REMAP_TEST_BOOTS", "100"))
LATEST = 20.0  # seconds after the initramfs has begun


@pytest.mark.parametrize("seed", range(BOOTS))
def test_members_arrive_in_any_order_and_late(machines, seed):
    dice = random.Random(seed)
    generator, stack = GENERATORS[seed % 3], STACKS[seed // 3 % 3]
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, stack, interface=dice.choice(("virtio", "scsi")), series=machines.kernel)
    root.adopt()
    disks = dice.sample(root.disks, len(root.disks))
    there = disks[: dice.randrange(len(disks))]
    late = sorted((dice.uniform(0, LATEST), disk.name, disk) for disk in disks if disk not in there)
    print(f"{generator}, {stack}, there: {[disk.name for disk in there]}, late: {[(round(at, 1), name) for at, name, _ in late]}")
    vm = root.plain_boot(there, "rw rd.remap.timeout=180", agent=False)
    vm.wait_console("Run /init as init process", 120)
    begun = time.monotonic()
    for at, _, disk in late:
        time.sleep(max(0, begun + at - time.monotonic()))
        vm.plug_unseen(disk)
    vm.wait_up(300)
    root.prove_root_on_remap()
    root.check_raw_main()
    root.check_quiet()
    root.power_cut()


def test_the_timeout_counts_for_encrypted_volumes_too(machines):
    """initramfs-tools' cryptroot would give up after 95 seconds of these."""
    root = StackedRoot(machines.folder / "disks", machines.boot, "initramfs-tools", "luks", series=machines.kernel)
    root.adopt()
    vm = root.plain_boot([root.main], "rw rd.remap.timeout=240", agent=False)
    vm.wait_console("Run /init as init process", 120)
    time.sleep(130)
    vm.plug_unseen(root.spare)
    vm.wait_up(300)
    root.prove_root_on_remap()
    root.power_cut()
