# SPDX-License-Identifier: GPL-2.0-or-later
"""Systems that have never heard of dm-remap see an adopted disk: they find nothing on it, and mount nothing."""

import pytest
from remapvm import kernels, rootfs
from remapvm.disk import Disk
from remapvm.initramfs import guest_program
from remapvm.stacks import GENERATORS, PACKAGES, STACKS, StackedRoot
from remapvm.story import QUIET, SET_UUID, copy_sparse

pytestmark = [pytest.mark.boot, pytest.mark.long]

RESCUE_UUID = "0badc0de-5f1e-4a2b-8c3d-9e0f1a2b3c4d"
EXTRA = rootfs.Extra(packages=(*PACKAGES, "mdadm"), modules=("raid1", "dm-crypt", "btrfs"), ours=False)


def rescue_system(series) -> rootfs.Root:
    """A Debian with everything that could use a disk, and nothing of ours."""
    return rootfs.build(kernels.find(series), None, guest_program("agent"), SET_UUID, RESCUE_UUID, extra=EXTRA, generators=GENERATORS)


@pytest.mark.parametrize("stack", STACKS)
def test_a_rescue_system_finds_nothing_on_the_members(machines, stack):
    root = StackedRoot(machines.folder / "disks", machines.boot, "initramfs-tools", stack, series=machines.kernel)
    root.adopt()
    system = rescue_system(machines.kernel)
    own = Disk(machines.folder / "disks" / "rescue.img", "rescue")
    copy_sparse(system.image, own.path)
    vm = machines.boot(
        *root.disks, own, initrd=system.initramfs("initramfs-tools"), append=f"root=UUID={RESCUE_UUID} rw panic=-1 {QUIET}", boot_timeout=200
    )
    vm.run("udevadm settle; modprobe -a raid1 dm-crypt btrfs")
    assert vm.run("blkid -c /dev/null").lines[0].startswith(vm.dev(own) + ":")
    assert len(vm.run("blkid -c /dev/null").lines) == 1
    for disk in root.disks:
        device = vm.dev(disk)
        seen = vm.try_run(f"blkid -p {device}")
        assert (seen.exit, seen.stdout) == (2, "")
        assert vm.run(f"wipefs --no-act {device}").stdout == ""
        assert "ID_FS_" not in vm.run(f"udevadm info -q property {device}").stdout
        assert vm.try_run(f"cryptsetup isLuks {device}").exit != 0
        assert vm.try_run(f"mdadm --examine {device}").exit != 0
        assert vm.run(f"ls /sys/class/block/{device.removeprefix('/dev/')}/holders").stdout == ""
        for fs_type in ("auto", "ext4", "btrfs"):
            assert vm.try_run(f"mount -o ro -t {fs_type} {device} /mnt").exit != 0
    # what scans all disks by itself
    assert vm.run("pvscan --cache -aay >/dev/null; pvs --noheadings; vgs --noheadings; lvs --noheadings").stdout.strip() == ""
    vm.try_run("mdadm --assemble --scan")
    assert "md" not in vm.run("sed -n '/^md/p' /proc/mdstat").stdout
    assert vm.run("mdadm --examine --scan").stdout == ""
    assert vm.run("btrfs device scan >/dev/null; btrfs filesystem show").stdout.strip() == ""
    assert vm.run("dmsetup ls").stdout.strip() == "No devices found"
    assert vm.run("findmnt -no SOURCE --real").lines == [vm.dev(own)]


@pytest.mark.parametrize("stack", ["plain", "lvm", "md"])
@pytest.mark.parametrize("generator", GENERATORS)
def test_an_initramfs_without_our_hook_mounts_nothing(machines, generator, stack):
    """It looks for the payload's root, and may assemble whatever it finds."""
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, stack, series=machines.kernel)
    root.adopt()
    initramfs = rescue_system(machines.kernel).initramfs(generator)
    vm = root.plain_boot(root.disks, "rw rd.auto=1 rd.retry=10", agent=False, initrd=initramfs)
    # the way in which dracut's own init gives up
    vm.expect_kernel_message("Kernel panic - not syncing: Attempted to kill init")
    vm.wait_end(300)
    console = vm.console.text()
    assert "Run /init" in console
    # nothing of ours was there, and nothing was mounted or assembled
    for trace in ("remapsetup", "dm_remap", "EXT4-fs", "md/raid1", "BTRFS", "device-mapper: table"):
        assert trace not in console
