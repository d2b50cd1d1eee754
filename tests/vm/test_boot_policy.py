# SPDX-License-Identifier: GPL-2.0-or-later
"""Root's set among copies, strangers and damage: it opens rightly or not at all, and the raw main is never mounted."""

import itertools
import random
import struct
import zlib

import pytest
from remapvm import cached
from remapvm.disk import SECTOR, Disk
from remapvm.sets import Spare, format_set, tool
from remapvm.stacks import GENERATORS, StackedRoot
from remapvm.story import SET_UUID, copy_sparse

pytestmark = [pytest.mark.boot, pytest.mark.long]

FOREIGN_SET = "7b0c5a52-6c1e-4d55-9d6b-3f0e6f0b7aff"


@pytest.fixture(name="adopted")
def adopted_root(machines):
    """adopted(generator): a Debian whose root is a set, recorded with the hardware that it is on; off."""

    def make(generator):
        root = StackedRoot(machines.folder / "disks", machines.boot, generator, "plain", series=machines.kernel)
        root.adopt()
        return root

    return make


def copy(disk, name, serial=None):
    """The same content on other hardware, or on what says that it is this one."""
    path = disk.path.with_name(f"{name}.img")
    copy_sparse(disk.path, path)
    return Disk(path, name, serial=serial)


def restore(disk, image):
    """The content that a disk once had, on the same hardware."""
    copy_sparse(image.path, disk.path)


def foreign_pair(root, prefix, set_uuid):
    """A set of somebody else's, which may have the UUID of root's."""
    pair = Disk(root.folder / f"{prefix}_main.img", f"{prefix}_main", "32M"), Disk(root.folder / f"{prefix}_spare.img", f"{prefix}_spare", "8M")
    format_set(*pair, "--uuid", set_uuid)
    return pair


def name_as_main(spare, main_member):
    """Changes the spare's superblocks so that they name that member as their main."""
    layout = Spare(spare)
    seed = zlib.crc32(layout.set_uuid + struct.pack("<Q", layout.nonce))
    for place in layout.superblocks:
        block = bytearray(spare.read(place * SECTOR, 4096))
        old = bytes(block[112:128])
        at = block.index(old, 2048)  # in the list of members
        for offset in (112, at):
            block[offset : offset + 16] = main_member
        struct.pack_into("<I", block, 16, 0)
        struct.pack_into("<I", block, 16, zlib.crc32(block, seed))
        spare.write(place * SECTOR, bytes(block))


def digests(disks):
    """What is on each of them."""
    return {disk.name: cached.digest(disk.path) for disk in disks}


def refuses(root, disks, *reasons, more="", advice=True):
    """The boot ends by itself and says why and what to do; no root was mounted, and nothing was written to any disk."""
    before = digests(disks)
    vm = root.plain_boot(disks, f"rw rd.remap.timeout=5 {more}", agent=False)
    # the way in which dracut's own init gives up
    vm.expect_kernel_message("Kernel panic - not syncing: Attempted to kill init")
    vm.wait_end(300)
    console = vm.console.text()
    root.power_cut()
    # told to reboot on panic=, initramfs-tools does so before it runs anything for the shell
    if advice and root.generator != "initramfs-tools":
        reasons += ("attach what is missing",)
    for reason in reasons:
        assert reason in console
    assert "EXT4-fs" not in console, "something was mounted"
    assert digests(disks) == before


def boots(root, disks):
    """It comes up with root on the right pair, and the other disks are as they were."""
    others = [disk for disk in disks if disk not in root.disks]
    before = digests(others)
    root.plain_boot(disks, "rw")
    root.prove_root_on_remap()
    root.check_quiet()
    assert root.vm.run("dmsetup ls --target remap").stdout.split("\t")[0] == "root"
    root.vm.shutdown(90)
    assert digests(others) == before


@pytest.mark.parametrize("generator", GENERATORS)
def test_root_is_found_among_copies_and_strangers(adopted, generator):
    root = adopted(generator)
    main, spare = root.disks
    # yesterday's: as they were before the last activation
    crowd = [copy(main, "old_main"), copy(spare, "old_spare")]
    root.plain_boot(root.disks)
    root.vm.shutdown(90)
    crowd += [copy(main, "clone_main"), copy(spare, "clone_spare")]
    crowd += foreign_pair(root, "foreign", FOREIGN_SET)
    hostile = foreign_pair(root, "hostile", SET_UUID)[1]
    name_as_main(hostile, spare.read(Spare(spare).superblocks[0] * SECTOR + 112, 16))
    disks = [*root.disks, *crowd, hostile]
    random.Random(generator).shuffle(disks)
    print([disk.name for disk in disks])
    boots(root, disks)


# What comes instead of root's pair alone, and the reasons that are given.


def spare_absent(root, old):
    return root.disks[:1], [f"the spare of set {SET_UUID} is missing", "there)"]


def main_absent(root, old):
    return root.disks[1:], [f"the main of set {SET_UUID}", "is missing"]


def yesterdays_spare_on_its_own_disk(root, old):
    restore(root.spare, old[1])
    return root.disks, ["this spare is an old copy"]


def yesterdays_spare_on_another(root, old):
    return [root.main, old[1]], ["this spare is an old copy"]


def yesterdays_main_on_its_own_disk(root, old):
    restore(root.main, old[0])
    return root.disks, ["this main is an old copy"]


def yesterdays_main_on_another(root, old):
    return [old[0], root.spare], ["this main is an old copy"]


def two_copies_of_the_spare(root, old):
    return [root.main, old[1], copy(root.spare, "clone")], ["all claim to be spare", "disconnect the copies"]


def one_disk_by_two_paths(root, old):
    return [*root.disks, copy(root.main, "other_path", root.main.serial)], ["all claim to be main", "have the recorded hardware", "needs multipath"]


def a_pair_with_the_sets_uuid(root, old):
    return [*foreign_pair(root, "hostile", SET_UUID), *root.disks], ["are different spares of it", "disconnect what does not belong"]


def a_table_block_without_a_copy(root, old):
    for place in Spare(root.spare).tables:
        root.spare.write(place * SECTOR + 100, b"damage" * 50)
    return root.disks, ["the check ended with 4", "remap-fsck -n --main"]


def no_superblock_but_a_strangers(root, old):
    for place in Spare(root.spare).superblocks:
        root.spare.write(place * SECTOR, bytes(4096))
    return [*root.disks, *foreign_pair(root, "foreign", FOREIGN_SET)], [f"the spare of set {SET_UUID} is missing"]


CASES = (
    spare_absent,
    main_absent,
    yesterdays_spare_on_its_own_disk,
    yesterdays_spare_on_another,
    yesterdays_main_on_its_own_disk,
    yesterdays_main_on_another,
    two_copies_of_the_spare,
    one_disk_by_two_paths,
    a_pair_with_the_sets_uuid,
    a_table_block_without_a_copy,
    no_superblock_but_a_strangers,
)


@pytest.mark.parametrize("generator, case", zip(itertools.cycle(GENERATORS), CASES), ids=lambda value: getattr(value, "__name__", value))
def test_nothing_is_mounted_when_it_is_not_the_right_pair(adopted, generator, case):
    root = adopted(generator)
    old = [copy(disk, f"old_{disk.name}") for disk in root.disks]
    if "yesterday" in case.__name__ or "copies" in case.__name__:
        root.plain_boot(root.disks)
        root.power_cut()
    disks, reasons = case(root, old)
    refuses(root, disks, *reasons)


@pytest.mark.parametrize("copies", [(0, 2), (1, 3), (4,)])
@pytest.mark.parametrize("generator", GENERATORS)
def test_damage_to_every_structure_is_repaired_before_root_is_mounted(adopted, generator, copies):
    """Some of the superblocks, one copy of the whole table, and a label place: whatever is left is enough."""
    root = adopted(generator)
    layout = Spare(root.spare)
    for number in copies:
        root.spare.write(layout.superblocks[number] * SECTOR + 600, b"damage" * 50)
    table = layout.tables[copies[0] % 2]
    for block in range(layout.table_length):
        root.spare.write((table + block * 8) * SECTOR + 64, b"damage" * 50)
    labels = [place for place in struct.unpack("<16Q", root.spare.read(layout.superblocks[3 - copies[0] % 3] * SECTOR + 232, 128)) if place]
    root.main.write(labels[copies[0] % len(labels)] * SECTOR, b"damage" * 50)
    assert tool("remap-fsck", "-n", "--main", root.main.path, root.spare.path, check=False).returncode == 4
    root.plain_boot(root.disks)
    root.prove_root_on_remap()
    root.check_raw_main()
    assert "RMF-0101" in root.vm.console.text() and "RMF-0201" in root.vm.console.text()
    root.vm.shutdown(90)
    assert tool("remap-fsck", "-n", "--main", root.main.path, root.spare.path, check=False).returncode == 0


@pytest.mark.parametrize("more", ["udev.children_max=1", f"udev.children_max=1 rd.remap.uuid={SET_UUID}"])
@pytest.mark.parametrize("generator", GENERATORS)
def test_one_udev_worker_is_enough(adopted, generator, more):
    root = adopted(generator)
    root.plain_boot(root.disks, f"rw {more}")
    root.prove_root_on_remap()
    root.check_raw_main()
    before = root.vm.run("dmsetup ls --target remap; dmsetup table root").stdout
    # the events of coldplug again and again while root is in use: nothing is opened twice, nothing loops
    root.vm.run("for i in 1 2 3 4 5 6 7 8; do udevadm trigger --action=$([ $((i % 2)) = 0 ] && echo add || echo change); done; udevadm settle", timeout=400)
    assert root.vm.run("dmsetup ls --target remap; dmsetup table root").stdout == before
    assert root.vm.try_run("rmmod dm-remap").exit != 0
    root.check_quiet()
    root.vm.shutdown(90)


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_kernel_command_line_says_which_sets_are_opened(machines, generator):
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, "plain", files=(("etc/remaptab", "# no set\n"),), series=machines.kernel)
    root.adopt()
    # nobody has named it: hidden, and not opened
    refuses(root, root.disks, "no set is listed", advice=False)
    # the unit that the command line makes in the real root has nothing to do
    root.plain_boot(root.disks, f"rw rd.remap.uuid={SET_UUID}")
    root.prove_root_on_remap()
    assert root.vm.run("dmsetup ls --target remap").stdout.split("\t")[0] == f"remap-{SET_UUID[:8]}"
    root.check_quiet()
    root.vm.shutdown(90)
    refuses(root, root.disks, "nothing is opened", more=f"rd.remap.uuid={SET_UUID} rd.remap=0", advice=False)


@pytest.mark.parametrize("generator", GENERATORS[1:])
def test_dracut_tries_once_more_when_its_wait_is_nearly_over(machines, generator):
    """Without the rule that has members opened as they come."""
    rule = ("usr/lib/dracut/modules.d/56remap/69-remap-initqueue.rules", "")
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, "plain", files=(rule,), series=machines.kernel)
    root.adopt()
    root.plain_boot(root.disks, "rw rd.remap.timeout=20")
    root.prove_root_on_remap()
    root.check_raw_main()
