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
from remapvm.stacks import PACKAGES as STACK_PACKAGES

pytestmark = pytest.mark.boot

# What systemd says of a unit that failed, or of which it has had enough; colours stand between the words.
FAILED = re.compile(r"FAILED|DEPEND|timed out|Timed out")


class Debian:
    """A Debian on a plain disk that knows the sets it is given, and its machine. Its initramfs knows none of them."""

    def __init__(self, machines, generator="initramfs-tools", extra=rootfs.NOTHING):
        self.machines = machines
        self.generator = generator
        self.kernel = find(machines.kernel)
        self.root = rootfs.build(self.kernel, module_file(self.kernel), guest_program("agent"), story.SET_UUID, story.FS_UUID, extra=extra)
        self.vm = None

    def set(self, name, *options, serial=None, size="16M", empty=False):
        """A set with an ext4 inside, or nothing, made on the host: its disks NAME and NAME_spare."""
        main = self.machines.disk(name, size)
        spare = self.machines.disk(f"{name}_spare", "4M", serial=serial)
        if not empty:
            subprocess.run(["mkfs.ext4", "-q", "-F", "-U", fs_uuid(name), "-L", name, main.path], check=True)
        format_set(main, spare, "--uuid", set_uuid(name), *options)
        return main, spare

    def boot(self, *disks, remaptab="", fstab="", crypttab="", more="", adopted=False, shutdown="systemctl poweroff", **options):
        """Boot with these disks beside root's, whose tables get these lines; root itself as a set if wanted."""
        tables = {"remaptab": remaptab, "fstab": f"UUID={story.FS_UUID} / ext4 defaults 0 1\n{fstab}", "crypttab": crypttab}
        disk = self.machines.disk("root", path=self._image(tables))
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
            shutdown_command=shutdown,
            **options,
        )
        return self.vm

    def _image(self, tables):
        folder = self.machines.folder / "disks"
        image = folder / f"root{len(self.machines.started)}.img"
        subprocess.run(["cp", "--sparse=always", self.root.image, image], check=True)
        commands = []
        for name, content in tables.items():
            (folder / name).write_text(content)
            there = subprocess.run(["debugfs", "-R", f"stat /etc/{name}", image], capture_output=True, text=True, check=True)
            commands += [] if "not found" in there.stderr else [f"rm /etc/{name}"]
            commands.append(f"write {folder}/{name} /etc/{name}")
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
            # LVM's blk-availability.service, where there is one, takes down what is stacked, with what it lies on
            assert f"remapsetup: {name}: closed" in console or f"deactivating remap device {name} " in console, console[-3000:]
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
    # an opening that was interrupted, with udev there
    vm.run(f"dmsetup create --notable -u REMAP-{set_uuid('data')} data")
    vm.run("systemctl start remap-open@data && mount /dev/mapper/data /srv")
    assert "data: removed what an interrupted opening of the set had left" in machine.said()
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
    # the hook, on a machine whose root no line would open
    hook = "mkdir -p /run/hook && DESTDIR=/run/hook version=$(uname -r) verbose=n MODULESDIR=/lib/modules/$(uname -r) sh /usr/share/initramfs-tools/hooks/remap"
    warning = f"the root's set {story.SET_UUID} is not in /etc/remaptab"
    assert warning not in vm.run(f"{hook} 2>&1").stdout
    for line in ("", f"#root UUID={story.SET_UUID} -", f"root UUID={story.SET_UUID} noauto"):
        assert warning in vm.run(f"echo '{line}' >/run/tab && mount --bind /run/tab /etc/remaptab && {hook} 2>&1; umount /etc/remaptab").stdout
    console = machine.shut_down("data")
    assert "root: " not in "".join(line for line in console.splitlines() if "remapsetup" in line)


@pytest.mark.long
@pytest.mark.parametrize("shutdown", ["systemctl poweroff", "systemctl reboot"])
def test_encrypted_volumes_and_volume_groups_on_sets_come_and_go_in_order(machines, shutdown):
    machine = Debian(machines, extra=rootfs.Extra(packages=STACK_PACKAGES))
    secret, volumes, both = (machine.set(name, size="48M", empty=True) for name in ("secret", "volumes", "both"))
    disks = (*secret, *volumes, *both)
    lines = "".join(listed(name) for name in ("secret", "volumes", "both"))
    key = "/dev/disk/by-id/virtio-luks_key"
    key_disk = machines.disk("luks_key", "1M")
    key_disk.write(0, b"a key for tests, no secret".ljust(512, b"."))

    vm = machine.boot(*disks, key_disk, remaptab=lines)
    machine.wait("all sets are open", lambda: machine.opened() == {"secret", "volumes", "both"})
    luks = f"cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --keyfile-size 512 --uuid {fs_uuid('luks')}"
    vm.run(f"{luks} /dev/mapper/secret {key} && cryptsetup open --keyfile-size 512 --key-file {key} /dev/mapper/secret vault")
    vm.run("mkfs.ext4 -q /dev/mapper/vault && vgcreate -q data /dev/mapper/volumes && lvcreate -q -y -l 100%FREE -n files data && mkfs.ext4 -q /dev/data/files")
    # a volume in a volume group that is encrypted
    luks = luks.replace(fs_uuid("luks"), fs_uuid("both"))
    vm.run("vgcreate -q more /dev/mapper/both && lvcreate -q -y -l 100%FREE -n crypt more")
    vm.run(f"{luks} /dev/more/crypt {key} && cryptsetup open --keyfile-size 512 --key-file {key} /dev/more/crypt deep && mkfs.ext4 -q /dev/mapper/deep")
    # what no table knows of is still there when it goes down
    machine.shut_down()

    vm = machine.boot(
        *disks,
        key_disk,
        remaptab=lines,
        crypttab="".join(f"{name} UUID={fs_uuid(uuid)} {key} luks,keyfile-size=512\n" for name, uuid in (("vault", "luks"), ("deep", "both"))),
        fstab="".join(f"/dev/mapper/{name} /srv/{name} ext4 x-mount.mkdir,x-systemd.device-timeout=600 0 2\n" for name in ("vault", "data-files", "deep")),
        shutdown=shutdown,
    )
    machine.wait("all is mounted", lambda: all(vm.try_run(f"mountpoint /srv/{name}").exit == 0 for name in ("vault", "data-files", "deep")))
    below = vm.run("lsblk -nrso NAME,TYPE /dev/mapper/deep").lines
    assert [line.split()[0] for line in below][:3] == ["deep", "more-crypt", "both"], below
    vm.run("for name in vault data-files deep; do touch /srv/$name/file || exit 1; done")
    machine.no_unit_failed()
    # the members are seen as what they are, and nobody gets them
    for disk in (secret[0], secret[1]):
        assert vm.run(f"lsblk -ndo FSTYPE,UUID {vm.dev(disk)}").stdout.split() == ["remap_member", set_uuid("secret")]
        for command in ("wipefs -a {}", "mkfs.ext4 -q -F {}", "pvcreate -y -ff {}", "mkswap {} && swapon {}", f"cryptsetup -q luksFormat {{}} {key}"):
            refused = vm.try_run(command.format(*[vm.dev(disk)] * command.count("{}")))
            assert refused.exit != 0, refused
    machine.shut_down("secret", "volumes", "both")
    for main, spare in (secret, volumes, both):
        assert tool("remap-fsck", "-n", "--main", main, spare, check=False).returncode == 0


@pytest.mark.long
def test_a_set_on_an_array_is_opened_on_the_array_and_not_on_a_leg(machines, disk):
    """With metadata at its end each leg of a mirror shows the label that the array shows."""
    machine = Debian(machines, extra=rootfs.Extra(packages=(*STACK_PACKAGES, "mdadm"), modules=("raid1",)))
    legs, spare = [disk("leg0", "32M"), disk("leg1", "32M")], disk("spare", "4M")
    calm = "systemd.mask=mdadm-shutdown.service"  # with dracut installed beside it, it takes a minute
    vm = machine.boot(*legs, spare, more=calm)
    vm.run("mdadm --create /dev/md0 --run --metadata=1.0 --level=1 --raid-devices=2 --assume-clean --bitmap=none {leg0} {leg1}")
    vm.run(f"udevadm settle && mkfs.ext4 -q /dev/md0 && remapsetup format --yes --label data --uuid {set_uuid('data')} --rescue-file none /dev/md0 {{spare}}")
    vm.run("mdadm --stop /dev/md0")
    machine.shut_down()

    def lies_on_array():
        assert machine.opened() == {"data"}
        number = vm.run("dmsetup table data").stdout.split()[3]
        assert vm.run(f"test -d /sys/dev/block/{number}/md && cat /sys/dev/block/{number}/md/raid_disks").stdout.strip() == "2"

    # the array is put together by udev, when both legs have come
    vm = machine.boot(legs[0], spare, remaptab=listed("data", "nofail,timeout=600"), more=calm)
    machine.wait_said(f"data: the main of set {set_uuid('data')} (data) is missing")
    machine.storm()
    assert machine.opened() == set()
    vm.plug(legs[1])
    machine.wait("the set is open", lambda: machine.opened() == {"data"})
    lies_on_array()
    for leg in legs:
        assert "ID_FS_TYPE=linux_raid_member" in vm.run(f"udevadm info -q property {vm.dev(leg)}").lines
    machine.shut_down("data")
