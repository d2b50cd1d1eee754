# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device offers to those above it, and its life with device-mapper: limits, flushes, suspend, resize, reload."""

import pytest
from remapvm import CommandFailed
from remapvm.sets import Spare, Trace, format_set, open_set, status, table

pytestmark = pytest.mark.vm

BAD = [2100, 2101, 5000, 9999]
DEVICE = "/dev/mapper/r0"


def limit(vm, device, name):
    """A queue limit of a device."""
    return vm.run(f"cat /sys/block/$(basename $(readlink -f {device}))/queue/{name}").stdout.strip()


def dm_limit(vm, name):
    """A queue limit of r0, the only device-mapper device."""
    return vm.run(f"cat /sys/block/dm-0/queue/{name}").stdout.strip()


# What is offered


@pytest.mark.kernels("6.1", "6.12")
@pytest.mark.parametrize("interface", ["virtio", "scsi", "nvme"])
def test_only_what_can_be_kept_is_offered(boot, bare, interface, kernel):
    main, spare = bare(interface=interface)
    vm = boot(main, spare)
    open_set(vm)
    raw = vm.dev(main)
    # the main can do these, the remap device does not say so
    assert int(limit(vm, raw, "write_zeroes_max_bytes")) > 0 and dm_limit(vm, "write_zeroes_max_bytes") == "0"
    assert dm_limit(vm, "dax") == "0" and dm_limit(vm, "zoned") == "none"
    vm.run("blkdiscard -o 0 -l 4096 /dev/mapper/r0")
    assert "not supported" in vm.try_run("blkdiscard -s -o 0 -l 4096 /dev/mapper/r0").stderr
    assert vm.run("cat /sys/block/dm-0/integrity/format 2>/dev/null || echo none").stdout in ("none\n", "\n")
    if kernel == "6.12":
        assert dm_limit(vm, "atomic_write_max_bytes") == "0"
    # and what it passes on
    assert dm_limit(vm, "write_cache") == "write back"
    assert int(dm_limit(vm, "discard_max_bytes")) == int(limit(vm, raw, "discard_max_bytes"))
    # zeroes are written all the same, by the block layer
    assert vm.blkio("write", DEVICE, "5000+64", seed=1).ok
    assert vm.blkio("zeroout", DEVICE, "5000+64", bs=32768).ok
    assert vm.blkio("verify", DEVICE, "5000+64", seed=0).ok


@pytest.mark.needs_qemu("physical block sizes")
@pytest.mark.parametrize("main_physical, spare_physical", [(512, 4096), (4096, 512)])
def test_limits_are_stacked_from_both_and_the_mains_block_size_is_kept(boot, disk, main_physical, spare_physical):
    main = disk("main", "32M", interface="scsi", physical=main_physical)
    spare = disk("spare", "8M", physical=spare_physical)
    format_set(main, spare, "--bare")
    vm = boot(main, spare)
    open_set(vm)
    assert dm_limit(vm, "logical_block_size") == "512"
    assert dm_limit(vm, "physical_block_size") == "4096"
    for name in ("max_hw_sectors_kb", "max_segments"):
        both = [int(limit(vm, vm.dev(member), name)) for member in (main, spare)]
        assert int(dm_limit(vm, name)) == min(both), name


@pytest.mark.needs_qemu("zoned disks")
def test_a_zoned_main_is_refused(boot, disk):
    main, spare = disk("main", "1G"), disk("spare", "4M")
    format_set(main, spare, "--bare")
    vm = boot(spare)
    vm.run("modprobe null_blk nr_devices=2 gb=1 bs=512 zoned=1 zone_size=64")
    assert limit(vm, "/dev/nullb0", "zoned") == "host-managed"
    line = f"0 {1 << 21} remap /dev/nullb0 {vm.dev(spare)} 0"
    assert vm.try_run(["dmsetup", "create", "r0", "--table", line]).exit != 0
    # for no other reason: the same without zones is accepted
    vm.run("rmmod null_blk && modprobe null_blk nr_devices=1 gb=1 bs=512")
    vm.run(["dmsetup", "create", "r0", "--table", line])


# Discard


def test_a_discard_reaches_the_main_and_spares_what_is_in_slots(boot):
    vm = boot()
    vm.run("modprobe loop max_loop=8; truncate -s 32M /tmp/main.img; truncate -s 4M /tmp/spare.img")
    vm.run("losetup /dev/loop0 /tmp/main.img; losetup /dev/loop1 /tmp/spare.img")
    vm.run("remapsetup format --yes --bare --remaptab none --rescue-file none /dev/loop0 /dev/loop1")
    vm.run("dmsetup create r0 --table '0 65536 remap /dev/loop0 /dev/loop1 0'")
    assert vm.blkio("write", DEVICE, "8192+256", bs=65536, seed=1).ok
    vm.run("dmsetup message r0 0 remap 8200 4 && dmsetup message r0 0 remap 8300")
    before = status(vm).slots
    assert vm.blkio("discard", DEVICE, "8192+256", bs=131072).ok
    mapped = [*range(8200, 8204), 8300]
    assert vm.blkio("verify", DEVICE, mapped, seed=1).ok
    assert vm.blkio("verify", DEVICE, [s for s in range(8192, 8448) if s not in mapped], seed=0).ok
    assert status(vm).slots == before and status(vm).failed == 0


# Flush and FUA


@pytest.mark.kernels("6.1", "6.12")
@pytest.mark.parametrize("interface", ["virtio", "nvme"])
def test_a_write_with_fua_to_a_slot_is_durable_there(boot, bare, interface):
    main, spare = bare(bad_write=BAD, spare={"interface": interface})
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD, seed=1).ok
    slot = Spare(spare).slot_sector(Spare(spare).mapped()[BAD[0]])
    with Trace(vm, spare) as trace:
        assert vm.blkio("write", device, BAD[:1], seed=2, fua=True).ok
    (number, kind), = [(number, kind) for number, (kind, sector) in enumerate(trace.requests) if sector == slot]
    if interface == "nvme":
        assert kind.startswith("WF"), trace.requests
    else:
        # no FUA: the worker writes, and flushes before it acknowledges; the other flush is the kernel's, for O_DSYNC
        assert [kind for kind, _ in trace.requests[number:]] == ["WS", "flush", "flush"], trace.requests
    with Trace(vm, spare) as trace:
        assert vm.blkio("write", device, BAD[:1], seed=3).ok
    assert [kind for kind, _ in trace.requests] == ["WS"], trace.requests


def test_a_flush_goes_to_both_members(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    device = open_set(vm)
    # even if nothing was written since the last one: they cannot know what was
    with Trace(vm, main) as on_main, Trace(vm, spare) as on_spare:
        assert vm.blkio("flush", device).ok
    assert [kind for kind, _ in on_main.requests] == ["flush"] == [kind for kind, _ in on_spare.requests]


@pytest.mark.needs_qemu("an nvme disk")
def test_feature_fua_switches_itself_on_after_a_failed_flush(boot, bare):
    main, spare = bare(bad_write=BAD, interface="nvme")
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [100], seed=1).ok
    with Trace(vm, main) as trace:
        assert vm.blkio("write", device, [101], seed=1).ok
    assert [kind for kind, _ in trace.requests] == ["WS"]
    vm.set_faults(main, fail_flush=True)
    assert vm.blkio("write", device, [102], seed=1).ok
    assert vm.blkio("flush", device).errors
    vm.set_faults(main)
    with Trace(vm, main) as trace:
        assert vm.blkio("write", device, [103], seed=1).ok
    assert [kind for kind, _ in trace.requests] == ["WFS"]
    # it was not in the table line
    assert vm.run("dmsetup table r0").stdout.strip().endswith(" 0")


# Suspend, resume, reload


def test_held_writes_survive_a_suspend_without_flush(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    vm.run("dmsetup create low --table '0 65536 linear {main} 0'")
    vm.run("dmsetup create r0 --table '0 65536 remap /dev/mapper/low {spare} 0'")
    assert vm.blkio("write", DEVICE, "100+8", seed=1).ok
    vm.run("dmsetup suspend low")
    writer = vm.start_blkio("write", DEVICE, "2098+8,4998+8,9998+8", seed=2, threads=16)
    vm.run("sleep 0.5")
    suspending = vm.start(["dmsetup", "suspend", "--noflush", "--nolockfs", "r0"])
    vm.run("sleep 0.5")
    # what is below it comes back; the writes that fail now are queued again, for whoever comes after the resume
    vm.run("dmsetup resume low")
    assert suspending.wait(20).exit == 0
    assert status(vm).failed == 0
    vm.run(["dmsetup", "load", "r0"], stdin=f"0 65536 remap /dev/mapper/low {vm.dev(spare)} 0\n")
    vm.run("dmsetup resume r0")
    assert writer.wait(30).exit == 0
    assert vm.blkio("verify", DEVICE, "2098+8,4998+8,9998+8", seed=2).ok
    assert status(vm).mapped == len(BAD) and status(vm).failed == 0


def test_a_main_that_has_grown_is_served_at_the_recorded_length(boot, bare, disk):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    vm.run("dmsetup create low --table '0 65536 linear {main} 0'")
    line = f"remap /dev/mapper/low {vm.dev(spare)} 0"
    vm.run(["dmsetup", "create", "r0", "--table", f"0 65536 {line}"])
    assert vm.blkio("write", DEVICE, "2000+8000", bs=65536, seed=1).ok
    vm.run("dmsetup suspend r0 && dmsetup suspend low")
    vm.run("dmsetup load low <<E\n0 65536 linear {main} 0\n65536 2048 error\nE")
    vm.run("dmsetup resume low")
    with pytest.raises(CommandFailed):
        vm.run(["dmsetup", "load", "r0", "--table", f"0 67584 {line}"])
    vm.run(["dmsetup", "load", "r0", "--table", f"0 65536 {line}"])
    vm.run("dmsetup resume r0")
    assert vm.blkio("verify", DEVICE, "2000+8000", bs=65536, seed=1).ok
    assert status(vm).mapped == len(BAD)
    assert vm.blkio("write", DEVICE, "2000+8000", bs=65536, seed=2).ok
    assert vm.run("blockdev --getsz /dev/mapper/r0").stdout == "65536\n"


def test_a_table_that_was_loaded_long_ago_reads_what_is_there_when_it_goes_live(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD[:1], seed=1).ok
    vm.run(["dmsetup", "load", "r0", "--table", table(vm)])
    # the instance that is live goes on, and the one in waiting knows nothing of this
    assert vm.blkio("write", device, BAD, seed=2).ok
    vm.run("dmsetup suspend r0 && dmsetup resume r0")
    assert status(vm).remapped == 0 and status(vm).mapped == len(BAD)
    assert vm.blkio("verify", device, BAD, seed=2).ok
    assert vm.blkio("write", device, BAD, seed=3).ok
    # and one that is never used leaves nothing behind
    vm.run(["dmsetup", "load", "r0", "--table", table(vm)])
    vm.run("dmsetup clear r0 && dmsetup remove r0 && rmmod dm-remap")
