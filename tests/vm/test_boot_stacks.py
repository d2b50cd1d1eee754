# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole Debians whose root lies in a stack of drivers on remap devices: LVM, LUKS, MD; btrfs; root named in every way."""

import subprocess

import pytest
from remapvm.stacks import GENERATORS, STACKS, StackedRoot

pytestmark = [pytest.mark.boot, pytest.mark.long]


def boots(root, **options):
    """It comes up, root lies on the remap devices, nothing complains, and it shuts down as any other."""
    root.plain_boot(root.disks, **options)
    root.prove_root_on_remap()
    root.check_raw_main()
    root.check_quiet()


@pytest.mark.kernels("6.1", "6.12")
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_root_in_a_stack_lies_on_remap(machines, generator, stack):
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, stack, series=machines.kernel)
    root.adopt()
    boots(root)
    # what names the payload to others goes to the spare, however often it is rewritten
    root.vm.run(f"{root.stack.use} && sync", timeout=300)
    root.check_raw_main()
    root.vm.shutdown(90)
    for main, _ in root.pairs.values():
        assert subprocess.run(["blkid", "-p", main.path], check=False).returncode == 2


@pytest.mark.parametrize(
    "stack, name",
    [("plain", "LABEL=system"), ("plain", "/dev/mapper/root"), ("lvm", "/dev/mapper/vg0-root"), ("luks", "/dev/mapper/cryptroot")],
)
@pytest.mark.parametrize("generator", GENERATORS)
def test_root_by_name_lies_on_remap(machines, generator, stack, name):
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, stack, name, series=machines.kernel)
    root.adopt()
    boots(root)
    root.vm.shutdown(90)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_an_initramfs_made_on_the_machine_itself_boots_it(machines, generator, stack):
    """With only what this machine needs: the generators find that out by looking below root."""
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, stack, series=machines.kernel)
    root.adopt()
    boots(root)
    initramfs = root.make_initramfs_inside()
    root.vm.shutdown(90)
    root.told_by_initramfs = True
    boots(root, initrd=initramfs)
    root.vm.shutdown(90)
