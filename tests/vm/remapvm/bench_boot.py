# SPDX-License-Identifier: GPL-2.0-or-later
"""What booting costs: time to login with root on a remap device, on LVM and on a plain disk; from the event of the last member to the
usable device, beside LVM's autoactivation; growth of the initramfs; a probe of a device that is not ours.

Time is the guest's own, which QEMU makes out of instructions: with -icount shift=0 each takes a nanosecond, and sleep=off skips what is
idle, so that the result depends neither on the speed nor on the load of the host. That holds only while nothing is waited for that the host
does; so the disks are NVDIMMs, whose I/O the guest's processor does itself, and which come and go by their driver's unbind and bind.
"""

import re
import shlex
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import kernels, rootfs, story
from .bench_kernel import Guest
from .disk import Disk
from .errors import VmError
from .initramfs import guest_program, module_file
from .sets import format_set
from .stacks import LVM
from .vm import VM

MIB = 1 << 20
RUNS = 5
GROWTH = 3 << 19  # 1.5 MiB
WINDOW = 8192  # what a probe may read at either end
PROBE_MS = 5

# With both in every root, and in its initramfs: each boot has one of them in use and the other at hand.
PACKAGES = ("lvm2",)
PMEM = {"modules": ("nfit", "nd_pmem"), "drivers": ("kernel/drivers/nvdimm", "kernel/drivers/acpi/nfit")}
LISTED = rootfs.Extra(PACKAGES, **PMEM, files=(("etc/remaptab", f"root UUID={story.SET_UUID} x-initrd.attach\n"),))
UNLISTED = rootfs.Extra(PACKAGES, **PMEM, files=(("etc/remaptab", None),))

ICOUNT = ["-icount", "shift=0,sleep=off", "-machine", "nvdimm=on"]
ARGUMENTS = f"root=UUID={story.FS_UUID} rw quiet panic=-1 rd.shell=0 rd.emergency=poweroff mitigations=off no_timer_check tsc=reliable nowatchdog"
GETTY = "serial-getty@ttyS0.service"  # of the type idle: it starts when all other jobs of the boot are done
LOGIN = "automatic login"

LVM_SIZE = "704M"  # the root image, and room for LVM's own metadata
ARRIVALS = {  # the disks that come and go: sizes, by which they are found
    "main": "64M",
    "spare": "16M",
    "pv0": "32M",
    "pv1": "48M",
}
DRIVER = "/sys/bus/nd/drivers/nd_pmem"
DATA_SET = "7b0c5a52-6c1e-4d55-9d6b-3f0e6f0b7a77"


@dataclass(frozen=True)
class Kind:
    """What root lies on."""

    name: str
    uuid: str  # the beginning of its dm UUID
    extra: rootfs.Extra
    dracut: str = ""  # what a dracut that was not made on this machine must be told


# The machine has the same two disks; but for remap the second one is empty, or, for the last kind, not there.
PLAIN = Kind("a plain disk", "", UNLISTED)
ON_LVM = Kind("LVM", "LVM-", UNLISTED, "rd.lvm.lv=vg0/root")
ON_REMAP = Kind("remap", "REMAP-", LISTED)
LVM_ALONE = Kind("LVM, only one disk in the machine", "LVM-", UNLISTED, ON_LVM.dracut)
KINDS = (PLAIN, ON_LVM, ON_REMAP, LVM_ALONE)


@dataclass
class Login:
    """Guest time since the kernel's start, in seconds."""

    root: float  # the root file system's systemd runs
    login: float  # the login prompt's program starts


class Machine:
    """A Debian whose disks are NVDIMMs. What is written to them is forgotten at its end."""

    def __init__(self, folder: Path, kernel, root: rootfs.Root, generator: str, kind: Kind, images):
        words = ARGUMENTS + (f" {kind.dracut}" if kind.dracut and generator != "initramfs-tools" else "")
        disks = []
        for number, image in enumerate(images):
            backend = f"memory-backend-file,id=mem{number},share=off,mem-path={image},size={image.stat().st_size}"
            disks += ["-object", backend, "-device", f"nvdimm,id=nvdimm{number},memdev=mem{number}"]
        self.vm = VM(
            [],
            folder,
            kernel=kernel.release,
            initrd=root.initramfs(generator),
            append=words,
            memory="1G,slots=8,maxmem=16G",
            agent=False,
            qemu_args=[*ICOUNT, *disks],
        )
        try:
            # The host says nothing until all has been measured.
            self.vm.wait_console(LOGIN, 600)
            self.vm.wait_up()
            self._check(kind)
        except BaseException:
            self.vm.power_cut()
            raise

    def login(self) -> Login:
        """When it was up."""
        seconds = [
            int(self.vm.run(f"systemctl show --value -p {name}").stdout) / 1e6
            for name in ("UserspaceTimestampMonotonic", f"ExecMainStartTimestampMonotonic {GETTY}")
        ]
        return Login(*seconds)

    def _check(self, kind):
        """Root lies on what it should, and nothing has failed: else the time means nothing."""
        number = self.vm.run("findmnt -no MAJ:MIN /").stdout.strip()
        uuid = self.vm.run(f"cat /sys/dev/block/{number}/dm/uuid 2>/dev/null || :").stdout.strip()
        if not uuid.startswith(kind.uuid) or bool(uuid) != bool(kind.uuid):
            raise VmError(f"root was to lie on {kind.name}, its dm uuid is {uuid!r}")
        failed = self.vm.run("systemctl --failed --plain --no-legend").stdout
        if failed.strip():
            raise VmError(f"units have failed with root on {kind.name}:\n{failed}")


class Bench:
    """Makes what is measured when it is first needed."""

    def __init__(self, generators, runs):
        self.generators, self.runs = generators or rootfs.GENERATORS[:1], runs or RUNS

    def login(self, folder: Path, series: str, take):
        """Time to login."""
        kernel = kernels.find(series)
        images = self._images(folder, kernel)
        for generator in self.generators:
            found = {kind: [] for kind in KINDS}
            for number in range(self.runs):
                for kind in KINDS if number == 0 else KINDS[:-1]:  # the last one is for information
                    root, disks = images[kind]
                    place = folder / f"{generator}-{KINDS.index(kind)}-{number}"
                    machine = Machine(place, kernel, root, generator, kind, disks)
                    found[kind].append(machine.login())
                    machine.vm.power_cut()
            _take_login(take, generator, found)

    def arrival(self, folder: Path, series: str, take):
        """From the event of the last member to the usable device."""
        kernel = kernels.find(series)
        folder.mkdir(parents=True)
        root = _root(kernel, UNLISTED)
        disks = {name: Disk(folder / f"{name}.img", name, size) for name, size in ARRIVALS.items()}
        subprocess.run(["mkfs.ext4", "-q", "-F", disks["main"].path], check=True)
        format_set(disks["main"], disks["spare"], "--uuid", DATA_SET)
        machine = Machine(folder, kernel, root, rootfs.GENERATORS[0], PLAIN, [root.image, *(disk.path for disk in disks.values())])
        try:
            arrivals = Arrivals(machine.vm, disks)
            found = {"remap": [], "LVM": []}
            for _ in range(self.runs):
                found["LVM"].append(arrivals.volume_group())
                found["remap"].append(arrivals.remap_set())
        finally:
            machine.vm.power_cut()
        medians = {name: statistics.median(times) for name, times in found.items()}
        take("last physical volume's event to the usable logical volume", medians["LVM"], "ms")
        take("last member's event to the usable remap device", medians["remap"], "ms")
        _take_spread(take, found.values())
        take("  remap over LVM", medians["remap"] / medians["LVM"], "times", bar=1)

    def growth(self, folder: Path, series: str, take):
        """Growth of the compressed initramfs."""
        kernel = kernels.find(series)
        for generator in self.generators:
            place = folder / generator
            place.mkdir(parents=True)
            without, ours = initramfs_sizes(place, kernel, generator)
            take(f"{generator}: initramfs, compressed, without remap", without / MIB, "MiB")
            take(f"{generator}: growth with remap", (ours - without) / MIB, "MiB", bar=GROWTH / MIB)

    def probe(self, folder: Path, series: str, take):
        """A probe of a device that is not ours."""
        size = 64
        guest = Guest(folder, series, [], exact=True)
        try:
            device = guest.null_disk("strange", size, 512, backed=True)
            guest.vm.run(f"mkfs.ext4 -q -F {device}; sync")
            command = ["remapsetup", "probe", "--udev", device]
            times = []
            for _ in range(self.runs):
                guest.vm.run(f"blockdev --flushbufs {device}")
                times.append(_ticks(guest.vm.try_run(["iocost", "run", *command])) / 1e6)
            guest.vm.run(f"blockdev --flushbufs {device}")
            with guest.histogram("block/block_rq_issue", "sector,bytes") as reads:
                guest.vm.try_run(command)
        finally:
            guest.vm.power_cut()
        places = sorted(tuple(int(number) for number in re.findall(r"\d+", key)) for key, count in reads.items() for _ in range(count))
        wanted = [(0, WINDOW), (size * MIB // 512 - WINDOW // 512, WINDOW)]
        take("probe of a device that is not ours: reads", len(places), "", bar=2)
        take("  bytes read", sum(length for _, length in places), "bytes", bar=2 * WINDOW)
        take("  reads that are not 8 KiB at either end", len([place for place in places if place not in wanted]), "", bar=0)
        take("  time, its start and end included", statistics.median(times), "ms", bar=PROBE_MS)

    @staticmethod
    def _images(folder: Path, kernel):
        """For each kind the root and its disks' images."""
        folder.mkdir(parents=True)
        roots = {extra: _root(kernel, extra) for extra in (UNLISTED, LISTED)}
        volume = _volume(roots[UNLISTED], kernel, folder)
        empty = Disk(folder / "empty.img", "empty", story.SPARE_SIZE).path
        main, spare = Disk(folder / "main.img", "main"), Disk(folder / "spare.img", "spare", story.SPARE_SIZE)
        story.copy_sparse(roots[LISTED].image, main.path)
        format_set(main, spare, "--uuid", story.SET_UUID)
        images = {PLAIN: [roots[UNLISTED].image, empty], ON_LVM: [volume, empty], ON_REMAP: [main.path, spare.path], LVM_ALONE: [volume]}
        return {kind: (roots[kind.extra], images[kind]) for kind in KINDS}


class Arrivals:
    """A volume group of two physical volumes and a set of two members, whose second one comes again and again."""

    def __init__(self, vm, disks):
        self.vm = vm
        self.nodes, self.spaces = {}, {}
        for line in vm.run("for d in /sys/class/block/pmem*; do echo ${d##*/} $(cat $d/size) $(basename $(readlink -f $d/device)); done").lines:
            node, sectors, space = line.split()
            for name, disk in disks.items():
                if disk.sectors == int(sectors):
                    self.nodes[name], self.spaces[name] = node, space
        if len(self.nodes) != len(disks):
            raise VmError(f"not all of {sorted(disks)} are there: {self.nodes}")
        volumes = " ".join(f"/dev/{self.nodes[name]}" for name in ("pv0", "pv1"))
        vm.run(f"vgcreate -y data {volumes} && lvcreate -y -n volume -l 100%FREE data && mkfs.ext4 -q /dev/data/volume")
        self.volume = vm.run(f"pvs --noheadings -o pv_uuid /dev/{self.nodes['pv1']}").stdout.strip().replace("-", "")
        # The other one comes once, as it would: pvscan keeps account of what it has seen come.
        space = self.spaces["pv0"]
        vm.run(f"vgchange -q -an data; echo {space} >{DRIVER}/unbind; sleep 1; echo {space} >{DRIVER}/bind; sleep 5; udevadm settle")
        vm.run(f"echo 'data UUID={DATA_SET} nofail' >/etc/remaptab && systemctl daemon-reload")

    def volume_group(self) -> float:
        """Milliseconds of guest time until the logical volume is there."""
        # it does not keep account of what has gone
        forget = f"rm -f /run/lvm/vgs_online/data /run/lvm/pvs_online/{self.volume}"
        return self._arrive("pv1", "data-volume", "vgchange -q -an data", forget)

    def remap_set(self) -> float:
        """Milliseconds of guest time until the remap device is there."""
        return self._arrive("spare", "data", "if [ -e /dev/mapper/data ]; then dmsetup remove data; fi", ":")

    def _arrive(self, disk, device, close, forget) -> float:
        node, space = self.nodes[disk], self.spaces[disk]
        script = (
            f"set -e; {close}; udevadm settle; echo {space} >{DRIVER}/unbind; sleep 2; udevadm settle; {forget}; sleep 2; "
            "udevadm monitor --kernel --udev --property --subsystem-match=block >/run/events & sleep 2; "
            f"echo {space} >{DRIVER}/bind; sleep 20; udevadm settle; kill $!; cat /run/events"
        )
        events = _events(self.vm.run(script, timeout=300).stdout)
        came = [event for event in events if event["from"] == "KERNEL" and event["ACTION"] == "add" and event["DEVNAME"] == f"/dev/{node}"]
        usable = [event for event in events if event["from"] == "UDEV" and event["ACTION"] == "change" and event.get("DM_NAME") == device]
        if len(came) != 1 or not usable:
            raise VmError(f"{device} did not come after {node}: " + "\n".join(map(str, events)))
        return (usable[0]["time"] - came[0]["time"]) * 1e3


def _events(text: str):
    """What udevadm monitor has printed, a dict of each event's properties."""
    events = []
    for block in text.split("\n\n"):
        head = re.search(r"^(KERNEL|UDEV) *\[([\d.]+)\]", block, re.M)
        if head:
            events.append({**dict(re.findall(r"^(\w+)=(.*)$", block, re.M)), "from": head[1], "time": float(head[2])})
    return events


def _root(kernel, extra) -> rootfs.Root:
    return rootfs.build(kernel, module_file(kernel), guest_program("agent"), story.SET_UUID, story.FS_UUID, extra=extra)


def _volume(root, kernel, folder: Path) -> Path:
    """An image with the root's file system in a logical volume, made by the tools of the root itself in a small machine."""
    source, disk = Disk(root.image, "source"), Disk(folder / "lvm.img", "disk", LVM_SIZE)
    vm = VM([source, disk], folder, name="make", kernel=kernel.release)
    try:
        device = vm.dev(disk)
        vm.run("modprobe dm-mod; mount -o ro {source} /mnt && for f in dev proc sys run tmp; do mount --rbind /$f /mnt/$f; done")
        commands = (LVM.format(below=device, name="root"), f"e2image -ra {vm.dev(source)} /dev/mapper/vg0-root", "sync", "vgchange -an vg0")
        # no udev here: the tools must not wait for it
        vm.run("DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 chroot /mnt sh -c " + shlex.quote(" && ".join(commands)), timeout=300)
        vm.run("umount -R /mnt")
        vm.shutdown()
    finally:
        vm.power_cut()
    return disk.path


def initramfs_sizes(folder: Path, kernel, generator: str):
    """Bytes of the initramfs of a root without anything of ours, and with it; made in this folder."""
    for name, extra in (("without", rootfs.Extra(ours=False)), ("with", rootfs.NOTHING)):
        tree, image = folder / name, folder / f"{name}.img"
        module = module_file(kernel) if extra.ours else None
        rootfs.make_tree(tree, kernel, module, guest_program("agent"), story.SET_UUID, story.FS_UUID, extra)
        rootfs.make_initramfs(tree, kernel, generator, image)
        yield image.stat().st_size


def _ticks(done) -> float:
    """Instructions of a probe that has found nothing."""
    match = re.fullmatch(r"ticks=(\d+) status=512\n", done.stdout)
    if not match:
        raise VmError(f"a probe of a device that is not ours was to end with 2: {done}")
    return int(match[1])


def _take_login(take, generator, found):
    medians = {kind: statistics.median(one.login for one in found[kind]) for kind in KINDS}
    for kind in KINDS:
        take(f"{generator}: root on {kind.name}, to login", medians[kind], "s")
        take("  of which until the root's systemd runs", statistics.median(one.root for one in found[kind]), "s")
    _take_spread(take, ([one.login for one in found[kind]] for kind in KINDS))
    take("  remap over LVM", medians[ON_REMAP] / medians[ON_LVM], "times", bar=1)
    take("  remap over a plain disk", medians[ON_REMAP] / medians[PLAIN], "times")
    take("  remap over LVM with only one disk in the machine", medians[ON_REMAP] / medians[LVM_ALONE], "times")


def _take_spread(take, rows):
    """How far the runs of one thing lie apart, the worst of them."""
    spread = max((max(times) - min(times)) / statistics.median(times) for times in rows)
    take("  runs of one kind lie apart by at most", 100 * spread, "%")


def measurements(generators, runs):
    """The measurements by name."""
    bench = Bench(generators, runs)
    return {"login": bench.login, "arrival": bench.arrival, "growth": bench.growth, "probe": bench.probe}
