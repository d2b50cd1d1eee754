# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages to the kernel target: remap, forget, check, list, reset_stats."""

import random
import time

import pytest
from remapvm import SECTOR
from remapvm.sets import Spare, open_set, status

pytestmark = [pytest.mark.vm, pytest.mark.uml_suffices]

BLOCKS = 65536  # of the main of 32M
ERRORS = {
    "EPERM": "Operation not permitted",
    "EIO": "Input/output error",
    "EBUSY": "Device or resource busy",
    "EINVAL": "Invalid argument",
    "ENOSPC": "No space left on device",
    "EROFS": "Read-only file system",
    "EUCLEAN": "Structure needs cleaning",
}


def message(vm, *words, name="r0", timeout=60):
    """A message that must succeed; returns the lines of its reply."""
    return vm.run(["dmsetup", "message", name, "0", *map(str, words)], timeout=timeout).lines


def refused(vm, error, *words, name="r0"):
    """A message that must fail with this error."""
    result = vm.try_run(["dmsetup", "message", name, "0", *map(str, words)])
    assert result.exit != 0 and ERRORS[error] in result.stderr, result


def listed(vm, page=1000):
    """All that `list` says, page by page: {block: (slot or None, state)}; each run is checked to be in order."""
    found, start = {}, 0
    while True:
        lines = message(vm, "list", start, page)
        assert len(lines) <= page
        if not lines:
            return found
        for line in lines:
            block, count, slot, state = line.split()
            block, count = int(block), int(count)
            assert block >= start and count > 0, line
            for number in range(count):
                found[block + number] = (None if slot == "-" else int(slot) + number, state)
            start = block + count


def free_slots(vm):
    """How many slots are left."""
    used, total = map(int, status(vm).slots.split("/"))
    return total - used


# remap


@pytest.mark.kernels("6.1", "6.12")
@pytest.mark.parametrize("interface", ["virtio", "nvme"])
def test_remap_copies_what_is_there(boot, bare, interface):
    main, spare = bare(interface=interface)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "4990+100", seed=1).ok
    message(vm, "remap", 5000)
    message(vm, "remap", 5010, 50)
    now = status(vm)
    assert now.mapped == 51 and now.lost == 0 and now.remapped == 51
    # what is on the main at these places does not matter any more
    assert vm.blkio("write", main, "5000,5010-5059", seed=2).ok
    assert vm.blkio("verify", device, "4990+100", seed=1).ok
    # at once
    vm.power_cut()
    assert sorted(Spare(spare).mapped()) == [5000, *range(5010, 5060)]
    assert Spare(spare).entries(0) == Spare(spare).entries(1)
    vm = boot(main, spare)
    assert vm.blkio("verify", open_set(vm), "4990+100", seed=1).ok


def test_blocks_are_counted_in_the_sets_block_size(boot, bare):
    main, spare = bare(block=4096, spare={"block": 4096})
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "800+32", bs=4096, seed=1).ok
    message(vm, "remap", 101, 2)
    assert vm.blkio("write", main, "808+16", bs=4096, seed=2).ok
    assert vm.blkio("verify", device, "800+32", bs=4096, seed=1).ok
    assert sorted(Spare(spare).mapped()) == [101, 102]
    refused(vm, "EINVAL", "remap", BLOCKS // 8)
    message(vm, "forget", 101, 2)
    assert vm.blkio("verify", main, "800+32", bs=4096, seed=1).ok


def test_remap_leaves_a_block_lost_that_cannot_be_read(boot, bare):
    main, spare = bare(bad_read=[7000, 7003])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "6990+20", seed=1).ok
    message(vm, "remap", 6995, 10)
    assert status(vm).mapped == 8 and status(vm).lost == 2
    vm.power_cut()
    # not even if the disk reads it again, and not after a power cut
    main.set_faults()
    vm = boot(main, spare)
    device = open_set(vm)
    report = vm.blkio("verify", device, "6990+20", seed=1)
    assert report.errors == {7000: "EIO", 7003: "EIO"} and not report.differs
    assert vm.blkio("write", device, [7000], seed=2, fua=True).ok
    assert vm.blkio("verify", device, [7000], seed=2).ok
    assert status(vm).lost == 1 and status(vm).mapped == 9
    vm.power_cut()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("verify", device, [7000], seed=2).ok
    assert vm.blkio("verify", device, [7003]).errors == {7003: "EIO"}


def test_remap_leaves_alone_what_has_a_slot_or_is_lost(boot, bare):
    main, spare = bare(bad_write=[5000], bad_read=[5002])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [5000], seed=1).ok
    message(vm, "remap", 5002)
    before = Spare(spare).entries()
    message(vm, "remap", 5000)
    message(vm, "remap", 5002)
    assert Spare(spare).entries() == before
    message(vm, "remap", 4999, 6)
    after = Spare(spare).entries()
    assert before.items() <= after.items() and sorted(Spare(spare).mapped()) == [4999, 5000, 5001, 5003, 5004]
    assert vm.blkio("verify", device, [5000], seed=1).ok
    assert status(vm).lost == 1


def test_remap_ends_where_the_spare_does(boot, bare):
    main, spare = bare(spare_size="1M")
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "8192+4096", bs=65536, seed=1).ok
    slots = free_slots(vm)
    refused(vm, "ENOSPC", "remap", 8192, 4096)
    assert status(vm).mapped == slots and status(vm).health == "full" and free_slots(vm) == 0
    assert vm.blkio("verify", device, "8192+4096", bs=4096, seed=1).ok
    refused(vm, "ENOSPC", "remap", 100)
    # a block less, and there is room again
    message(vm, "forget", 8200)
    assert status(vm).health != "full"
    message(vm, "remap", 100)
    assert status(vm).mapped == slots


def test_a_spare_that_fails_is_said_so(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "5000+10", seed=1).ok
    vm.set_faults(spare, fail_write=True)
    refused(vm, "EIO", "remap", 5000, 10)
    assert status(vm).mapped == 0
    vm.set_faults(spare)
    message(vm, "remap", 5000, 10)
    assert vm.blkio("verify", device, "5000+10", seed=1).ok


def test_a_slot_that_fails_under_remap_is_replaced(boot, bare):
    main, spare = bare()
    spare.set_faults(bad_write=[Spare(spare).slot_sector(2)])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "5000+10", seed=1).ok
    message(vm, "remap", 5000, 10)
    assert status(vm).mapped == 10 and status(vm).bad == 1
    assert vm.blkio("write", main, "5000+10", seed=2).ok
    assert vm.blkio("verify", device, "5000+10", seed=1).ok


# forget


@pytest.mark.parametrize("interface", ["virtio", "nvme"])
def test_forget_brings_the_data_home(boot, bare, interface):
    main, spare = bare(bad_write=[5000, 5005], interface=interface)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "5000+10", seed=1).ok
    message(vm, "remap", 5001, 2)
    assert sorted(Spare(spare).mapped()) == [5000, 5001, 5002, 5005]
    # the sectors have been repaired, which no slot knows about
    vm.set_faults(main)
    assert vm.blkio("write", device, [5000, 5001, 5002, 5005], seed=3).ok
    message(vm, "forget", 4990, 30)
    assert status(vm).mapped == 0
    vm.power_cut()
    assert not Spare(spare).mapped(0) and not Spare(spare).mapped(1)
    vm = boot(main, spare)
    assert vm.blkio("verify", main, [5000, 5001, 5002, 5005], seed=3).ok
    assert vm.blkio("verify", main, [5003, 5004], seed=1).ok
    device = open_set(vm)
    assert vm.blkio("verify", device, [5000, 5001, 5002, 5005], seed=3).ok
    assert status(vm).mapped == 0


def test_a_freed_slot_serves_another_block_and_neither_reads_the_other(boot, bare):
    main, spare = bare(spare_size="1M")
    vm = boot(main, spare)
    device = open_set(vm)
    slots = free_slots(vm)
    assert vm.blkio("write", device, f"8192+{slots},200+1", seed=1).ok
    message(vm, "remap", 8192, slots)
    slot = Spare(spare).mapped()[8300]
    message(vm, "forget", 8300)
    message(vm, "remap", 200)
    assert Spare(spare).mapped()[200] == slot and 8300 not in Spare(spare).mapped()
    assert vm.blkio("verify", device, f"8192+{slots},200+1", seed=1).ok
    assert vm.blkio("write", device, [200], seed=2, fua=True).ok
    assert vm.blkio("write", device, [8300], seed=3, fua=True).ok
    vm.power_cut()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("verify", device, [200], seed=2).ok
    assert vm.blkio("verify", device, [8300], seed=3).ok
    assert vm.blkio("verify", device, f"8192+108,8301+{slots - 109}", seed=1).ok


def test_hidden_blocks_are_never_forgotten(boot, adopted):
    main, spare = adopted(bad_write=[9000])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [0, 9000], seed=1).ok
    before, raw = Spare(spare).entries(), main.read(0, 4096)
    for words in ((0,), (0, BLOCKS), (BLOCKS - 1,), (100, 9000)):
        refused(vm, "EPERM", "forget", *words)
    assert Spare(spare).entries() == before and main.read(0, 4096) == raw
    assert vm.blkio("verify", device, [0, 9000], seed=1).ok


def test_what_is_lost_cannot_be_forgotten(boot, bare):
    main, spare = bare(bad_read=[5000])
    vm = boot(main, spare)
    device = open_set(vm)
    message(vm, "remap", 5000)
    vm.set_faults(main)
    refused(vm, "EUCLEAN", "forget", 5000)
    assert status(vm).lost == 1
    assert vm.blkio("read", device, [5000]).errors == {5000: "EIO"}


def test_a_block_that_the_main_does_not_take_stays_in_its_slot(boot, bare):
    main, spare = bare(bad_write=[5000])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "4998+5", seed=1).ok
    refused(vm, "EIO", "forget", 5000)
    assert status(vm).mapped == 1 and sorted(Spare(spare).mapped()) == [5000]
    assert vm.blkio("verify", device, "4998+5", seed=1).ok


def test_a_block_that_the_main_only_pretends_to_take_stays_in_its_slot(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    vm.run(f"dmsetup create low --table '0 {BLOCKS} linear {{main}} 0'")
    vm.run(f"dmsetup create r0 --table '0 {BLOCKS} remap /dev/mapper/low {{spare}} 0'")
    message(vm, "remap", 5000, 3)
    assert vm.blkio("write", "/dev/mapper/r0", "5000+3", seed=1).ok
    vm.run("dmsetup suspend r0 && dmsetup suspend low")
    vm.run(f"dmsetup load low --table '0 {BLOCKS} flakey {{main}} 0 0 3600 1 drop_writes' && dmsetup resume low && dmsetup resume r0")
    refused(vm, "EIO", "forget", 5000, 3)
    assert status(vm).mapped == 3
    assert vm.blkio("verify", "/dev/mapper/r0", "5000+3", seed=1).ok
    vm.run("dmsetup remove r0")
    assert sorted(Spare(spare).mapped()) == [5000, 5001, 5002]


def test_a_slot_that_cannot_be_read_keeps_its_block(boot, bare):
    main, spare = bare(bad_write=[5000])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [5000], seed=1).ok
    raw = main.read(5000 * SECTOR, SECTOR)
    slot = Spare(spare).mapped()[5000]
    vm.set_faults(main)
    vm.set_faults(spare, bad_read=[Spare(spare).slot_sector(slot)])
    refused(vm, "EIO", "forget", 5000)
    assert status(vm).mapped == 1 and main.read(5000 * SECTOR, SECTOR) == raw
    vm.set_faults(spare)
    assert vm.blkio("verify", device, [5000], seed=1).ok


def test_unmapped_blocks_are_left_as_they_are(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "5000+10", seed=1).ok
    message(vm, "forget", 5000, 10)
    message(vm, "forget", 0, BLOCKS)
    assert vm.blkio("verify", device, "5000+10", seed=1).ok


def test_remap_and_forget_in_turn_are_safe_at_any_instant(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    assert vm.blkio("write", open_set(vm), "5000+40", seed=1, fua=True).ok
    for cut in (0.3, 0.7, 1.1):
        vm.start("while dmsetup message r0 0 remap 5000 40 && dmsetup message r0 0 forget 5000 40; do :; done")
        time.sleep(cut)
        vm.power_cut()
        vm = boot(main, spare)
        assert vm.blkio("verify", open_set(vm), "5000+40", seed=1).ok


# Both under load

# Passes over 64 blocks with a new seed each, for as long as blocks move; a reader sees the old seed or the new one, and after
# a pass only the new one. Prints the last seed.
WRITERS = """
    seed=1
    while ! test -e /tmp/end-remap || ! test -e /tmp/end-forget; do
        seed=$((seed + 1))
        blkio verify --seed $((seed - 1)),$seed --at 5000+64 --threads 2 /dev/mapper/r0 >/tmp/reader 2>&1 &
        blkio write --seed $seed --at 5000+64 --threads 4 /dev/mapper/r0 >/tmp/writer 2>&1 || { cat /tmp/writer; exit 1; }
        wait $! || { cat /tmp/reader; exit 2; }
        blkio verify --seed $seed --at 5000+64 /dev/mapper/r0 >/tmp/check 2>&1 || { cat /tmp/check; exit 3; }
    done
    echo $seed
"""


def mover(kind, numbers, may_fail):
    """A script that moves ranges within and across the end of those that are written."""
    lines = [f"dmsetup message r0 0 {kind} {numbers.randrange(5000, 5064)} {numbers.randrange(1, 17)}" for _ in range(60)]
    end = " || :\n" if may_fail else " || exit 1\n"
    return end.join(lines) + end + f"touch /tmp/end-{kind}"


@pytest.mark.parametrize("bad", [(), (5003, 5020, 5021, 5063)])
def test_no_acknowledged_write_is_lost_and_none_strays_while_blocks_move(boot, bare, bad):
    main, spare = bare(bad_write=bad)
    vm = boot(main, spare, smp=2)
    device = open_set(vm)
    assert vm.blkio("write", device, "4990+100", seed=1).ok
    vm.run("echo 2 >/sys/block/$(basename {main})/queue/nomerges")
    numbers = random.Random(len(bad))
    # bad blocks stay in their slots, and forget says so
    movers = [vm.start(mover("remap", numbers, False)), vm.start(mover("forget", numbers, bool(bad)))]
    seed = int(vm.run(WRITERS, timeout=240).stdout)
    assert seed > 10
    for moving in movers:
        assert moving.wait(30).exit == 0, moving.result()
    assert status(vm).remapped > 100
    assert vm.blkio("verify", device, "5000+64", seed=seed).ok
    assert vm.blkio("verify", device, "4990+10,5064+26", seed=1).ok
    assert status(vm).failed == 0 and status(vm).doubt == 0
    vm.power_cut()
    entries = [block for state, block, _ in Spare(spare).entries().values() if state == "mapped"]
    assert len(entries) == len(set(entries)) and set(bad) <= set(entries)
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("verify", device, "5000+64", seed=seed).ok
    assert vm.blkio("verify", device, "4990+10,5064+26", seed=1).ok


def slow_down(vm, name, line):
    """Give the device below r0 another table."""
    vm.run(f"dmsetup suspend r0 && dmsetup suspend {name}")
    vm.run(f"dmsetup load {name} --table '{line}' && dmsetup resume {name} && dmsetup resume r0")


def test_a_write_that_is_on_its_way_to_the_main_is_not_missed_by_the_copy(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    vm.run(f"dmsetup create low --table '0 {BLOCKS} linear {{main}} 0'")
    vm.run(f"dmsetup create r0 --table '0 {BLOCKS} remap /dev/mapper/low {{spare}} 0'")
    assert vm.blkio("write", "/dev/mapper/r0", [5000], seed=1).ok
    # writes take 3 seconds, reads do not
    slow_down(vm, "low", f"0 {BLOCKS} delay {{main}} 0 0 {{main}} 0 3000")
    writer = vm.start_blkio("write", "/dev/mapper/r0", [5000], seed=2)
    vm.run("sleep 1")
    message(vm, "remap", 5000)
    assert writer.wait(20).exit == 0
    assert status(vm).mapped == 1
    assert vm.blkio("verify", "/dev/mapper/r0", [5000], seed=2).ok


def test_a_read_that_is_on_its_way_to_a_freed_slot_sees_no_other_blocks_data(boot, bare):
    main, spare = bare(spare_size="1M", bad_write=[200])
    vm = boot(main, spare)
    vm.run("dmsetup create low --table '0 2048 linear {spare} 0'")
    vm.run(f"dmsetup create r0 --table '0 {BLOCKS} remap {{main}} /dev/mapper/low 0'")
    slots = free_slots(vm)
    assert vm.blkio("write", "/dev/mapper/r0", f"8192+{slots}", seed=1, bs=65536).ok
    message(vm, "remap", 8192, slots)
    # reads take 3 seconds, writes do not: forget has its copy while the reader still waits for its own
    slow_down(vm, "low", "0 2048 delay {spare} 0 3000 {spare} 0 0")
    # a failed write takes the slot: unlike another message it waits for nothing
    forgetting = vm.start("dmsetup message r0 0 forget 8300 && blkio write --seed 2 --at 200 /dev/mapper/r0")
    vm.run("sleep 2")
    reader = vm.start_blkio("verify", "/dev/mapper/r0", [8300], seed=1)
    assert reader.wait(30).exit == 0, reader.result()
    assert forgetting.wait(30).exit == 0, forgetting.result()
    assert 200 in Spare(spare).mapped() and 8300 not in Spare(spare).mapped()


def test_a_long_message_does_not_hold_up_a_suspend_or_a_removal(boot, bare):
    main, spare = bare(size="64M", spare_size="64M")
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "0+2048", bs=65536, seed=1).ok
    for command in ("dmsetup suspend r0 && dmsetup resume r0", "dmsetup remove r0"):
        before = status(vm).mapped
        long = vm.start(["dmsetup", "message", "r0", "0", "remap", "0", "120000"])
        while status(vm).mapped == before:
            assert long.running(), long.result()
        started = time.monotonic()
        vm.run(command, timeout=20)
        assert time.monotonic() - started < 5
        assert long.wait(20).exit != 0
    # what was moved until then is whole
    moved = len(Spare(spare).mapped())
    assert 0 < moved < 120000
    assert vm.blkio("verify", open_set(vm), "0+2048", bs=4096, seed=1).ok
    assert status(vm).mapped == moved


# check


def damage(vm, disk, offset):
    """Change bytes of a disk behind the target's back."""
    vm.run(f"printf damage | dd of={{{disk.name}}} bs=1 seek={offset} conv=notrunc,fsync 2>/dev/null")


def test_check_counts_what_is_damaged_and_writes_nothing(boot, bare):
    main, spare = bare(bad_write=range(9000, 9600), spare_size="8M")
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "9000+600", seed=1, bs=65536).ok
    assert message(vm, "check") == ["ok"]
    layout = Spare(spare)
    assert layout.table_length >= 3

    damage(vm, spare, layout.tables[1] * SECTOR + 100)
    images = main.path.read_bytes(), spare.path.read_bytes()
    assert message(vm, "check") == ["damaged superblocks=0 table_blocks=1"]
    assert (main.path.read_bytes(), spare.path.read_bytes()) == images

    damage(vm, spare, layout.superblocks[3] * SECTOR + 700)
    damage(vm, spare, layout.tables[0] * SECTOR + 2 * 4096 + 100)
    assert message(vm, "check") == ["damaged superblocks=1 table_blocks=2"]
    # and it can be used on
    assert vm.blkio("write", device, "9000+600", seed=2, bs=65536).ok
    assert vm.blkio("verify", device, "9000+600", seed=2).ok


def test_check_counts_what_cannot_be_read(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    open_set(vm)
    layout = Spare(spare)
    vm.set_faults(spare, bad_read=[layout.superblocks[1], layout.tables[0]])
    assert message(vm, "check") == ["damaged superblocks=1 table_blocks=1"]
    vm.set_faults(spare)
    assert message(vm, "check") == ["ok"]


def test_check_and_list_work_on_a_set_that_may_only_be_read(boot, bare):
    main, spare = bare(bad_write=[5000])
    vm = boot(main, spare)
    assert vm.blkio("write", open_set(vm), [5000], seed=1).ok
    vm.run("dmsetup remove r0")
    images = main.path.read_bytes(), spare.path.read_bytes()
    open_set(vm, features="1 read_only")
    assert message(vm, "check") == ["ok"] and list(listed(vm)) == [5000]
    for words in (("remap", 6000), ("forget", 5000)):
        refused(vm, "EROFS", *words)
    assert vm.blkio("write", "/dev/mapper/r0", [100]).errors and status(vm).failed == 1
    message(vm, "reset_stats")
    assert status(vm).failed == 0
    vm.run("dmsetup remove r0")
    vm.shutdown()
    assert (main.path.read_bytes(), spare.path.read_bytes()) == images


# list


def test_list_is_the_table_page_by_page(boot, adopted):
    scattered = sorted(random.Random(2).sample(range(9000, 60000, 3), 700))
    main, spare = adopted(spare_size="8M", bad_write=scattered, bad_read=[30001])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, scattered, seed=1).ok
    message(vm, "remap", 30001)
    expected = {
        block: (slot, state) for slot, (state, block, _) in Spare(spare).entries().items() if state in ("mapped", "lost")
    }
    assert len(expected) > 1000
    for page in (1, 7, 10000):
        found = listed(vm, page) if page > 1 else {}
        if page == 1:
            # one line at a time, for a part of it
            lines = [message(vm, "list", start, 1) for start in (0, 9000, 65536)]
            assert len(lines[0]) == 1 and lines[0][0].split()[0] == "0" and lines[1][0].split()[0] == str(min(scattered))
            assert lines[2] == []
            continue
        assert found.keys() == expected.keys()
        for block, (slot, state) in found.items():
            assert state == expected[block][1]
            assert slot == expected[block][0] or (state == "lost" and slot is None)
    # it does no I/O, so it works while the device is suspended
    vm.run("dmsetup suspend r0")
    assert listed(vm).keys() == expected.keys()
    vm.run("dmsetup resume r0")


def test_list_names_blocks_in_doubt(boot, bare):
    main, spare = bare(bad_write=[5000])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [100], seed=1).ok
    vm.set_faults(spare, bad_write=list(Spare(spare).tables))
    assert vm.blkio("write", device, [5000], seed=1).errors
    assert [state for _, state in listed(vm).values()] == ["doubt"] and list(listed(vm)) == [5000]
    refused(vm, "EUCLEAN", "forget", 5000)
    message(vm, "reset_stats")
    assert status(vm).doubt == 1
    vm.set_faults(spare)
    assert vm.blkio("write", device, [5000], seed=2).ok
    assert listed(vm)[5000][1] == "mapped" and status(vm).doubt == 0


# reset_stats, and what is refused


def test_reset_stats_sets_the_counters_to_zero(boot, bare):
    main, spare = bare(bad_write=[5000, 5001], bad_read=[6000])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [5000, 5001], seed=1).ok
    assert vm.blkio("read", device, [6000]).errors
    before = status(vm)
    assert before.remapped == 2 and before.main_write_errors >= 2 and before.main_read_errors == 1
    message(vm, "reset_stats")
    after = status(vm)
    assert (after.remapped, after.main_write_errors, after.main_read_errors, after.spare_errors, after.failed) == (0, 0, 0, 0, 0)
    assert (after.circuit, after.burst) == (0, 0)
    assert (after.mapped, after.slots, after.epoch, after.health, after.mode) == (
        before.mapped, before.slots, before.epoch, before.health, before.mode)  # fmt: skip


def test_messages_that_make_no_sense_are_refused(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    open_set(vm)
    before = status(vm)
    images = main.path.read_bytes(), spare.path.read_bytes()
    for kind in ("remap", "forget"):
        for words in ((), ("x",), ("5x",), (BLOCKS,), (BLOCKS - 1, 2), (5, 0), (5, "y"), (1, 2, 3), (5, 2**64 - 1), (2**64 - 2, 4), (2**64,)):
            refused(vm, "EINVAL", kind, *words)
    for words in (("frobnicate",), ("list",), ("list", 0), ("list", "x", 1), ("list", 0, "y"), ("check", 1), ("reset_stats", 1)):
        refused(vm, "EINVAL", *words)
    assert status(vm) == before
    assert (main.path.read_bytes(), spare.path.read_bytes()) == images


def test_a_suspended_device_moves_nothing(boot, bare):
    main, spare = bare(bad_write=[5000])
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, [5000], seed=1).ok
    vm.run("dmsetup suspend r0")
    for words in (("remap", 6000), ("forget", 5000), ("check",)):
        refused(vm, "EBUSY", *words)
    vm.run("dmsetup resume r0")
    assert sorted(Spare(spare).mapped()) == [5000]
    message(vm, "remap", 6000)
