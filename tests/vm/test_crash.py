# SPDX-License-Identifier: GPL-2.0-or-later
"""What a power cut can leave of what the kernel target writes: recorded by dm-log-writes, replayed cut by cut."""

import re
import shutil
import subprocess

import pytest
from remapvm import kernels, paths
from remapvm.crash import Loads, Recording
from remapvm.errors import VmError

pytestmark = pytest.mark.vm

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


def record(machines, length=30, seed=1):
    """An adopted set on devices with FUA, and a bare one on devices without; the machine, with nothing open."""
    adopted = Recording(machines, "adopted", ["--force"], seed, length, torn=True)
    bare = Recording(machines, "bare", ["--bare"], seed + 1, length, loop=True)
    vm = machines.boot(adopted.data, adopted.log, bare.data, bare.log)
    vm.run("modprobe -a dm-log-writes loop")
    adopted.run(vm)
    bare.run(vm)
    return adopted, bare, vm


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
