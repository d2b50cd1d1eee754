# SPDX-License-Identifier: GPL-2.0-or-later
"""A running Debian goes under dm-remap and comes back, as docs/boot.md says; and power cuts while it boots."""

import os
import random
import time

import pytest
from remapvm import rootfs
from remapvm.disk import Disk
from remapvm.errors import GuestDied
from remapvm.initramfs import guest_program, module_file
from remapvm.stacks import GENERATORS, StackedRoot
from remapvm.story import FS_UUID, QUIET, SET_UUID, Story, copy_sparse

pytestmark = [pytest.mark.boot, pytest.mark.long]

CUTS = int(os.environ.get("REMAP_TEST_CUTS", "7"))

# Names, kinds, modes, owners, targets and contents; /var changes with every boot.
MANIFEST = (
    "cd / && find usr etc srv opt root home boot bin sbin lib lib64 -xdev -printf '%p %y %m %U %G %l\\n' | sort; "
    "find usr etc srv opt root home -xdev -type f -print0 | sort -z | xargs -0 sha256sum"
)


def manifest(vm):
    """What is in the root file system, read from the disk."""
    vm.run("sync; echo 3 >/proc/sys/vm/drop_caches")
    lines = vm.run(MANIFEST, timeout=600).lines
    assert len(lines) > 5000
    return lines


@pytest.mark.parametrize("generator", rootfs.GENERATORS)
def test_a_running_debian_is_converted_and_comes_back(machines, generator):
    tale = Story(machines.folder / "disks", machines.boot, generator, series=machines.kernel)
    tale.root = rootfs.build(tale.kernel, module_file(tale.kernel), guest_program("agent"), SET_UUID, FS_UUID)
    image = tale.folder / "main.img"
    copy_sparse(tale.root.image, image)
    main, spare, third = Disk(image, "main"), Disk(tale.folder / "spare.img", "spare", "64M"), Disk(tale.folder / "third.img", "third", "16M")

    # the plain system, whose initramfs knows the set that is to come
    vm = boot(machines, tale, [main, spare], "before")
    before = manifest(vm)
    number = vm.run("findmnt -no MAJ:MIN /").stdout.strip()
    assert number == vm.run(f"cat /sys/class/block/{vm.dev(main).removeprefix('/dev/')}/dev").stdout.strip()
    asked = vm.try_run(f"remapsetup format --dry-run --label root --uuid {SET_UUID} {{main}} {{spare}}")
    assert asked.exit == 0, asked
    assert "lies on" in asked.stdout and "name another with --rescue-file" in asked.stdout
    vm.shutdown(90)

    rescue = machines.boot(main, spare, third, name="adopts")
    rescue.run("mkfs.ext4 -q {third} && mount {third} /mnt")
    rescue.run(f"remapsetup format --yes --label root --uuid {SET_UUID} --remaptab none --rescue-file /mnt/rescue {{main}} {{spare}}")
    rescue.run("umount /mnt")
    rescue.shutdown()

    tale.main, tale.spare = main, spare
    vm = tale.vm = boot(machines, tale, [main, spare], "adopted")
    tale.prove_root_on_remap()
    tale.check_raw_main()
    assert manifest(vm) == before
    vm.run("echo written while adopted >/srv/new && sync -f /srv/new")
    vm.shutdown(90)

    rescue = machines.boot(main, spare, name="releases")
    rescue.run("remapsetup release --yes --remaptab none {spare}")
    rescue.shutdown()

    vm = boot(machines, tale, [main], "released")
    assert vm.run("cat /srv/new").stdout == "written while adopted\n"
    vm.run("rm /srv/new")
    assert [line for line in manifest(vm) if not line.startswith("srv ")] == [line for line in before if not line.startswith("srv ")]
    assert vm.run("findmnt -no MAJ:MIN /").stdout.strip() == vm.run(f"cat /sys/class/block/{vm.dev(main).removeprefix('/dev/')}/dev").stdout.strip()
    vm.shutdown(90)


def boot(machines, tale, disks, name):
    """The Debian of this test, whatever root's disk is now."""
    return machines.boot(
        *disks,
        name=name,
        initrd=tale.root.initramfs(tale.generator),
        append=tale.boot_arguments(f"rw {QUIET}"),
        boot_timeout=200,
        shutdown_command="systemctl poweroff",
    )


@pytest.mark.parametrize("generator", GENERATORS)
def test_power_cuts_while_it_boots(machines, generator):
    """At random places of the console's text, so that a busy host has no say in it; every boot after that is fine."""
    dice = random.Random(generator)
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, "plain", series=machines.kernel)
    root.adopt()
    root.plain_boot(root.disks)
    whole = len(root.vm.console.text())
    root.power_cut()
    for cut in range(CUTS):
        vm = root.plain_boot(root.disks, agent=False)
        wanted = dice.uniform(0.3, 1) * whole
        while len(vm.console.text()) < wanted and not vm.channel.release:
            if not vm.running:
                raise GuestDied(f"it ended by itself:\n{vm.console.tail()}")
            time.sleep(0.05)
        print(f"cut {cut}: after {len(vm.console.text())} of {whole} characters: {vm.console.tail(1)}")
        root.power_cut()
        root.plain_boot(root.disks)
        root.prove_root_on_remap()
        root.check_raw_main()
        root.check_quiet()
        root.power_cut()
