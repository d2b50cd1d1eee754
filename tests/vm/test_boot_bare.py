# SPDX-License-Identifier: GPL-2.0-or-later
"""Root on a bare set: the raw main shows the same root file system from power-on, and is never mounted."""

import json
import re
import shutil
import time

import pytest

from remapvm import cached, rootfs, story
from remapvm.disk import SECTOR, Disk
from remapvm.initramfs import guest_program, module_file
from remapvm.stacks import WITNESS, WITNESS_BYTES, _move_to_spare, _witness_sectors
from remapvm.vm import VM

pytestmark = [pytest.mark.boot, pytest.mark.long]

GENERATORS = (*rootfs.GENERATORS, rootfs.DRACUT_WITHOUT_SYSTEMD)
LINE = f"root UUID={story.SET_UUID} main=serial:main,spare=spare"
GIVES_UP = "Kernel panic - not syncing: Attempted to kill init"  # the way in which dracut's own init does
UNTOUCHED = "other"  # a disk with a file system that nobody must hide


class BareRoot(story.Story):
    """A Debian whose root lies on a bare set. What /srv/witness holds is stale on the main, and right on the spare alone."""

    def __init__(self, machines, generator, without=(), options="", **more):
        """without: files of ours that do nothing here; options: more of them in remaptab."""
        super().__init__(machines.folder / "disks", machines.boot, generator, series=machines.kernel, **more)
        self.root_argument = f"root=UUID={story.FS_UUID}"
        self.before = ""
        files = [("etc/remaptab", f"{LINE}{options}\n"), (WITNESS, WITNESS_BYTES)]
        files += [(name, "" if name.endswith(".rules") else "#!/bin/sh\n") for name in without]
        self.extra = rootfs.Extra(files=tuple(files))
        self.generators = (generator,) if without or options else GENERATORS

    def adopt(self):
        self.root = rootfs.build(
            self.kernel, module_file(self.kernel), guest_program("agent"), story.SET_UUID, story.FS_UUID, self.tell, self.extra, self.generators
        )
        made = self.root.folder / "bare"
        with cached.making(self.root.folder.parent, f"{self.root.folder.name}.bare"):
            if not (made / "complete").exists():
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
                self._make(made)
                (made / "complete").touch()
        for name in ("main", "spare"):
            story.copy_sparse(made / f"{name}.img", self.folder / f"{name}.img")
        self.main = Disk(self.folder / "main.img", "main")
        self.spare = Disk(self.folder / "spare.img", "spare")
        self.before = cached.digest(self.main.path)
        self.main.set_faults(bad_write=json.loads((made / "stale.json").read_text()))

    def _make(self, folder):
        """The set, by the tools' own doing, and what is stale on its main."""
        story.copy_sparse(self.root.image, folder / "main.img")
        main, spare = Disk(folder / "main.img", "main"), Disk(folder / "spare.img", "spare", size=story.SPARE_SIZE)
        stale = _witness_sectors(main.path)
        vm = VM([main, spare], folder, name="make", kernel=self.kernel.release)
        try:
            vm.run(f"remapsetup format --yes --bare --label root --uuid {story.SET_UUID} --remaptab /run/remaptab {{main}} {{spare}}")
            story.check(vm.run("cat /run/remaptab").stdout.strip() == LINE, "format has written another line")
            vm.run("dmsetup create r0 --table \"0 $(blockdev --getsz {main}) remap {main} {spare} 0\"")
            _move_to_spare(vm, main, stale)
            vm.run("dmsetup remove r0")
            vm.shutdown()
        finally:
            vm.power_cut()
        for sector in stale:
            main.write(sector * SECTOR, b"\xa5" * SECTOR)
        (folder / "stale.json").write_text(json.dumps(stale))

    def boot_arguments(self, more):
        """As Story's, with root= as wanted; a starved QEMU's timer is no reason to panic."""
        return "no_timer_check " + super().boot_arguments(more).replace(f"root=UUID={story.FS_UUID}", self.root_argument)

    def _spoil(self, disk):
        pass  # adopt() has

    def check_root(self):
        """Root is the remap device, nothing else was mounted on the way to it, and the main is hidden."""
        self.prove_root_on_remap()
        story.check(self.vm.pull(f"/{WITNESS}") == WITNESS_BYTES, "the witness is stale")
        mounted = [line for line in self.vm.dmesg().splitlines() if "EXT4-fs" in line and "mounted filesystem" in line]
        story.check(mounted and all("(dm-0)" in line for line in mounted), f"mounted: {mounted}")
        self.check_hidden()

    def check_hidden(self):
        """To udev the raw main is a member, and no link to its payload leads to it."""
        properties = self.vm.run("udevadm info -q property {main}").lines
        for wanted in ("ID_FS_TYPE=remap_member", "ID_FS_USAGE=raid", "SYSTEMD_READY=0", f"ID_REMAP_SET={story.SET_UUID}"):
            story.check(wanted in properties, f"the main lacks {wanted}: {properties}")
        links = self.vm.run("udevadm info -q symlink {main}").stdout
        story.check("by-uuid" not in links and "by-label" not in links, f"links to the raw main: {links}")
        story.check(f'UUID="{story.FS_UUID}"' in self.vm.run("blkid -p {main}").stdout, "the main shows nothing: this proves little")
        for link in (f"by-uuid/{story.FS_UUID}", f"by-label/{rootfs.LABEL}"):
            target = self.vm.run(f"readlink -f /dev/disk/{link}").stdout.strip()
            story.check(target.startswith("/dev/dm-"), f"{link} leads to {target}")

    def check_never_mounted(self):
        """After a boot that ended: nothing was mounted, the main is as it was."""
        console = self.vm.console.text()
        story.check("EXT4-fs" not in console, "something was mounted")
        story.check(cached.digest(self.main.path) == self.before, "the main was written to")
        return console


@pytest.mark.parametrize("generator", GENERATORS)
def test_root_waits_for_a_late_spare_and_the_raw_main_stays_hidden(machines, generator):
    tale = BareRoot(machines, generator)
    tale.adopt()
    other = machines.disk(UNTOUCHED, "64M")
    vm = tale.plain_boot([tale.main, other], "rw rd.remap.timeout=600", agent=False)
    vm.wait_console("is missing", 120)
    time.sleep(15)
    assert "EXT4-fs" not in vm.console.text()
    vm.plug_unseen(tale.spare)
    vm.wait_up(240)
    tale.check_root()
    vm.run(f"mkfs.ext4 -q -L {UNTOUCHED} {{{UNTOUCHED}}} && udevadm trigger && udevadm trigger --action=add -s block && udevadm settle", timeout=240)
    tale.check_hidden()
    assert vm.run(f"readlink -f /dev/disk/by-label/{UNTOUCHED}").stdout.strip() == vm.dev(other)
    assert vm.try_run("mount -o ro {main} /mnt").exit != 0, "the raw main can be mounted beside the remap device"
    vm.shutdown(90)


@pytest.mark.parametrize("generator", GENERATORS)
def test_without_the_spare_nothing_is_mounted(machines, generator):
    tale = BareRoot(machines, generator)
    tale.adopt()
    vm = tale.plain_boot([tale.main], "rw rd.remap.timeout=5", agent=False)
    vm.expect_kernel_message(GIVES_UP)
    vm.wait_end(240)
    assert f"the spare of set {story.SET_UUID} is missing" in tale.check_never_mounted()


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_raw_main_is_not_mounted_by_its_device_name(machines, generator):
    """Nothing that udev or blkid say is asked then, only the gates are left."""
    tale = BareRoot(machines, generator, options=",nofail")
    tale.adopt()
    tale.root_argument = "root=/dev/vda"
    vm = tale.plain_boot([tale.main], "rw rd.remap.timeout=5", agent=False)
    vm.expect_kernel_message(GIVES_UP)
    vm.wait_end(240)
    assert re.search("root.* the raw main of a bare set", tale.check_never_mounted())


RULE = "usr/lib/udev/rules.d/59-remap-bare.rules"
FIRST_GATE = "usr/share/initramfs-tools/scripts/init-premount/remap"
SECOND_GATE = "usr/share/initramfs-tools/scripts/local-premount/remap"
DRACUTS_GATE = "usr/lib/dracut/modules.d/56remap/remap-gate.sh"


@pytest.mark.parametrize(
    "generator, without, options, said",
    [
        ("initramfs-tools", (RULE,), "", "a bare set is not open"),
        ("initramfs-tools", (RULE, FIRST_GATE), "", "is the raw main of a bare set"),
        ("initramfs-tools", (RULE,), ",nofail", "is the raw main of a bare set"),
        ("initramfs-tools", (RULE, FIRST_GATE, SECOND_GATE), "", None),
        ("initramfs-tools", (FIRST_GATE, SECOND_GATE), "", None),
        ("dracut", (RULE,), "", "a bare set is not open"),
        ("dracut", (DRACUTS_GATE,), "", "the spare of set"),
        ("dracut", (RULE, DRACUTS_GATE), "", None),
        (rootfs.DRACUT_WITHOUT_SYSTEMD, (RULE,), "", "a bare set is not open"),
        (rootfs.DRACUT_WITHOUT_SYSTEMD, (RULE, DRACUTS_GATE), "", None),
    ],
)
def test_each_of_rule_and_gates_holds_alone(machines, generator, without, options, said):
    """Where one of them is missing, the next one holds; where all are, the raw main is mounted: so it is they who do it."""
    tale = BareRoot(machines, generator, without, options)
    tale.adopt()
    vm = tale.plain_boot([tale.main], "ro rd.remap.timeout=5 systemd.mask=systemd-remount-fs.service", agent=False)
    vm.expect_kernel_message(GIVES_UP)
    if said:
        vm.wait_end(240)
        assert said in tale.check_never_mounted()
    else:
        vm.wait_console("EXT4-fs (vda): mounted filesystem", 240)
