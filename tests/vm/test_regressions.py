# SPDX-License-Identifier: GPL-2.0-or-later
"""What other targets got wrong before us. Each has a test; those not below are in test_kernel.py and test_messages.py.

dm-thin 694cfe7f31db      metadata committed before the data was flushed
                          test_slots_are_flushed_before_their_entries_are_written_copy_by_copy
dm-thin 4ae280b4ee34      FUA acknowledged before the commit
                          test_a_write_acknowledged_with_fua_survives_a_power_cut_at_once
dm-writecache aa9509209c5a  flush before the data writes had completed
                          test_slots_are_flushed_before_their_entries_are_written_copy_by_copy
dm-writecache 6.12.y      FUA to the origin acknowledged before the entry that hides it was durably gone
                          test_dm_writecache_... below
dm-bbr                    read errors "repaired" with a fresh sector's content
                          test_a_read_error_is_passed_on_and_maps_nothing, test_remap_leaves_a_block_lost_that_cannot_be_read
dm-bbr                    the wrong slot after one that failed
                          test_a_slot_that_fails_is_replaced_and_never_used_again
dm-writeboost #127, #98   removal hangs on a dead device, or on I/O errors
                          test_removal_needs_neither_main_nor_spare
dm-writeboost #184        raw errno out of map()
                          test_dm_writeboost_... below
md badblocks              ranges that overlap in several ways
                          test_md_badblocks_... below
dm-raid1                  success pretended when there was none
                          test_errors_of_the_spare_are_not_remapped, test_a_full_spare_lets_the_error_through,
                          test_a_write_whose_commit_failed_is_never_acknowledged_by_the_main
"""

import random

import pytest
from remapvm.sets import Spare, open_set, status

pytestmark = pytest.mark.vm


def test_dm_writecache_fua_to_the_main_after_forget_is_not_hidden_by_the_old_entry(boot, bare):
    main, spare = bare()
    vm = boot(main, spare)
    blocks = list(range(9000, 9040))
    assert vm.blkio("write", open_set(vm), blocks, seed=1, fua=True).ok
    for seed in (2, 3):
        # each is moved, forgotten, and written with FUA; the power fails right after the last acknowledgement
        vm.run(
            f"for b in $(seq 9000 9039); do dmsetup message r0 0 remap $b && dmsetup message r0 0 forget $b && "
            f"blkio write --fua --seed {seed} --at $b /dev/mapper/r0 >/dev/null || exit 1; done"
        )
        vm.power_cut()
        vm = boot(main, spare)
        assert vm.blkio("verify", open_set(vm), blocks, seed=seed).ok


def test_dm_writeboost_an_error_out_of_map_is_an_error_and_no_more(boot, bare):
    main, spare = bare(bad_read=[9001])
    vm = boot(main, spare)
    device = open_set(vm)
    vm.run("dmsetup message r0 0 remap 9001")
    # a lost block amid others, so that the bio is cut and fails as a whole; and a set that takes no write
    assert sorted(vm.blkio("read", device, "8996+16").errors) == [9001]
    assert vm.blkio("read", device, "8996+16", bs=8192).errors == {8996: "EIO"}
    vm.run("dmsetup remove r0")
    open_set(vm, features="1 read_only")
    assert set(vm.blkio("write", device, "8996+16", bs=8192).errors.values()) == {"EIO"}
    assert not vm.blkio("write", device, "8996+16", bs=8192).ok
    vm.run("dmsetup remove r0 && rmmod dm-remap")


def listed(vm):
    """Blocks that have slots, by message list."""
    blocks = set()
    for line in vm.run("dmsetup message r0 0 list 0 100000").lines:
        first, count, _, state = line.split()
        assert state == "mapped"
        run = set(range(int(first), int(first) + int(count)))
        assert not run & blocks, line
        blocks |= run
    return blocks


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_md_badblocks_ranges_in_any_order_give_what_a_set_would(boot, bare, seed):
    main, spare = bare()
    vm = boot(main, spare)
    device = open_set(vm)
    assert vm.blkio("write", device, "9000+600", bs=65536, seed=1).ok
    rng, expected, commands = random.Random(seed), set(), []
    for step in range(1, 121):
        kind, first = rng.choice(("remap", "remap", "forget")), rng.randrange(9000, 9550)
        count = rng.choice((1, 2, 7, 49))
        commands.append(f"dmsetup message r0 0 {kind} {first} {count}")
        (expected.update if kind == "remap" else expected.difference_update)(range(first, first + count))
        if step % 30 == 0:
            vm.run(" && ".join(commands))
            commands = []
            assert listed(vm) == expected, step
            assert status(vm).mapped == len(expected)
            assert vm.blkio("verify", device, "9000+600", bs=4096, seed=1).ok
    vm.power_cut()
    assert set(Spare(spare).mapped()) == expected
    vm = boot(main, spare)
    assert vm.blkio("verify", open_set(vm), "9000+600", bs=4096, seed=1).ok
    assert listed(vm) == expected
