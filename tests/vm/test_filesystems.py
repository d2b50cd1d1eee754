# SPDX-License-Identifier: GPL-2.0-or-later
"""File systems on disks with bad sectors: made, filled, checked, read back after a power cut."""

import random
from dataclasses import dataclass

import pytest
from remapvm.sets import open_set, status

pytestmark = pytest.mark.vm

DEVICE = "/dev/mapper/r0"


@dataclass(frozen=True)
class FileSystem:
    """How a file system is made, and checked without any change."""

    make: str
    check: str
    size: str


FILE_SYSTEMS = {
    "ext4": FileSystem("mkfs.ext4 -q", "e2fsck -fn", "64M"),
    "xfs": FileSystem("mkfs.xfs -q", "xfs_repair -n", "320M"),
    "btrfs": FileSystem("mkfs.btrfs -q", "btrfs check --readonly", "160M"),
    # -a of fsck.f2fs would repair; its --dry-run checks everything and writes nothing
    "f2fs": FileSystem("mkfs.f2fs -q", "fsck.f2fs --dry-run", "128M"),
}


def bad_sectors(sectors: int, count: int):
    """Spread over the whole disk, and denser where file systems begin, where they all write."""
    rng = random.Random(sectors)
    return sorted({*rng.sample(range(sectors), count), *rng.sample(range(4096), count // 8), *range(2048, 2060)})


def digests(vm) -> str:
    """What is in the files, read from the disk."""
    return vm.run("echo 3 >/proc/sys/vm/drop_caches; cd /mnt && find . -type f | sort | xargs sha256sum").stdout


def check(vm, fs):
    """The file system's own checker finds nothing wrong, and says so by its exit status and words."""
    result = vm.run(f"{fs.check} {DEVICE} 2>&1", timeout=120)
    assert "Fail" not in result.stdout and "would have" not in result.stdout, result


@pytest.mark.parametrize(
    "kind", ["ext4", *(pytest.param(kind, marks=pytest.mark.needs_qemu("file system drivers")) for kind in ("xfs", "btrfs", "f2fs"))]
)
def test_a_file_system_on_bad_sectors_is_whole(boot, adopted, kind):
    fs = FILE_SYSTEMS[kind]
    sectors = int(fs.size[:-1]) * 2048
    main, spare = adopted(size=fs.size, spare_size="8M", bad_write=bad_sectors(sectors, 800))
    vm = boot(main, spare)
    open_set(vm)
    vm.run(f"{fs.make} {DEVICE} && mount -t {kind} {DEVICE} /mnt", timeout=120)
    vm.run("cp -a /etc /usr/lib/x86_64-linux-gnu /mnt/ && dd if=/dev/urandom of=/mnt/file bs=1M count=12 conv=fsync 2>/dev/null", timeout=120)
    before = digests(vm)
    assert len(before.splitlines()) > 20
    vm.run("umount /mnt")
    check(vm, fs)
    now = status(vm)
    assert now.remapped > 20 and now.failed == 0, now

    # what was synced is there after a power cut in the midst of more writes
    vm.run(f"mount -t {kind} {DEVICE} /mnt")
    writer = vm.start("while cp /mnt/file /mnt/copy && sync && rm /mnt/copy; do echo round $((n += 1)); done")
    writer.wait_output("round 2\n")
    vm.power_cut()
    vm = boot(main, spare)
    open_set(vm)
    vm.run(f"mount -t {kind} {DEVICE} /mnt")
    after = digests(vm)
    assert set(before.splitlines()) <= set(after.splitlines())
    vm.run("umount /mnt")
    check(vm, fs)
    assert status(vm).failed == 0


@pytest.mark.parametrize(
    "kind", ["ext4", *(pytest.param(kind, marks=pytest.mark.needs_qemu("file system drivers")) for kind in ("xfs", "btrfs", "f2fs"))]
)
def test_the_same_disk_without_us_does_not_serve(boot, disk, kind):
    fs = FILE_SYSTEMS[kind]
    sectors = int(fs.size[:-1]) * 2048
    main, good = disk("main", fs.size, bad_write=bad_sectors(sectors, 800)), disk("good", fs.size)
    vm = boot(main, good, remap=False)
    script = f"{fs.make} {{device}} && mount -t {kind} {{device}} /mnt && cp -a /usr/lib/x86_64-linux-gnu /mnt/ && umount /mnt && {fs.check} {{device}}"
    vm.run(script, device=good, timeout=120)
    assert vm.try_run(script, device=main, timeout=120).exit != 0
