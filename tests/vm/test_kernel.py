# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel target on disks that really fail."""

import random

import pytest
from remapvm import SECTOR, BlkioReport, CommandFailed
from remapvm.sets import Spare, Trace, format_set, open_set, status, table

pytestmark = [pytest.mark.vm, pytest.mark.uml_suffices]

# Not where adoption hides blocks (docs/design.md): 2048 and 4096 would be among them.
BAD = [2100, 2101, 5000, 9999]


# What was written is read back


@pytest.mark.kernels("6.1", "6.12")
@pytest.mark.parametrize("interface", ["virtio", "scsi", "nvme"])
def test_a_write_to_a_bad_sector_is_read_back_wherever_it_went(boot, adopted, interface):
    main, spare = adopted(bad_write=BAD, interface=interface)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "2050+100,4990+20,9990+20", seed=3, fua=True).ok
    assert vm.blkio("verify", device, "2050+100,4990+20,9990+20", seed=3).ok
    assert status(vm).remapped == len(BAD)

    vm.run("dmsetup remove r0")
    open_set(vm)
    assert vm.blkio("verify", device, "2050+100,4990+20,9990+20", seed=3).ok

    vm.run("dmsetup remove r0 && rmmod dm-remap && modprobe dm-remap")
    open_set(vm)
    assert vm.blkio("verify", device, "2050+100,4990+20,9990+20", seed=3).ok

    vm.run("dmsetup remove r0")
    vm.shutdown()
    vm = boot(main, spare)
    open_set(vm)
    assert vm.blkio("verify", device, "2050+100,4990+20,9990+20", seed=3).ok
    assert status(vm).remapped == 0 and status(vm).mapped - status(vm).hidden == len(BAD)


def test_a_large_write_over_one_bad_sector_costs_one_slot(boot, bare):
    main, spare = bare(bad_write=[9000])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "8192+2048", bs=1 << 20, seed=2).ok
    assert vm.blkio("verify", device, "8192+2048", seed=2).ok
    assert status(vm).mapped == 1


def test_neighbours_of_a_bad_sector_stay_where_they_are(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    assert vm.blkio("write", open_set(vm), seed=5, bs=65536).ok
    vm.run("dmsetup remove r0")
    assert sorted(Spare(spare).mapped()) == BAD
    assert sorted(vm.blkio("verify", main, seed=5).differs) == BAD


@pytest.mark.parametrize(
    "where",
    [
        "a partition",
        "a disk of 4 KiB sectors",
        pytest.param("a spare of 4 KiB physical sectors", marks=pytest.mark.needs_qemu("physical block sizes")),
    ],
)
def test_the_kind_of_disk_does_not_matter(boot, disk, where):
    block = 4096 if where == "a disk of 4 KiB sectors" else SECTOR
    bad = [4096 + 8 * number for number in (1, 2, 90, 400)]
    main = disk("main", "32M", block=block, bad_write=[sector + 2048 * (where == "a partition") for sector in bad])
    spare = disk("spare", "8M", block=block, physical=4096 if "physical" in where else None)
    vm = boot(main, spare)
    device = vm.dev(main)
    if where == "a partition":
        # a partition table by hand: sfdisk is not in this guest
        entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (49152).to_bytes(4, "little")
        vm.push(bytes(446) + entry + bytes(48) + b"\x55\xaa", "/tmp/mbr")
        vm.run("dd if=/tmp/mbr of={main} bs=512 conv=fsync 2>/dev/null; blockdev --rereadpt {main}")
        device += "1"
    vm.run(f"remapsetup format --yes --bare --remaptab none --rescue-file none {device} {{spare}}")
    sectors = int(vm.run(["blockdev", "--getsz", device]).stdout)
    vm.run(["dmsetup", "create", "r0", "--table", f"0 {sectors} remap {device} {vm.dev(spare)} 0"])
    assert vm.run("blockdev --getss /dev/mapper/r0").stdout == f"{block}\n"
    assert vm.blkio("write", "/dev/mapper/r0", "4096+4096", bs=16384, seed=1).ok
    assert vm.blkio("verify", "/dev/mapper/r0", "4096+4096", bs=4096, seed=1).ok
    assert status(vm).mapped == len(bad)
    slots = sorted(Spare(spare).mapped().values())
    if "physical" in where:
        # neither of these is beside another one in the main, except the first two, which are 8 sectors apart
        assert len({Spare(spare).slot_sector(slot) // 8 for slot in slots}) == len(slots)


# Any instant may be the last


def test_a_write_acknowledged_with_fua_survives_a_power_cut_at_once(boot, adopted):
    bad = sorted(random.Random(7).sample(range(9000, 40000), 2000))
    main, spare = adopted(bad_write=bad)
    acked = set()
    for threads in (1, 2, 8):
        vm = boot(main, spare)
        device = open_set(vm)
        assert not acked or vm.blkio("verify", device, acked, seed=9).ok
        todo = [sector for sector in bad if sector not in acked]
        if not todo:
            break  # a slow host let the writer finish before the cut
        writer = vm.start_blkio("write", device, todo, seed=9, fua=True, ack=True, threads=threads)
        writer.wait_output(f"ok {todo[min(50, len(todo) - 1)]} ", timeout=30)
        vm.power_cut()
        acked |= BlkioReport(writer.result()).acked
    vm = boot(main, spare)
    assert acked and vm.blkio("verify", open_set(vm), acked, seed=9).ok
    assert len(acked) <= status(vm).mapped - status(vm).hidden


def test_remaps_are_in_both_table_copies(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    assert vm.blkio("write", open_set(vm), BAD, seed=1, fua=True).ok
    vm.power_cut()
    layout = Spare(spare)
    assert layout.entries(0) == layout.entries(1)
    assert sorted(layout.mapped()) == BAD


# Reads


def test_a_read_error_is_passed_on_and_maps_nothing(boot, bare):
    main, spare = bare(bad_read=BAD)
    vm = boot(main, spare)
    device = open_set(vm)
    assert sorted(vm.blkio("verify", device, "1000+10000", seed=0).errors) == BAD
    assert status(vm).mapped == 0 and status(vm).main_read_errors == len(BAD)
    # written, they are readable again: this disk takes writes
    assert status(vm).failed == 0


def test_a_sector_that_can_neither_be_read_nor_written_is_readable_after_a_write(boot, adopted):
    main, spare = adopted(bad_write=BAD, bad_read=BAD)
    vm = boot(main, spare)
    device = open_set(vm)
    assert sorted(vm.blkio("read", device, BAD).errors) == BAD
    assert vm.blkio("write", device, BAD, seed=4).ok
    assert vm.blkio("verify", device, BAD, seed=4).ok


# Only what fails is remapped, once


def test_concurrent_errors_on_one_block_make_one_remap(boot, bare):
    main, spare = bare(bad_write=[4096])
    vm = boot(main, spare, smp=2)
    device = open_set(vm)
    for _ in range(5):
        assert vm.blkio("write", device, ",".join(["4096"] * 64), seed=6, threads=16).ok
    assert status(vm).mapped == 1
    assert vm.blkio("verify", device, [4096], seed=6).ok


def test_errors_of_the_spare_are_not_remapped(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD[:1], seed=1).ok
    vm.set_faults(spare, fail_write=True)
    # neither a block that has its slot, nor one that would need one
    assert sorted(vm.blkio("write", device, BAD, seed=2).errors) == BAD
    assert status(vm).mapped == 1 and status(vm).health == "spare-lost"
    # good blocks of the main do not need the spare
    assert vm.blkio("write", device, "100+50", seed=3).ok
    vm.run("dmsetup remove r0")
    assert sorted(Spare(spare).mapped()) == BAD[:1]


def test_a_slot_that_fails_is_replaced_and_never_used_again(boot, bare):
    main, spare = bare(bad_write=BAD)
    bad_slot = Spare(spare).slot_sector(1)
    spare.set_faults(bad_write=[bad_slot])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD, seed=1, fua=True).ok
    assert status(vm).mapped == len(BAD) and status(vm).bad == 1
    vm.power_cut()
    assert Spare(spare).entries()[1][0] == "bad"
    # a slot that was good until now
    victim = Spare(spare).mapped()[BAD[0]]
    spare.set_faults(bad_write=[bad_slot, Spare(spare).slot_sector(victim)])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD, seed=2, fua=True).ok
    assert vm.blkio("verify", device, BAD, seed=2).ok
    assert status(vm).mapped == len(BAD) and status(vm).bad == 2
    vm.power_cut()
    assert Spare(spare).entries()[victim][0] == "bad"


def test_a_main_that_is_gone_costs_no_slot(boot, adopted):
    main, spare = adopted()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "9000+8", seed=1).ok
    vm.set_faults(main, fail_write=True, fail_read=True)
    assert len(vm.blkio("write", device, "9000+8", seed=2).errors) == 8
    assert status(vm).remapped == 0
    assert status(vm).health == "main-lost" and status(vm).circuit > 0
    # write-protected, it still answers
    vm.set_faults(main, fail_write=True)
    assert vm.blkio("read", device, "9000+8").ok
    assert status(vm).health == "ok"
    assert vm.blkio("write", device, "9000+8", seed=2).ok
    assert status(vm).remapped == 8


def test_no_write_is_remapped_when_told_not_to(boot, bare):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    device = open_set(vm, features="1 no_auto_remap")
    assert sorted(vm.blkio("write", device, BAD).errors) == BAD
    assert status(vm).mapped == 0
    assert vm.run("dmsetup table r0").stdout.strip().endswith(" 1 no_auto_remap")


def test_a_full_spare_lets_the_error_through(boot, bare):
    main, spare = bare(spare_size="1M", bad_write=range(8192, 16384))
    vm = boot(main, spare)
    device = open_set(vm)
    slots = int(status(vm).slots.partition("/")[2])
    report = vm.blkio("write", device, "8192+8192", seed=1)
    assert len(report.errors) == 8192 - slots
    assert status(vm).health == "full" and status(vm).mapped == slots
    good = [sector for sector in range(8192, 16384) if sector not in report.errors]
    assert vm.blkio("verify", device, good, seed=1).ok


# The table on the spare


def test_a_table_copy_that_cannot_be_written_loses_its_vote(boot, bare):
    main, spare = bare(bad_write=BAD)
    layout = Spare(spare)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD[:1], seed=1).ok
    vm.set_faults(spare, bad_write=[layout.tables[0]])
    assert vm.blkio("write", device, BAD[1:], seed=1).ok
    assert status(vm).copies == "1/2" and status(vm).health == "degraded"
    vm.power_cut()
    # the stale copy has no say, although it is whole
    assert sorted(layout.mapped(0)) == BAD[:1]
    spare.set_faults()
    vm = boot(main, spare)
    assert vm.blkio("verify", open_set(vm), BAD, seed=1).ok
    assert status(vm).copies == "1/2"


def test_a_write_whose_commit_failed_is_never_acknowledged_by_the_main(boot, bare):
    main, spare = bare(bad_write=BAD)
    layout = Spare(spare)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [100], seed=1).ok
    # every copy of the table fails, the slots do not
    vm.set_faults(spare, bad_write=list(layout.tables))
    assert vm.blkio("write", device, BAD[:1], seed=1).errors
    assert status(vm).doubt == 1 and status(vm).mode == "ro"
    # the main takes it now, but an entry may be on the spare
    vm.set_faults(main)
    assert vm.blkio("write", device, BAD[:1], seed=2).errors
    assert vm.blkio("read", device, BAD[:1]).errors
    # all else goes on
    assert vm.blkio("write", device, BAD[1:], seed=2).ok
    # the next commit that succeeds settles it
    vm.set_faults(spare)
    assert vm.blkio("write", device, BAD[:1], seed=3).ok
    assert status(vm).doubt == 0 and status(vm).mode == "rw" and status(vm).mapped == 1
    vm.run("dmsetup remove r0")
    open_set(vm)
    assert vm.blkio("verify", device, BAD[:1], seed=3).ok


def test_a_superblock_copy_that_cannot_be_written_is_no_obstacle_three_are(boot, adopted):
    main, spare = adopted(bad_write=BAD)
    places = Spare(spare).superblocks
    spare.set_faults(bad_write=places[:2])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD, seed=1).ok
    assert status(vm).health == "degraded"
    vm.run("dmsetup remove r0")
    vm.set_faults(spare, bad_write=places[:3])
    open_set(vm)
    assert vm.blkio("write", device, "100+4", seed=2).errors
    assert status(vm).mode == "fail"
    assert vm.blkio("verify", device, BAD, seed=1).ok
    vm.set_faults(spare)
    assert vm.blkio("write", device, "100+4", seed=2).ok
    assert status(vm).mode == "rw"
    vm.run("dmsetup remove r0")
    open_set(vm)


@pytest.mark.needs_qemu("flushes that fail and then do not: exchanging the faults flushes the disk")
@pytest.mark.parametrize("interface", ["virtio", "nvme"])
def test_a_flush_of_the_spare_that_fails_commits_nothing_and_is_passed_on(boot, bare, interface):
    main, spare = bare(bad_write=BAD, spare={"interface": interface})
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, BAD[:1], seed=1).ok
    vm.set_faults(spare, fail_flush=True)
    assert vm.blkio("write", device, BAD[1:2], seed=1).errors
    vm.set_faults(spare)
    # the drive has said once that its cache is lost, and it said so to us
    assert vm.blkio("flush", device).errors
    assert vm.blkio("flush", device).ok
    # nothing was written to the table, so nothing is in doubt, and it can be tried again
    assert status(vm).doubt == 0 and sorted(Spare(spare).mapped()) == BAD[:1]
    assert vm.blkio("write", device, BAD[1:2], seed=2).ok and status(vm).mode == "rw"
    vm.run("dmsetup remove r0")
    assert sorted(Spare(spare).mapped()) == BAD[:2]


def test_one_damaged_copy_of_the_superblock_is_never_taken_for_a_newer_format(boot, bare):
    main, spare = bare()
    spare.write(4096 + 20, (2).to_bytes(4, "little"))
    vm = boot(main, spare)
    open_set(vm)


def test_superblocks_older_than_the_table_are_refused(boot, bare):
    bad = list(range(9000, 10000))
    main, spare = bare(bad_write=bad, spare_size="8M")
    old = {place: spare.read(place * SECTOR, 4096) for place in Spare(spare).superblocks}
    vm = boot(main, spare)
    # more than the initialised table holds: it is extended
    assert vm.blkio("write", open_set(vm), bad, seed=1).ok
    vm.shutdown()
    assert Spare(spare).table_length > 1
    for place, content in old.items():
        spare.write(place * SECTOR, content)
    vm = boot(main, spare)
    with pytest.raises(CommandFailed):
        open_set(vm)


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_copy_is_mended_before_its_only_good_one_is_touched(boot, bare, torn):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    assert vm.blkio("write", open_set(vm), BAD, seed=1, fua=True).ok
    vm.power_cut()
    tables = Spare(spare).tables
    spare.write(tables[torn] * SECTOR + 2048, b"\xff" * 2048)
    vm = boot(main, spare)
    device = open_set(vm)
    with Trace(vm, spare) as trace:
        assert vm.blkio("write", device, [100], seed=1).ok
    assert [sector for sector in trace.writes() if sector in tables] == [tables[torn], tables[1 - torn]]


@pytest.mark.parametrize("interface", ["virtio", "nvme"])
def test_slots_are_flushed_before_their_entries_are_written_copy_by_copy(boot, bare, interface):
    main, spare = bare(bad_write=BAD, spare={"interface": interface})
    layout = Spare(spare)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [100], seed=1).ok
    with Trace(vm, spare) as trace:
        assert vm.blkio("write", device, BAD[2:3], seed=1).ok
    slot = layout.slot_sector(layout.mapped()[BAD[2]])
    kinds = [kind for kind, _ in trace.requests]
    order = [(number, sector) for number, (_, sector) in enumerate(trace.requests) if sector in (slot, *layout.tables)]
    assert [sector for _, sector in order][0] == slot and {sector for _, sector in order[1:]} == set(layout.tables), trace.requests
    (data, _), (first, _), (second, _) = order
    assert "flush" in kinds[data:first], trace.requests
    # each copy is durable before the next, and the last before the acknowledgement
    assert kinds[first].endswith("FS") or "flush" in kinds[first:second], trace.requests
    assert kinds[second].endswith("FS") or "flush" in kinds[second:], trace.requests


@pytest.mark.parametrize("interface", ["virtio", "nvme"])
def test_the_epoch_is_on_the_spare_before_it_is_on_the_main(boot, adopted, interface):
    main, spare = adopted(interface=interface)
    vm = boot(main, spare)
    device = open_set(vm)
    with Trace(vm, spare) as on_spare, Trace(vm, main) as on_main:
        assert vm.blkio("write", device, [9000], seed=1).ok
    layout = Spare(spare)
    assert [sector for sector in on_spare.writes() if sector in layout.superblocks] == list(layout.superblocks) * 2
    # last label first, the data after all of them
    written = on_main.writes()
    assert written[-1] == 9000 and written[:-1] == sorted(written[:-1], reverse=True) and written[-2] == 0


@pytest.mark.parametrize("copy", [0, 1])
def test_a_damaged_table_copy_is_made_good_at_the_first_write(boot, bare, copy):
    main, spare = bare(bad_write=BAD)
    vm = boot(main, spare)
    assert vm.blkio("write", open_set(vm), BAD, seed=1, fua=True).ok
    vm.power_cut()
    layout = Spare(spare)
    spare.write(layout.tables[copy] * SECTOR + 100, b"damage")
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("verify", device, BAD, seed=1).ok
    assert layout.entries(0) != layout.entries(1)
    assert vm.blkio("write", device, [100], seed=1).ok
    assert layout.entries(0) == layout.entries(1)


def test_a_table_block_without_a_valid_copy_is_refused(boot, bare):
    main, spare = bare(bad_write=BAD)
    for start in Spare(spare).tables:
        spare.write(start * SECTOR + 100, b"damage")
    vm = boot(main, spare)
    with pytest.raises(CommandFailed):
        open_set(vm)
    assert "has no valid copy" in vm.dmesg()


def test_reads_alone_write_nothing_to_either_member(boot, adopted):
    main, spare = adopted(bad_write=BAD)
    before = main.path.read_bytes(), spare.path.read_bytes()
    vm = boot(main, spare)
    device = open_set(vm)
    assert not vm.blkio("read", device, bs=65536).errors
    assert vm.blkio("flush", device).ok
    vm.run("dmsetup remove r0")
    open_set(vm, features="1 read_only")
    assert vm.blkio("write", device, [4000]).errors
    vm.run("dmsetup remove r0")
    vm.shutdown()
    assert (main.path.read_bytes(), spare.path.read_bytes()) == before


def test_the_epoch_goes_up_on_both_members_once_for_each_activation_that_writes(boot, adopted):
    main, spare = adopted()
    vm = boot(main, spare)
    for expected in (1, 2, 3):
        device = open_set(vm)
        assert status(vm).epoch in (expected, expected + 1) and vm.blkio("write", device, "5000+3", seed=expected).ok
        first = status(vm).epoch
        vm.run("dmsetup suspend r0 && dmsetup resume r0")
        assert vm.blkio("write", device, "5000+3", seed=expected).ok
        assert status(vm).epoch == first
        vm.run("dmsetup remove r0")
        # label in the main's first sector: epoch after the 128 bytes of the head
        assert int.from_bytes(main.read(128, 4), "little") == first
        assert int.from_bytes(spare.read(4096 + 128, 4), "little") == first
        assert int.from_bytes(spare.read(4096 + 132, 4), "little") == first


# Only the right pair


def refused(vm, text, **options):
    """The table is refused, and the kernel log says why."""
    with pytest.raises(CommandFailed):
        open_set(vm, **options)
    log = vm.dmesg()
    assert text in log, log[-2000:]


def test_main_and_spare_swapped_are_refused(boot, adopted):
    main, spare = adopted()
    vm = boot(main, spare)
    refused(vm, "swapped", main="spare", spare="main")


def test_a_spare_of_another_set_is_refused(boot, adopted, disk):
    main, spare = adopted()
    other_main, other_spare = disk("other_main", "32M"), disk("other_spare", "4M")
    format_set(other_main, other_spare)
    vm = boot(main, other_spare)
    refused(vm, "Main belongs to another set", spare="other_spare")


def test_yesterdays_copy_of_either_member_is_refused(boot, adopted, disk):
    main, spare = adopted(bad_write=BAD)
    old_main = disk("old_main", path=main.path.parent / "old_main.img")
    old_spare = disk("old_spare", path=main.path.parent / "old_spare.img")
    old_main.path.write_bytes(main.path.read_bytes())
    old_spare.path.write_bytes(spare.path.read_bytes())
    vm = boot(main, spare)
    for _ in range(2):
        assert vm.blkio("write", open_set(vm), BAD, seed=1).ok
        vm.run("dmsetup remove r0")
    vm.shutdown()
    vm = boot(main, spare, old_main, old_spare)
    refused(vm, "the spare is an old copy", spare="old_spare")
    refused(vm, "the main is an old copy", main="old_main")
    open_set(vm)


def test_garbage_a_newer_format_and_an_unfinished_set_are_refused(boot, bare, disk):
    main, spare = bare()
    garbage = disk("garbage", "4M")
    garbage.write(0, random.Random(3).randbytes(4 << 20))
    vm = boot(main, spare, garbage)
    refused(vm, "No valid superblock", spare="garbage")
    vm.shutdown()
    for place in Spare(spare).superblocks:
        spare.write(place * SECTOR + 20, (2).to_bytes(4, "little"))
    vm = boot(main, spare)
    refused(vm, "newer format version")


def test_a_main_that_is_too_short_is_refused_and_a_longer_one_served_as_recorded(boot, bare, disk):
    main, spare = bare()
    short = disk("short", "16M")
    long = disk("long", "48M")
    vm = boot(main, spare, short, long)
    refused(vm, "Main is shorter than recorded", main="short")
    open_set(vm, main="long", sectors=65536)
    vm.run("dmsetup remove r0")
    refused(vm, "does not fit", main="long")


def test_one_set_has_one_device(boot, bare, disk):
    main, spare = bare()
    other_main, other_spare = disk("other_main", "32M"), disk("other_spare", "4M")
    format_set(other_main, other_spare, "--bare")
    vm = boot(main, spare, other_main, other_spare)
    open_set(vm)
    refused(vm, "in use by", name="r1")
    refused(vm, "in use by", name="r1", main="other_main")
    open_set(vm, name="r1", main="other_main", spare="other_spare")


# Life with device-mapper


def test_the_older_projects_table_line_works_on_loop_devices(boot):
    vm = boot()
    vm.run("modprobe loop max_loop=8; truncate -s 100M /tmp/main.img; truncate -s 8M /tmp/spare.img")
    vm.run("losetup /dev/loop0 /tmp/main.img; losetup /dev/loop1 /tmp/spare.img")
    vm.run("remapsetup format --yes --bare --remaptab none --rescue-file none /dev/loop0 /dev/loop1")
    vm.run(["dmsetup", "create", "old", "--table", "0 204800 dm-remap /dev/loop0 /dev/loop1 0"])
    assert vm.blkio("write", "/dev/mapper/old", "0+204800", bs=1 << 20, seed=1).ok
    assert vm.blkio("verify", "/dev/mapper/old", "0+204800", bs=1 << 20, seed=1).ok
    assert vm.run("dmsetup table old").stdout.split()[2] == "dm-remap"


def test_errors_from_below_a_stack_are_remapped(boot):
    vm = boot()
    vm.run("modprobe loop max_loop=8; truncate -s 32M /tmp/main.img; truncate -s 4M /tmp/spare.img")
    vm.run("losetup /dev/loop0 /tmp/main.img; losetup /dev/loop1 /tmp/spare.img")
    vm.run("remapsetup format --yes --bare --remaptab none --rescue-file none /dev/loop0 /dev/loop1")
    # remap over flakey over loop
    vm.run(["dmsetup", "create", "low", "--table", "0 65536 linear /dev/loop0 0"])
    vm.run(["dmsetup", "create", "r0", "--table", "0 65536 remap /dev/mapper/low /dev/loop1 0"])
    assert vm.blkio("write", "/dev/mapper/r0", "0+1000", seed=1).ok

    def reload_low(line):
        vm.run("dmsetup suspend r0 && dmsetup suspend low")
        vm.run(["dmsetup", "load", "low"], stdin=line)
        vm.run("dmsetup resume low && dmsetup resume r0")

    reload_low("0 65536 flakey /dev/loop0 0 0 3600 1 error_writes\n")
    assert vm.blkio("write", "/dev/mapper/r0", "1000+100", seed=2).ok
    assert status(vm).mapped == 100
    # remap over linear and error segments
    reload_low("0 4096 linear /dev/loop0 0\n4096 8 error\n4104 61432 linear /dev/loop0 4104\n")
    assert vm.blkio("write", "/dev/mapper/r0", "4000+200", bs=4096, seed=3).ok
    assert status(vm).mapped == 108
    assert vm.blkio("verify", "/dev/mapper/r0", "1000+100", seed=2).ok
    assert vm.blkio("verify", "/dev/mapper/r0", "4000+200", seed=3).ok
    # errors below the spare are none of the main's
    vm.run(["dmsetup", "remove", "r0"])
    vm.run(["dmsetup", "create", "sp", "--table", "0 8192 linear /dev/loop1 0"])
    vm.run(["dmsetup", "create", "r0", "--table", "0 65536 remap /dev/mapper/low /dev/mapper/sp 0"])
    assert vm.blkio("write", "/dev/mapper/r0", [50000], seed=3).ok
    vm.run("dmsetup suspend r0 && dmsetup suspend sp")
    vm.run(["dmsetup", "load", "sp"], stdin="0 8192 flakey /dev/loop1 0 0 3600 1 error_writes\n")
    vm.run("dmsetup resume sp && dmsetup resume r0")
    assert vm.blkio("write", "/dev/mapper/r0", "1000+10", seed=4).errors
    assert vm.blkio("write", "/dev/mapper/r0", "30000+10", seed=4).ok
    assert status(vm).mapped == 108


def test_a_table_is_reloaded_under_load(boot, bare):
    main, spare = bare(bad_write=range(8192, 8292))
    vm = boot(main, spare)
    device = open_set(vm)
    writer = vm.start_blkio("write", device, "8000+20000", seed=1, threads=4)
    for _ in range(10):
        vm.run(["dmsetup", "reload", "r0", "--table", table(vm)])
        vm.run("dmsetup suspend r0 && dmsetup resume r0")
    assert writer.wait(120).exit == 0
    assert vm.blkio("verify", device, "8000+20000", bs=4096, seed=1).ok
    assert status(vm).mapped == 100


def test_200_devices_come_and_go_while_remaps_happen(boot, bare):
    rng = random.Random(5)
    bad = sorted(rng.sample(range(8192, 60000), 1500))
    main, spare = bare(bad_write=bad)
    vm = boot(main, spare)
    written = [rng.sample(bad, 8) for _ in range(200)]
    vm.push(table(vm).encode(), "/tmp/table")
    vm.push("".join(",".join(map(str, sectors)) + "\n" for sectors in written).encode(), "/tmp/written")
    script = """
        while read -r sectors; do
            dmsetup create r0 /tmp/table || exit 1
            blkio write --seed 1 --threads 4 --at "$sectors" /dev/mapper/r0 || exit 2
            dmsetup remove r0 || exit 3
        done </tmp/written
        rmmod dm-remap
    """
    vm.run(script, timeout=300)
    device = open_set(vm)
    mapped = sorted(Spare(spare).mapped())
    assert mapped == sorted(set().union(*written))
    assert vm.blkio("verify", device, mapped, seed=1).ok


def test_removal_needs_neither_main_nor_spare(boot, adopted):
    main, spare = adopted(bad_write=BAD)
    vm = boot(main, spare)
    assert vm.blkio("write", open_set(vm), BAD, seed=1).ok
    before = vm.run("dmsetup status r0").stdout
    vm.set_faults(main, fail_write=True, fail_read=True, fail_flush=True)
    vm.set_faults(spare, fail_write=True, fail_read=True, fail_flush=True)
    vm.run("dmsetup suspend r0 && dmsetup resume r0")
    assert vm.run("dmsetup status r0").stdout == before
    vm.run("dmsetup remove r0 && rmmod dm-remap", timeout=20)


def test_a_deferred_removal_happens_when_the_last_user_goes(boot, bare):
    main, spare = bare(bad_write=range(8192, 8292))
    vm = boot(main, spare)
    writer = vm.start_blkio("write", open_set(vm), "8000+600", seed=1)
    vm.run("dmsetup remove --deferred r0")
    assert writer.wait(60).exit == 0
    vm.run("while dmsetup info r0 >/dev/null 2>&1; do sleep 0.1; done; rmmod dm-remap", timeout=20)
    assert sorted(Spare(spare).mapped()) == list(range(8192, 8292))


# File systems


def test_mkfs_on_bad_sectors_succeeds_and_fsck_is_clean(boot, adopted):
    rng = random.Random(11)
    bad = sorted(set(rng.sample(range(2048, 130000), 400)) | set(range(2048, 2060)))
    main, spare = adopted(size="64M", spare_size="8M", bad_write=bad)
    vm = boot(main, spare)
    open_set(vm)
    vm.run("mkfs.ext4 -q /dev/mapper/r0 && e2fsck -fn /dev/mapper/r0")
    vm.run("mount /dev/mapper/r0 /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=30 conv=fsync 2>/dev/null")
    digest = vm.run("sha256sum </mnt/file").stdout
    vm.run("umount /mnt && e2fsck -fn /dev/mapper/r0 && mount /dev/mapper/r0 /mnt")
    assert vm.run("echo 3 >/proc/sys/vm/drop_caches; sha256sum </mnt/file").stdout == digest
    assert status(vm).remapped > 20 and status(vm).failed == 0
    vm.run("umount /mnt && dmsetup remove r0")
    # on the raw members there is nothing for anybody else
    assert vm.try_run("blkid -p {main}").exit == 2
    assert vm.try_run("blkid -p {spare}").exit == 2
    assert vm.run("wipefs {main}; wipefs {spare}").stdout == ""


def test_the_same_disk_without_us_fails(boot, disk):
    rng = random.Random(11)
    bad = sorted(set(rng.sample(range(2048, 130000), 400)) | set(range(2048, 2060)))
    main = disk("main", "64M", bad_write=bad)
    vm = boot(main, remap=False)
    assert vm.try_run("mkfs.ext4 -q {main}").exit != 0
