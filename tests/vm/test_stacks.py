# SPDX-License-Identifier: GPL-2.0-or-later
"""Other drivers below and above the remap device.

A logical volume is a table of dm-linear, so these tests load such tables themselves. MD arrays are made through sysfs: the
guest has no mdadm.
"""

import pytest
from remapvm.sets import Spare, status

pytestmark = pytest.mark.vm

BAD = [2100, 2101, 5000, 9999, 40000, 40008]
SECTORS = 65536
KEY = "5a" * 32


@pytest.fixture
def members(disk):
    """members(...) makes a main with bad sectors, a second disk of the same size without, and a blank spare."""

    def make(**options):
        return disk("main", "32M", **{"bad_write": BAD, **options}), disk("second", "32M"), disk("spare", "4M")

    return make


def create(vm, name, *lines):
    """A device-mapper device from table lines, in which {disk} stands for its device; returns its path."""
    vm.run("\n".join([f"dmsetup create {name} <<E", *lines, "E"]))
    return f"/dev/mapper/{name}"


def make_set(vm, main, spare="{spare}"):
    """A bare set of a main with SECTORS sectors, opened as r0."""
    vm.run(f"remapsetup format --yes --bare --remaptab none --rescue-file none {main} {spare}")
    return create(vm, "r0", f"0 {SECTORS} remap {main} {spare} 0")


def make_array(vm, name, raid_disks, *members):
    """An MD raid1 without metadata of its own, in which nothing has to be synchronised; returns its device."""
    vm.run(
        f"modprobe raid1 && echo {name} >/sys/module/md_mod/parameters/new_array && cd /sys/block/{name}/md && "
        f"echo raid1 >level && echo {raid_disks} >raid_disks && echo none >metadata_version && echo {SECTORS // 2} >component_size"
    )
    for slot, member in enumerate(members):
        vm.run(
            f"cd /sys/block/{name}/md && had=$(echo dev-*) && "
            f"echo $((0x$(stat -Lc %t {member}))):$((0x$(stat -Lc %T {member}))) >new_dev && "
            f'for d in dev-*; do case " $had " in *" $d "*) ;; *) echo {slot} >$d/slot ;; esac; done'
        )
    vm.run(f"cd /sys/block/{name}/md && echo none >resync_start && echo active >array_state")
    return f"/dev/{name}"


def write_everywhere(vm, device, **options):
    """The whole device is written, twice, and reads back."""
    for seed in (1, 2):
        assert vm.blkio("write", device, bs=65536, seed=seed, **options).ok
        assert vm.blkio("verify", device, bs=65536, seed=seed).ok


def striped(sector):
    """Where a sector of the first of two disks is in a striped device with chunks of 128 sectors."""
    return sector // 128 * 256 + sector % 128


def each(names):
    """The names as a test's parameters; some need modules that user-mode Linux has not."""
    needed = {"crypt": "dm-crypt", "raid1": "dm-raid"}
    return [pytest.param(name, marks=pytest.mark.needs_qemu(needed[name])) if name in needed else name for name in names]


# Table lines, and which blocks of the device then fail.
BELOW = {
    "linear": ([f"0 {SECTORS} linear {{main}} 0"], BAD),
    "two segments": (["0 32768 linear {main} 0", "32768 32768 linear {second} 0"], BAD[:4]),
    "striped": ([f"0 {SECTORS} striped 2 128 {{main}} 0 {{second}} 0"], [striped(sector) for sector in BAD[:4]]),
    "linear and error": (["0 4096 linear {second} 0", "4096 8 error", "4104 61432 linear {second} 4104"], list(range(4096, 4104))),
    "crypt": ([f"0 {SECTORS} crypt aes-xts-plain64 {KEY} 0 {{main}} 0"], BAD),
    "snapshot origin": ([f"0 {SECTORS} snapshot-origin {{main}}"], BAD),
    "delay": ([f"0 {SECTORS} delay {{main}} 0 0"], BAD),
}


@pytest.mark.parametrize("below", each(BELOW))
def test_errors_from_below_a_device_mapper_stack_are_remapped(boot, members, below):
    main, second, spare = members()
    lines, failing = BELOW[below]
    vm = boot(main, second, spare)
    write_everywhere(vm, make_set(vm, create(vm, "low", *lines)))
    assert status(vm).failed == 0
    vm.run("dmsetup remove r0 && dmsetup remove low")
    assert sorted(Spare(spare).mapped()) == failing


def test_a_raid1_that_gave_up_its_last_leg_is_used_as_long_as_it_reads(boot, members):
    main, second, spare = members()
    vm = boot(main, second, spare)
    device = make_set(vm, make_array(vm, "md100", 2, "{main}"))
    # from its first error on, MD takes no write at all any more
    assert vm.blkio("write", device, "2000+200", seed=1).ok
    assert vm.blkio("verify", device, "2000+200", seed=1).ok
    assert status(vm).failed == 0 and set(BAD[:2]) <= set(Spare(spare).mapped())


def test_errors_that_a_raid1_below_has_mended_are_none_of_ours(boot, members):
    main, second, spare = members()
    vm = boot(main, second, spare)
    write_everywhere(vm, make_set(vm, make_array(vm, "md100", 2, "{main}", "{second}")))
    assert status(vm).mapped == 0
    assert vm.run("cat /sys/block/md100/md/degraded").stdout == "1\n"


def test_a_raid1_above_keeps_its_leg(boot, members):
    main, second, spare = members()
    vm = boot(main, second, spare)
    make_set(vm, "{main}")
    write_everywhere(vm, make_array(vm, "md100", 2, "/dev/mapper/r0", "{second}"))
    assert vm.run("cat /sys/block/md100/md/degraded").stdout == "0\n"
    assert status(vm).mapped == len(BAD) and status(vm).failed == 0
    vm.run("echo clear >/sys/block/md100/md/array_state && dmsetup remove r0")


ABOVE = {
    "linear": ["0 30000 linear /dev/mapper/r0 0", "30000 35536 linear /dev/mapper/r0 30000"],
    "crypt": [f"0 {SECTORS} crypt aes-xts-plain64 {KEY} 0 /dev/mapper/r0 0"],
    "snapshot origin": [f"0 {SECTORS} snapshot-origin /dev/mapper/r0"],
    "raid1": [f"0 {SECTORS} raid raid1 3 0 region_size 2048 2 - /dev/mapper/r0 - {{second}}"],
}


@pytest.mark.parametrize("above", each(ABOVE))
def test_devices_above_see_no_error(boot, members, above):
    main, second, spare = members()
    vm = boot(main, second, spare)
    make_set(vm, "{main}")
    write_everywhere(vm, create(vm, "high", *ABOVE[above]))
    vm.run("dmsetup remove high")
    assert status(vm).mapped == len(BAD) and status(vm).failed == 0


@pytest.mark.needs_qemu("dm-crypt")
def test_a_file_system_on_a_crypt_device_on_a_partition_of_a_remap_device(boot, members):
    main, second, spare = members()
    vm = boot(main, second, spare)
    make_set(vm, "{main}")
    create(vm, "part", f"0 {SECTORS - 2048} linear /dev/mapper/r0 2048")
    create(vm, "crypt", f"0 {SECTORS - 2048} crypt aes-xts-plain64 {KEY} 0 /dev/mapper/part 0")
    vm.run("mkfs.ext4 -q /dev/mapper/crypt && mount /dev/mapper/crypt /mnt && cp -a /etc /init /mnt/ && umount /mnt")
    vm.run("e2fsck -fn /dev/mapper/crypt")
    assert 0 < status(vm).mapped <= len(BAD) and status(vm).failed == 0


def test_errors_from_below_the_spare_are_not_the_mains(boot, members):
    main, second, spare = members(bad_write=BAD)
    vm = boot(main, second, spare)
    # the first part of the spare's data area fails, its metadata does not
    good_again = 4096
    create(vm, "sp", "0 8192 linear {spare} 0")
    device = make_set(vm, "{main}", "/dev/mapper/sp")
    data = Spare(spare).data
    assert data < good_again
    vm.run("dmsetup suspend r0 && dmsetup suspend sp")
    vm.run(f"dmsetup load sp <<E\n0 {data} linear {{spare}} 0\n{data} {good_again - data} error\n"
           f"{good_again} {8192 - good_again} linear {{spare}} {good_again}\nE")
    vm.run("dmsetup resume sp && dmsetup resume r0")
    assert sorted(vm.blkio("write", device, "2000+200", seed=1).errors) == BAD[:2]
    assert status(vm).mapped == 0 and status(vm).spare_errors > 0
