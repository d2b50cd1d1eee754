# SPDX-License-Identifier: GPL-2.0-or-later
"""Which errors are remapped and which are passed on, what is counted, and who hears of it."""

import pytest
from remapvm.initramfs import guest_module, guest_program
from remapvm.kernels import find
from remapvm.sets import Spare, open_set, status

pytestmark = pytest.mark.vm

BAD = [2100, 2101, 5000, 9999]
DEVICE = "/dev/mapper/r0"


# Classes of errors


# What user space sees of each BLK_STS_*, and whether a bad sector may be behind it. ZONE_RESOURCE is not among them: it means
# nothing above a request queue, and newer kernels do not have it.
STATUSES = {
    "NOTSUPP": ("EOPNOTSUPP", False),
    "TIMEOUT": ("ETIMEDOUT", True),
    "NOSPC": ("ENOSPC", False),
    "TRANSPORT": ("ENOLINK", False),
    "TARGET": ("EREMOTEIO", True),
    "RESV_CONFLICT": ("EBADE", False),
    "MEDIUM": ("ENODATA", True),
    "PROTECTION": ("EILSEQ", False),
    "RESOURCE": ("ENOMEM", False),
    "IOERR": ("EIO", True),
    "AGAIN": ("EAGAIN", False),
    "DEV_RESOURCE": ("EBUSY", False),
    "ZONE_OPEN_RESOURCE": ("ETOOMANYREFS", False),
    "ZONE_ACTIVE_RESOURCE": ("EOVERFLOW", False),
    "OFFLINE": ("ENODEV", False),
}
NEWER_STATUSES = {"DURATION_LIMIT": ("ETIME", False), "INVAL": ("EINVAL", False)}
LIMITS = ("EOPNOTSUPP", "EAGAIN")  # of the main: not counted as its errors


@pytest.mark.kernels("6.1", "6.12")
def test_each_status_is_remapped_or_passed_on_as_documented(boot, bare, kernel):
    main, spare = bare()
    vm = boot(main, spare, files={"/dm-status.ko": guest_module(find(kernel), "dm-status")})
    vm.run("modprobe dm-mod && insmod /dm-status.ko")
    vm.run("dmsetup create low --table '0 65536 status {main}'")
    vm.run("dmsetup create r0 --table '0 65536 remap /dev/mapper/low {spare} 0'")
    assert vm.blkio("write", DEVICE, "5000+4", seed=1).ok
    statuses = STATUSES if vm.kernel.release.startswith("6.1.") else {**STATUSES, **NEWER_STATUSES}
    for name, (errno, may_remap) in statuses.items():
        vm.run(f"dmsetup message r0 0 reset_stats; dmsetup message low 0 fail write {name} 5001 2")
        report = vm.blkio("write", DEVICE, "5000+4", seed=2)
        now = status(vm)
        if may_remap:
            assert report.ok, (name, report)
            assert now.remapped == now.mapped == 2 and now.failed == 0 and now.main_write_errors >= 2, (name, now)
        else:
            assert report.errors == {5001: errno, 5002: errno}, (name, report)
            counted = 0 if errno in LIMITS else 2
            assert now.mapped == 0 and now.main_write_errors == now.failed == counted, (name, now)
        assert now.health == "ok", (name, now)
        vm.run("dmsetup message low 0 clear && dmsetup message r0 0 forget 5000 4")
        assert vm.blkio("write", DEVICE, "5000+4", seed=1).ok

        # reads: never, whatever it is
        vm.run(f"dmsetup message r0 0 reset_stats; dmsetup message low 0 fail read {name} 5001 2")
        assert vm.blkio("read", DEVICE, "5000+4").errors == {5001: errno, 5002: errno}, name
        assert status(vm).mapped == 0 and status(vm).failed == 0, name
        vm.run("dmsetup message low 0 clear")
        assert vm.blkio("verify", DEVICE, "5000+4", seed=1).ok


# What a scsi disk of QEMU makes of an errno of its image: sense data, and from that the guest's kernel a status.
SCSI = {5: None, 61: None, 12: None, 28: "ENOSPC", 52: "EBADE"}


@pytest.mark.needs_qemu("a scsi disk")
@pytest.mark.kernels("6.1", "6.12")
def test_a_scsi_disk_that_is_full_or_reserved_is_not_one_with_bad_sectors(boot, bare):
    main, spare = bare(interface="scsi")
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "5000+4", seed=1).ok
    for errno, seen in SCSI.items():
        vm.set_faults(main, bad_write=[5001], errno=errno)
        report = vm.blkio("write", device, "5000+4", seed=2)
        assert report.errors == ({5001: seen} if seen else {}), (errno, report)
        assert status(vm).mapped == (0 if seen else 1), errno
        vm.set_faults(main)
        vm.run("dmsetup message r0 0 forget 5001")
        assert vm.blkio("verify", device, "5000+4", seed=(1, 2)).ok


# A main that is gone


@pytest.mark.needs_qemu("disks that come and go")
@pytest.mark.kernels("6.1", "6.12")
@pytest.mark.parametrize("how", ["scsi disk deleted", "virtio disk unplugged"])
def test_a_main_whose_cable_is_pulled_costs_no_slot(boot, adopted, how):
    main, spare = adopted(bad_write=[30000], interface="scsi" if "scsi" in how else "virtio")
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "9000+8,30000+1", seed=1, fua=True).ok
    before = status(vm)
    if "scsi" in how:
        vm.run("echo 1 >/sys/block/$(basename {main})/device/delete")
    else:
        vm.unplug(main)
    assert len(vm.blkio("write", device, "9000+8", seed=2).errors) == 8
    assert len(vm.blkio("write", device, "20000+64", bs=4096, seed=2).errors) == 8
    now = status(vm)
    assert (now.mapped, now.slots, now.remapped) == (before.mapped, before.slots, before.remapped)
    assert now.failed == 16 and now.health == "main-lost", now
    # what is in slots is served
    assert vm.blkio("verify", device, [30000], seed=1).ok
    assert vm.blkio("write", device, [30000], seed=3).ok and vm.blkio("verify", device, [30000], seed=3).ok
    # a flush is for both members
    assert vm.blkio("flush", device).errors
    vm.run("dmsetup remove r0", timeout=20)
    layout = Spare(spare)
    assert layout.entries(0) == layout.entries(1)


def test_the_breaker_opens_without_an_answer_and_closes_with_one(boot, adopted):
    main, spare = adopted()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "9000+8", seed=1).ok
    vm.set_faults(main, fail_write=True, fail_read=True)
    assert len(vm.blkio("write", device, [9000], seed=2).errors) == 1
    first = status(vm)
    assert first.health == "main-lost" and first.circuit == 1 and first.mode == "rw"
    # from now on without a search, which would write again: one error each
    assert len(vm.blkio("write", device, "9000+100", bs=4096, seed=2).errors) == 13
    second = status(vm)
    assert second.circuit == first.circuit + 13 and second.main_write_errors == first.main_write_errors + 13
    assert second.remapped == 0

    # a read that succeeds is an answer; that the main is write-protected is another matter
    vm.set_faults(main, fail_write=True)
    assert status(vm).health == "main-lost"
    assert vm.blkio("verify", device, [9001], seed=1).ok
    assert status(vm).health == "ok"
    assert vm.blkio("write", device, "9000+8", seed=2).ok
    assert status(vm).remapped == 8

    # so is a write
    vm.set_faults(main, fail_write=True, fail_read=True)
    assert vm.blkio("write", device, [9100], seed=2).errors
    assert status(vm).health == "main-lost"
    vm.set_faults(main)
    assert vm.blkio("write", device, [9100], seed=2).ok
    assert status(vm).health == "ok"


def test_an_open_breaker_asks_again_after_a_while(boot, adopted):
    main, spare = adopted()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "9000+8", seed=1).ok
    vm.set_faults(main, fail_write=True, fail_read=True)
    assert vm.blkio("write", device, [9000], seed=2).errors
    # nobody reads, and every write fails
    vm.set_faults(main, bad_write=[9000, 9001])
    vm.run("sleep 5.5")
    assert vm.blkio("write", device, [9000], seed=2).ok
    assert status(vm).health == "ok" and status(vm).remapped == 1
    assert vm.blkio("write", device, [9001], seed=2).ok


# A main that is write-protected


@pytest.mark.needs_qemu("scsi_debug")
@pytest.mark.kernels("6.1", "6.12")
def test_a_write_protected_disk_is_used_while_it_reads(boot, disk):
    spare = disk("spare", "8M")
    vm = boot(spare)
    vm.run("modprobe sd_mod && modprobe scsi_debug dev_size_mb=32 delay=0 ndelay=1")
    vm.run("until ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/ 2>/dev/null; do sleep 0.1; done")
    name = vm.run("basename /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*").stdout.strip()
    main = f"/dev/{name}"
    vm.run(f"remapsetup format --yes --bare --remaptab none --rescue-file none {main} {{spare}}")
    vm.run(f"dmsetup create r0 --table '0 65536 remap {main} {{spare}} 0'")
    assert vm.blkio("write", DEVICE, "9000+100", seed=1).ok
    vm.run("echo 1 >/sys/module/scsi_debug/parameters/wp")
    assert vm.blkio("write", main, [9000], seed=9).errors
    assert vm.blkio("write", DEVICE, "9000+8", seed=2).ok
    assert vm.blkio("verify", DEVICE, "9000+8", seed=2).ok and vm.blkio("verify", DEVICE, "9008+92", seed=1).ok
    assert status(vm).mapped == 8 and status(vm).health == "ok"
    # protected before it is opened, it can only be opened for reading
    vm.run(f"dmsetup remove r0 && echo 1 >/sys/block/{name}/device/rescan && dd if={main} of=/dev/null count=1 2>/dev/null")
    line = f"0 65536 remap {main} {vm.dev(spare)} 0"
    assert vm.try_run(["dmsetup", "create", "r0", "--table", line]).exit != 0
    vm.run(["dmsetup", "create", "r0", "--readonly", "--table", line])
    assert status(vm).mode == "ro" and status(vm).mapped == 8
    assert vm.run("blockdev --getro /dev/mapper/r0").stdout == "1\n"
    assert vm.blkio("verify", DEVICE, "9000+8", seed=2).ok


# Limits


def test_max_burst_passes_on_what_is_beyond(boot, bare):
    bad = list(range(9000, 9020))
    main, spare = bare(bad_write=bad, bad_read=[20000])
    vm = boot(main, spare)
    device = open_set(vm, features="2 max_burst 5")
    assert vm.run("dmsetup table r0").stdout.strip().endswith(" 2 max_burst 5")
    assert sorted(vm.blkio("write", device, bad, seed=1).errors) == bad[5:]
    now = status(vm)
    assert (now.mapped, now.burst, now.failed, now.circuit) == (5, 15, 15, 0)
    assert now.health == "ok" and now.mode == "rw"
    assert vm.blkio("verify", device, bad[:5], seed=1).ok
    # what has its place, and what somebody asks for, is not limited
    assert vm.blkio("write", device, bad[:5], seed=2).ok
    vm.run("dmsetup message r0 0 remap 20000 8")
    assert vm.blkio("write", device, "20000+8", seed=2).ok
    assert status(vm).mapped == 13
    # a write is remapped as a whole or not at all
    vm.run("dmsetup remove r0")
    open_set(vm, features="2 max_burst 4")
    assert vm.blkio("write", device, "9008+8", bs=4096, seed=3).errors and status(vm).mapped == 13
    assert vm.blkio("write", device, "9008+4", bs=2048, seed=3).ok and status(vm).mapped == 17


@pytest.mark.long
def test_max_burst_begins_anew_after_a_minute(boot, bare):
    bad = list(range(9000, 9020))
    main, spare = bare(bad_write=bad)
    vm = boot(main, spare)
    device = open_set(vm, features="2 max_burst 5")
    assert sorted(vm.blkio("write", device, bad, seed=1).errors) == bad[5:]
    vm.run("sleep 62", timeout=90)
    assert sorted(vm.blkio("write", device, bad, seed=1).errors) == bad[10:]


def test_low_space_is_said_before_the_spare_is_full(boot, bare):
    main, spare = bare(spare_size="1M")
    vm = boot(main, spare)
    open_set(vm, features="2 low_space 50")
    assert vm.run("dmsetup table r0").stdout.strip().endswith(" 2 low_space 50")
    slots = int(status(vm).slots.partition("/")[2])
    vm.run(f"dmsetup message r0 0 remap 9000 {slots // 2}")
    assert status(vm).health == "ok"
    events = vm.run("dmsetup info -c --noheadings -o events r0").stdout
    vm.run("dmsetup message r0 0 remap 20000 8")
    assert status(vm).health == "low-space" and status(vm).mode == "rw"
    assert int(vm.run("dmsetup info -c --noheadings -o events r0").stdout) > int(events)
    vm.run("dmsetup message r0 0 forget 20000 8")
    assert status(vm).health == "ok"
    # by default a tenth
    vm.run("dmsetup remove r0")
    open_set(vm)
    vm.run(f"dmsetup message r0 0 remap 9000 {slots * 85 // 100}")
    assert status(vm).health == "ok"
    vm.run(f"dmsetup message r0 0 remap 9000 {slots * 91 // 100}")
    assert status(vm).health == "low-space"


def test_features_are_told_back_in_order_and_nonsense_is_refused(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    open_set(vm, features="7 low_space 20 fua no_auto_remap max_burst 3 read_only")
    assert vm.run("dmsetup table r0").stdout.strip().endswith(" 7 read_only no_auto_remap fua max_burst 3 low_space 20")
    vm.run("dmsetup remove r0")
    for features in ("1 max_burst", "2 max_burst x", "2 max_burst -1", "1 low_space", "2 low_space 101", "1 frobnicate", "2 fua", "9 fua"):
        line = f"0 65536 remap {vm.dev(main)} {vm.dev(spare)} {features}"
        assert vm.try_run(["dmsetup", "create", "r0", "--table", line]).exit != 0, features


# Who hears of it


def event_number(vm) -> int:
    """How many events the device has raised."""
    return int(vm.run("dmsetup info -c --noheadings -o events r0").stdout)


def test_whoever_waits_is_woken_by_a_remap(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "100+8", seed=1).ok
    number = event_number(vm)
    waiting = vm.start(["dmsetup", "wait", "r0", str(number)])
    assert vm.blkio("write", device, "200+8", seed=1).ok
    assert not vm.blkio("read", device, "0+100").errors
    vm.run("sleep 0.5")
    assert waiting.running() and event_number(vm) == number
    assert vm.blkio("write", device, BAD[:1], seed=1).ok
    assert waiting.wait(10).exit == 0
    assert event_number(vm) > number


def test_a_lost_block_that_is_written_raises_an_event(boot, bare):
    main, spare = bare(bad_read=[5000])
    vm = boot(main, spare)
    device = open_set(vm)
    vm.run("dmsetup message r0 0 remap 5000")
    assert status(vm).lost == 1
    before = event_number(vm)
    assert vm.blkio("write", device, [5000], seed=1).ok
    # the same slots are used as before, but not for the same
    assert status(vm).mapped == 1 and event_number(vm) > before


def test_every_change_of_health_raises_an_event(boot, bare):
    main, spare = bare(bad_write=BAD)
    layout = Spare(spare)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "100+8", seed=1).ok

    def raises(health, operation, *words, **options):
        before = event_number(vm)
        report = vm.blkio(operation, device, *words, **options)
        assert status(vm).health == health and event_number(vm) > before
        return report

    # one copy of the table can no longer be written
    vm.set_faults(spare, bad_write=[layout.tables[0]])
    assert raises("degraded", "write", BAD[:1], seed=1).ok
    # no slot can be written
    vm.set_faults(spare, fail_write=True)
    assert raises("spare-lost", "write", BAD[1:2], seed=1).errors
    vm.set_faults(spare, bad_write=[layout.tables[0]])
    assert raises("degraded", "write", BAD[1:2], seed=1).ok
    # the main is gone, and back
    vm.set_faults(main, fail_write=True, fail_read=True)
    assert raises("main-lost", "write", [20000], seed=1).errors
    vm.set_faults(main)
    assert not raises("degraded", "read", [20000]).errors


@pytest.mark.kernels("6.1", "6.12")
def test_uevents_name_the_set_and_its_health_but_do_not_flood(boot, bare):
    bad = list(range(9000, 9200))
    main, spare = bare(bad_write=bad)
    vm = boot(main, spare, files={"/uevents": guest_program("uevents")})
    device = open_set(vm)
    uuid = status(vm).set_uuid
    listener = vm.start(["/uevents", "DM_REMAP_SET"])
    listener.wait_output("listening")
    assert vm.blkio("write", device, bad, seed=1).ok
    listener.wait_output(f"DM_REMAP_SET={uuid}", timeout=10)
    vm.set_faults(main, fail_write=True, fail_read=True)
    assert vm.blkio("write", device, [20000], seed=1).errors
    listener.wait_output("DM_REMAP_HEALTH=main-lost", timeout=10)
    now = status(vm)
    used, total = map(int, now.slots.split("/"))
    lines = [line.split() for line in listener.result().lines[1:]]
    for line in lines:
        assert line[0].startswith("change@/devices/virtual/block/dm-") and f"DM_REMAP_SET={uuid}" in line and "DM_REMAP_MODE=rw" in line
    assert {f"DM_REMAP_MAPPED={now.mapped}", f"DM_REMAP_FREE={total - used}"} <= set(lines[-1])
    assert "DM_REMAP_HEALTH=ok" in lines[0] and "DM_REMAP_HEALTH=main-lost" in lines[-1]
    # far fewer than remaps, which were one commit each
    assert event_number(vm) > 100 and len(lines) < 20, len(lines)
    listener.kill()
