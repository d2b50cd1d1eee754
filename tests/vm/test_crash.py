# SPDX-License-Identifier: GPL-2.0-or-later
"""What a power cut can leave of what the kernel target writes: recorded by dm-log-writes, replayed cut by cut."""

import re

import pytest
from remapvm import kernels
from remapvm.crash import MUTANTS_OF_READING, MUTANTS_OF_WRITING, Loads, Recording

pytestmark = [pytest.mark.vm, pytest.mark.needs_qemu("hot-plug")]

# Kinds of states that every recording must have: parts of what `crash-states --show-kinds` prints.
KINDS = [
    "+activation torn superblock",
    "+activation prefix",
    "+extension torn superblock",
    "+extension torn table",
    "+dead-copy torn superblock",
    "bad-sector torn table",
    "bad-sector missing slot",
    "bad-sector alone slot",
    "slot-fails torn table",
    "forget torn table",
    "move torn table",
    "lose torn table",
    "rewrite-lost torn table",
    "doubt-write torn table",
    "concurrent torn table",
    "write torn main",
]
ADOPTED_KINDS = ["+activation prefix label", "hidden torn slot"]


def record(machines, length=30, seed=1, mutant=None):
    """An adopted set on devices with FUA, and a bare one on devices without; the machine, with nothing open."""
    adopted = Recording(machines, "adopted", ["--force"], seed, length, torn=True)
    bare = Recording(machines, "bare", ["--bare"], seed + 1, length, loop=True)
    vm = machines.boot(adopted.data, adopted.log, bare.data, bare.log)
    vm.run("modprobe -a dm-log-writes loop")
    if mutant:
        change_module(vm, machines, mutant)
    adopted.run(vm)
    bare.run(vm)
    return adopted, bare, vm


def change_module(vm, machines, mutant):
    """Let the machine go on with a target that has a bug."""
    module = mutant.build(machines.folder / "kmod", kernels.find(machines.kernel).release)
    vm.push(module, "/tmp/mutant.ko")
    vm.run("modprobe dm-remap && rmmod dm-remap && insmod /tmp/mutant.ko")


def kinds(recording):
    """Options for the kinds of states that must be among those of a recording."""
    wanted = KINDS + ADOPTED_KINDS * (recording.name == "adopted")
    return [option for kind in wanted for option in ("--kind", kind)]


def counted(output, what="states"):
    """A figure of crash-states's last line."""
    return int(re.search(rf"^done .*\b{what}=(\d+)", output, re.M)[1])


def test_the_set_is_whole_after_a_power_cut_at_any_time(machines):
    adopted, bare, vm = record(machines)
    parts, states = [], 0
    for recording in (adopted, bare):
        part, output = recording.sample(160, "--states", 6000, *kinds(recording))
        parts.append(part)
        states += counted(output)
    assert states >= 10000
    loads = Loads(machines, parts)
    assert len(loads.lines) >= 300
    assert not loads.run(vm)


@pytest.mark.long
@pytest.mark.parametrize("seed", [11, 12])
def test_the_set_is_whole_after_a_power_cut_at_any_of_a_million_times(machines, seed):
    states = 0
    for recording in record(machines, 120, seed)[:2]:
        states += counted(recording.check("--states", 250000, *kinds(recording)).stdout)
    assert states >= 500000


def test_the_bugs_below_have_their_place_in_the_source():
    for mutant in MUTANTS_OF_WRITING + MUTANTS_OF_READING:
        assert mutant.wrong in mutant.source()


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS_OF_WRITING, ids=lambda mutant: mutant.name)
def test_what_a_target_with_a_bug_writes_is_found(machines, mutant):
    recordings = record(machines, length=10, mutant=mutant)[:2]
    assert sum(counted(recording.check(check=False).stdout, "violations") for recording in recordings) > 0


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS_OF_READING, ids=lambda mutant: mutant.name)
def test_what_a_target_with_a_bug_reads_is_found(machines, mutant):
    *recordings, vm = record(machines, length=10)
    loads = Loads(machines, [recording.sample(160)[0] for recording in recordings])
    change_module(vm, machines, mutant)
    assert loads.run(vm)
