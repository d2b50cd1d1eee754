# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets beside root in a whole Debian: opened by systemd's units when udev has seen their members, closed at shutdown."""

import re
import shutil
import subprocess
import time

import pytest
from remapvm import rootfs, story
from remapvm.disk import SECTOR
from remapvm.initramfs import guest_program, module_file
from remapvm.kernels import find
from remapvm.patience import stretched
from remapvm.sets import Spare, format_set, tool

pytestmark = pytest.mark.boot

# What systemd says of a unit that failed, or of which it has had enough; colours stand between the words.
FAILED = re.compile(r"FAILED|DEPEND|timed out|Timed out")


class Debian:
    """A Debian on a plain disk that knows the sets it is given, and its machine. Its initramfs knows none of them."""

    def __init__(self, machines, generator="initramfs-tools"):
        self.machines = machines
        self.generator = generator
        self.kernel = find(machines.kernel)
        self.root = rootfs.build(self.kernel, module_file(self.kernel), guest_program("agent"), story.SET_UUID, story.FS_UUID)
        self.vm = None

    def set(self, name, *options, serial=None):
        """A set with an ext4 inside, made on the host: its disks NAME and NAME_spare."""
        main = self.machines.disk(name, "16M")
        spare = self.machines.disk(f"{name}_spare", "4M", serial=serial)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-U", fs_uuid(name), "-L", name, main.path], check=True)
        format_set(main, spare, "--uuid", set_uuid(name), *options)
        return main, spare

    def boot(self, *disks, remaptab="", fstab="", more="", adopted=False, **options):
        """Boot with these disks beside root's, whose remaptab and fstab get these lines; root itself as a set if wanted."""
        disk = self.machines.disk("root", path=self._image(remaptab, fstab))
        if adopted:
            spare = self.machines.disk("root_spare", "64M")
            format_set(disk, spare, "--uuid", story.SET_UUID)
            disks = (spare, *disks)
        # a busy host may stop the guest for minutes, which is no lockup, and its timer while it is tried
        watch = "nowatchdog rcupdate.rcu_cpu_stall_suppress=1 no_timer_check"
        arguments = f"root=UUID={story.FS_UUID} rw panic=-1 {watch} {story.QUIET} systemd.journald.forward_to_console=1 {more}"
        self.vm = self.machines.boot(
            disk,
            *disks,
            initrd=self.root.initramfs(self.generator),
            append=arguments,
            boot_timeout=120,
            shutdown_command="systemctl poweroff",
            **options,
        )
        return self.vm

    def _image(self, remaptab, fstab):
        folder = self.machines.folder / "disks"
        image = folder / f"root{len(self.machines.started)}.img"
        subprocess.run(["cp", "--sparse=always", self.root.image, image], check=True)
        (folder / "remaptab").write_text(remaptab)
        (folder / "fstab").write_text(f"UUID={story.FS_UUID} / ext4 defaults 0 1\n{fstab}")
        commands = ["rm /etc/remaptab", f"write {folder}/remaptab /etc/remaptab", "rm /etc/fstab", f"write {folder}/fstab /etc/fstab"]
        (folder / "debugfs").write_text("\n".join(commands) + "\n")
        done = subprocess.run(["debugfs", "-w", "-f", folder / "debugfs", image], capture_output=True, text=True, check=True)
        assert "rror" not in done.stderr and "not found" not in done.stderr, done.stderr
        return image

    # What the machine says

    def said(self, tag="remap-open"):
        """What our units have put into the journal."""
        self.vm.run("journalctl --sync")
        return self.vm.run(f"journalctl -b -o cat -t {tag} || :").stdout

    def opened(self):
        """Names of the remap devices."""
        return set(self.vm.run("dmsetup ls --target remap | cut -f1").lines) - {"No devices found"}

    def mounted(self, place):
        """The set that the file system mounted there lies on, or nothing."""
        number = self.vm.try_run(f"findmnt -no MAJ:MIN {place}").stdout.strip()
        return self.vm.run(f"cat /sys/dev/block/{number}/dm/uuid").stdout.strip() if number else ""

    def wait(self, what, condition, seconds=60):
        """Until it is so."""
        end = time.monotonic() + stretched(seconds)
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {what}\n{self.said()}"
            time.sleep(0.3)

    def wait_said(self, text, seconds=60):
        """Until our units have said that."""
        self.wait(f"that it says {text!r}", lambda: text in self.said(), seconds)

    def no_unit_failed(self):
        """systemd is content."""
        failed = self.vm.run("systemctl --failed --plain --no-legend").stdout
        assert not failed.strip(), failed

    def storm(self):
        """Events for all devices, again and again; what our units have said must not change, nor what is open."""
        before = self.said(), self.opened()
        self.vm.run("for i in 1 2 3 4 5 6 7 8 9 10; do udevadm trigger --subsystem-match=block --action=$([ $((i % 2)) = 0 ] && echo add || echo change); done")
        self.vm.run("udevadm settle --timeout=60", timeout=90)
        assert (self.said(), self.opened()) == before

    def shut_down(self, *closed):
        """In order, without delay, and these devices are closed by then."""
        up = len(self.vm.console.text())
        self.vm.shutdown(90)
        console = self.vm.console.text()[up:]
        for name in closed:
            assert f"remapsetup: {name}: closed" in console, console[-3000:]
        assert not FAILED.search(console), console[-3000:]
        return console


def set_uuid(name):
    """The UUID of the set of that name."""
    return f"{name.encode().hex()[:8]:0<8}-5e70-4a2b-8c3d-000000000000"


def fs_uuid(name):
    """The UUID of the file system in it."""
    return f"{name.encode().hex()[:8]:0<8}-f5f5-4a2b-8c3d-000000000000"


def listed(name, options="-", disk=None):
    """A line of remaptab."""
    return f"{name} UUID={set_uuid(disk or name)} {options}\n"


def copy_of(disk):
    """Another image with the same content."""
    place = disk.path.with_name(f"copy-of-{disk.path.name}")
    shutil.copy(disk.path, place)
    return place


def test_sets_of_remaptab_are_opened_waited_for_and_closed(machines):
    machine = Debian(machines)
    data, late, archive, foreign = (machine.set(name) for name in ("data", "late", "archive", "foreign"))
    # Data that libblkid takes for the end of a leg of firmware RAID; whoever may write a file can put it there.
    archive[0].write(archive[0].size - 257 * SECTOR, b"\xde\x11\xde\x11")
    assert b"ddf_raid_member" in subprocess.run(["blkid", "-p", archive[0].path], capture_output=True, check=True).stdout
    vm = machine.boot(
        *data,
        late[0],
        *archive,
        *foreign,
        # a name that systemd has to escape
        remaptab=listed("data") + listed("my-late+1", "nofail,timeout=600", disk="late") + listed("archive", "noauto"),
        fstab=f"UUID={fs_uuid('data')} /srv/data ext4 x-mount.mkdir,x-systemd.device-timeout=600 0 2\n"
        "/dev/mapper/my-late+1 /srv/late ext4 x-mount.mkdir,nofail,x-systemd.device-timeout=600 0 2\n",
    )
    assert machine.mounted("/srv/data") == f"REMAP-{set_uuid('data')}"
    assert machine.opened() == {"data"}, machine.said()
    assert f"data: opened, main {vm.dev('data')}, spare {vm.dev('data_spare')}" in machine.said()
    for name in ("archive", "foreign"):
        assert name not in machine.said() and set_uuid(name) not in machine.said()

    # The spare of a set that may be missing arrives late.
    machine.wait_said(f"my-late+1: the spare of set {set_uuid('late')} is missing")
    assert f"its main {vm.dev('late')} is there); waiting for it" in machine.said()
    vm.plug(late[1])
    machine.wait("the late set is mounted", lambda: machine.mounted("/srv/late") == f"REMAP-{set_uuid('late')}")
    vm.run("touch /srv/data/file /srv/late/file")
    machine.no_unit_failed()

    machine.storm()
    assert "ID_FS_TYPE=remap_member" in vm.run("udevadm info -q property {archive}").lines
    vm.run("systemctl start remap-open@archive.service")
    assert machine.opened() == {"data", "my-late+1", "archive"}
    machine.shut_down("data", "my-late+1", "archive")
    for main, spare in (data, late, archive, foreign):
        assert tool("remap-fsck", "-n", "--main", main, spare, check=False).returncode == 0


@pytest.mark.long
def test_a_set_that_cannot_be_opened_stops_nothing_else(machines, disk):
    machine = Debian(machines)
    good, extra, gone, broken, copied, contested = (machine.set(name) for name in ("good", "extra", "gone", "broken", "copied", "contested"))
    # beyond what -p repairs: a table block of which no copy is left
    for place in Spare(broken[1]).tables:
        broken[1].write(place * SECTOR + 100, b"damage" * 50)
    clone = disk("clone", path=copy_of(copied[1]))
    rival = disk("rival", "16M"), disk("rival_spare", "4M")
    format_set(*rival, "--uuid", set_uuid("contested"))
    names = ("good", "gone", "broken", "copied", "contested")
    vm = machine.boot(
        *good,
        *extra,
        gone[0],
        *broken,
        *copied,
        clone,
        *contested,
        *rival,
        remaptab="".join(listed(name, "nofail,timeout=" + ("5,spare=ST4000_SN1" if name == "gone" else "600")) for name in names),
        fstab="".join(f"/dev/mapper/{name} /srv/{name} ext4 x-mount.mkdir,nofail 0 2\n" for name in names),
        more=f"rd.remap.uuid={set_uuid('extra')}",
    )
    unlisted = f"remap-{set_uuid('extra')[:8]}"
    machine.wait_said("gone: not opened", 200)
    machine.wait("the good set is mounted", lambda: machine.mounted("/srv/good") == f"REMAP-{set_uuid('good')}", 200)
    assert machine.opened() == {"good", unlisted}, machine.said()
    said = machine.said()
    reasons = {
        "gone": f"the spare of set {set_uuid('gone')} is missing .*its main {vm.dev('gone')} is there.*was ST4000_SN1; it is opened when",
        "broken": f"the check ended with 4; see \"remap-fsck -n --main {vm.dev('broken')} {vm.dev('broken_spare')}\"",
        "copied": "all claim to be spare .*disconnect the copies",
        "contested": "are different spares of it, and more than one has its main here; disconnect what does not belong",
    }
    for name, reason in reasons.items():
        assert re.search(f"^remapsetup: {name}: not opened: .*{reason}", said, re.M), said
        # a member's event may have started it once more
        machine.wait(f"{name} has failed", lambda unit=f"remap-open@{name}": machine.vm.try_run(f"systemctl is-failed {unit}").exit == 0)
        # Looking at a damaged spare does not make udev tell of it again and again.
        assert said.count(f"{name}: not opened") <= 4, said
    running = vm.try_run("systemctl is-system-running --wait", timeout=120).stdout.strip()
    assert running == "degraded", running

    # What was missing is all that is needed.
    vm.plug(gone[1])
    machine.wait("the late set is open", lambda: "gone" in machine.opened())
    # A copy that comes while the set is in use changes nothing.
    vm.plug(disk("late_clone", path=copy_of(good[1])))
    vm.run("udevadm settle --timeout=60")
    assert machine.opened() == {"good", "gone", unlisted}
    table = vm.run("dmsetup table good").stdout.split()
    assert table[3:5] == [vm.run(f"cat /sys/class/block/$(basename {{{name}}})/dev").stdout.strip() for name in ("good", "good_spare")]
    # The copy goes, and the set that it was in the way of opens on request.
    vm.unplug(clone)
    vm.run("systemctl start remap-open@copied")
    assert "copied" in machine.opened()
    vm.run("umount /srv/good && remapsetup close good")
    # What was closed by hand stays closed, whatever udev tells of its members.
    vm.run("udevadm trigger --subsystem-match=block && udevadm settle --timeout=60")
    assert "good" not in machine.opened()
    machine.shut_down("gone", "copied", unlisted)


@pytest.mark.long
def test_rd_remap_0_opens_nothing_by_itself(machines):
    machine = Debian(machines)
    data = machine.set("data")
    vm = machine.boot(*data, remaptab=listed("data"), fstab="/dev/mapper/data /srv ext4 nofail,x-systemd.device-timeout=2 0 2\n", more="rd.remap=0")
    vm.run("udevadm trigger --subsystem-match=block && udevadm settle --timeout=60")
    assert machine.opened() == set() and machine.said() == ""
    assert vm.run("systemctl list-units --all --plain --no-legend 'remap-open*'").stdout.strip() == ""
    vm.run("systemctl start remap-open@data && mount /dev/mapper/data /srv")
    assert machine.mounted("/srv") == f"REMAP-{set_uuid('data')}"
    machine.no_unit_failed()
    # the module goes when nobody needs it, and comes again by itself
    assert vm.try_run("rmmod dm-remap").exit != 0
    vm.run("umount /srv && systemctl stop remap-close && rmmod dm-remap && systemctl start remap-open@data && mount /dev/mapper/data /srv")
    assert machine.mounted("/srv") == f"REMAP-{set_uuid('data')}"
    machine.shut_down("data")


@pytest.mark.long
@pytest.mark.parametrize("generator", rootfs.GENERATORS)
def test_the_set_below_root_is_left_alone_at_shutdown(machines, generator):
    machine = Debian(machines, generator)
    data = machine.set("data")
    vm = machine.boot(
        *data,
        remaptab=f"root UUID={story.SET_UUID} -\n" + listed("data"),
        fstab="LABEL=data /srv/data ext4 x-mount.mkdir,x-systemd.device-timeout=600 0 2\n",
        adopted=True,
    )
    assert machine.mounted("/") == f"REMAP-{story.SET_UUID}"
    assert machine.mounted("/srv/data") == f"REMAP-{set_uuid('data')}"
    machine.no_unit_failed()
    machine.storm()
    console = machine.shut_down("data")
    assert "root: " not in "".join(line for line in console.splitlines() if "remapsetup" in line)
