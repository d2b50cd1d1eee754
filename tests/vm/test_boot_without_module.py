# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that cannot load the module: the boot says so, and the emergency shell can bring root up all the same."""

import pytest
from remapvm import rootfs
from remapvm.stacks import WITNESS, WITNESS_BYTES, StackedRoot
from remapvm.story import READ_ONLY, SET_UUID

pytestmark = [pytest.mark.boot, pytest.mark.long]

# The generator, and what its emergency shell's prompt ends with.
SHELLS = {"initramfs-tools": "(initramfs) ", rootfs.DRACUT_WITHOUT_SYSTEMD: ":/# "}


@pytest.mark.parametrize("generator", SHELLS)
def test_root_comes_up_from_the_emergency_shell(machines, generator):
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, "plain", series=machines.kernel)
    root.adopt()
    root.on_failure = ""
    vm = root.plain_boot(root.disks, f"{READ_ONLY} module_blacklist=dm_remap rd.remap.timeout=5", agent=False, keyboard=True)
    vm.wait_console(SHELLS[generator], 300)
    console = vm.console.text()
    assert f"root: kernel {root.kernel.release} has no module dm-remap, or cannot load it" in console
    assert "remap-dump export --format dmtable --main MAIN SPARE | dmsetup create -r root" in console
    assert "attach what is missing" in console
    # what a person does then
    vm.type("remapsetup list; echo that is $((40 + 2)) all")
    vm.wait_console("that is 42 all")
    assert SET_UUID in vm.console.text()[len(console) :]
    vm.type("remap-dump export --format dmtable --main /dev/vda /dev/vdb | dmsetup create -r root && exit")
    if generator == rootfs.DRACUT_WITHOUT_SYSTEMD:
        # e2fsck does not check what it cannot write to; the next shell can be left
        vm.wait_console("(Repair filesystem):/# ", 120)
        vm.type("exit")
    vm.wait_up(300)
    number = vm.run("findmnt -no MAJ:MIN /").stdout.strip()
    major, minor = number.split(":")
    table = vm.run(f"dmsetup table -j {major} -m {minor}").stdout
    assert {line.split()[2] for line in table.splitlines()} == {"linear"}
    vm.run("echo 3 >/proc/sys/vm/drop_caches")
    assert vm.pull(f"/{WITNESS}") == WITNESS_BYTES
    root.check_quiet()
    vm.shutdown(90)
