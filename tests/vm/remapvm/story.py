# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job, end to end: a Debian whose root disk has bad sectors boots, remaps, loses power, and boots again.

The boot tests and scripts/demo tell this one story. Each chapter is a method of Story, checks what it claims and raises StoryError
when it is not so; `tell` is told what happens in plain words.
"""

import json
import random
import re
import shutil
import subprocess
import textwrap
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from . import cached, kernels, paths, rootfs
from .disk import SECTOR, Disk
from .errors import VmError
from .initramfs import guest_program, module_file

SET_UUID = "7b0c5a52-6c1e-4d55-9d6b-3f0e6f0b7a11"
FS_UUID = "c0ffee00-5f1e-4a2b-8c3d-9e0f1a2b3c4d"
SPARE_SIZE = "64M"
ENTRIES_PER_BLOCK = 252  # of the table
BLOCK = 4096
BLOCK_SECTORS = BLOCK // SECTOR

# What boot 1 copies, and where to.
SOURCES = ("usr/bin", "usr/lib/x86_64-linux-gnu")
COPY = "/srv/copy"
BURST = "/srv/burst"

QUIET = "systemd.mask=serial-getty@ttyS0.service"
READ_ONLY = "ro systemd.mask=systemd-remount-fs.service"
# What a file system or user space would see of an error; the disk's own errors, below, are expected.
TROUBLE = re.compile(
    r"EXT4-fs (error|warning)|JBD2: |Aborting journal|Remounting filesystem read-only|lost async page write|"
    r"(I/O error, dev|Buffer I/O error on dev) dm-"
)
# What the control's kernel log shows.
DAMAGE = re.compile(r"EXT4-fs (error|warning)|Aborting journal|Remounting filesystem|critical medium error|I/O error, dev")


class StoryError(VmError):
    """Something the story claims did not happen."""


def check(condition, text: str):
    """Raise StoryError with this text unless the condition holds."""
    if not condition:
        raise StoryError(text)


@dataclass(frozen=True)
class BadSectors:
    """The sectors of the root disk that fail."""

    free: tuple  # in blocks that were free when the file system was made: neither writable nor readable
    used: tuple  # in its journal, bitmaps, inode tables and files: readable, not writable

    @property
    def writes(self):
        return tuple(sorted(self.free + self.used))


def free_blocks(dumpe2fs: str):
    """Free blocks of an ext4 file system, from dumpe2fs's groups."""
    blocks = []
    for line in re.findall(r"^  Free blocks: (.*)$", dumpe2fs, re.M):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", line):
            blocks += range(int(first), int(last or first) + 1)
    return blocks


def metadata_blocks(dumpe2fs: str):
    """Bitmaps, and the first blocks of each group's inode table, where new inodes go."""
    blocks = [int(number) for number in re.findall(r"(?:Block|Inode) bitmap at (\d+)", dumpe2fs)]
    for first in re.findall(r"Inode table at (\d+)-", dumpe2fs):
        blocks += range(int(first), int(first) + 8)
    return blocks


def choose_bad_sectors(image: Path, hidden, seed=1) -> BadSectors:
    """Bad sectors scattered over an ext4 image, one in a block: hundreds where new files will go, and some in its metadata.

    hidden: main blocks (sectors) the adoption moved away; nothing is ever written there.
    """
    dice = random.Random(seed)
    text = _host("dumpe2fs", image).stdout
    last = image.stat().st_size // BLOCK
    hidden_blocks = {sector // BLOCK_SECTORS for sector in hidden}
    # blkid gives up on a disk that it can't read at the end, where it looks for ZFS labels and the like
    free = [block for block in free_blocks(text) if block not in hidden_blocks and block < last - 256]
    journal = [int(word) for word in _host("debugfs", "-R", "blocks <8>", image).stdout.split()]
    taken = set(free_blocks(text)) | hidden_blocks
    files = [block for block in range(last) if block not in taken]
    used = metadata_blocks(text) + dice.sample(journal[len(journal) // 3 :], 40) + dice.sample(files, 40)
    used = {block for block in used if block not in taken}

    def sector_in(block):
        return block * BLOCK_SECTORS + dice.randrange(BLOCK_SECTORS)

    return BadSectors(
        tuple(sorted(sector_in(block) for block in dice.sample(free, 400))),
        tuple(sorted(sector_in(block) for block in used)),
    )


class Story:
    """One machine and its two disks, from adoption to the second boot.

    folder     for the disks and the logs
    boot       starts a VM, as Machines.boot: disks, then VM's options
    generator  one of rootfs.GENERATORS
    interface, errno  how the root disk is attached, and the error it reports (61 on scsi is a medium error)
    """

    CHAPTERS = (
        ("Adoption: the root file system goes under dm-remap with its data in place", "adopt"),
        ("The control: this disk without dm-remap", "control"),
        ("Boot 1: the disk fails, and nobody notices", "first_boot"),
        ("Power cut", "burst"),
        ("Damage to the spare, while the machine is off", "damage"),
        ("Boot 2: everything is still there", "second_boot"),
        ("Shutdown", "shut_down"),
    )

    def __init__(self, folder: Path, boot, generator: str, interface="virtio", errno=5, tell=print, series="6.1"):
        self.folder = Path(folder)
        self.boot = boot
        self.generator = generator
        self.interface = interface
        self.errno = errno
        self.tell = tell
        self.kernel = kernels.find(series)
        self.root = None
        self.main = self.spare = None
        self.bad = None
        self.vm = None
        self.sums = {}  # acknowledged files: path -> SHA-256
        self.remaps = {}  # main block -> slot, as last seen on the spare
        self.hidden = set()  # main blocks moved at adoption
        self._plain_boots = 0
        self.on_failure = "panic=-1 rd.shell=0 rd.emergency=poweroff"  # on the kernel command line: no shell, nobody is there

    # Chapters

    def adopt(self):
        """Root image and initramfs, both disks, and the bad sectors; adoption."""
        self.root = rootfs.build(self.kernel, module_file(self.kernel), guest_program("agent"), SET_UUID, FS_UUID, self.tell)
        main, spare = self.folder / "main.img", self.folder / "spare.img"
        copy_sparse(self.root.image, main)
        self.main = Disk(main, "main", interface=self.interface)
        self.spare = Disk(spare, "spare", size=SPARE_SIZE)
        self.tell(f"remapsetup format --yes {main.name} {spare.name}")
        rescue = self.folder / "rescue"
        _tool("remapsetup", "format", "--yes", "--uuid", SET_UUID, "--rescue-file", rescue, main, spare)
        check(_host("blkid", "-p", main, expect=(0, 2)).stdout.strip() == "", "blkid sees something on the adopted main")
        self.hidden = self._hidden_blocks()
        check(self.hidden and self.hidden <= set(self._mapped()), "adoption has hidden nothing, or not mapped what it hid")
        self.bad = choose_bad_sectors(self.root.image, self.hidden)
        self.tell(
            f"the root disk will fail writes on {len(self.bad.writes)} scattered sectors, and reads on {len(self.bad.free)} of them "
            f"(errno {self.errno}, {self.interface})"
        )

    def control(self):
        """The same disk before adoption, same bad sectors, without dm-remap: what a user would have had."""
        image = self.folder / "control.img"
        copy_sparse(self.root.image, image)
        disk = Disk(image, "main", interface=self.interface)
        self._spoil(disk)
        try:
            # read-only up to here: mounted for writing, ext4 gives up before the boot is over
            self._boot([disk], "control", READ_ONLY)
            result = self.vm.try_run("mount -o remount,rw / && " + self._copy_script(), timeout=240)
            # from the console: newer kernels shut such a file system down, and not even dmesg(1) can be started
            trouble = [line for line in self.vm.console.text().splitlines() if DAMAGE.search(line)]
        finally:
            self.power_cut()
            image.unlink()
        errors = [line for line in result.stderr.splitlines() if "Input/output error" in line]
        check(errors, f"the control did not fail with EIO: {result}")
        self.tell(f"without dm-remap the copy ends with exit {result.exit}, {len(errors)} times Input/output error:")
        for line in errors[:3] + trouble[-2:]:
            self.tell("    " + line)

    def first_boot(self):
        """Root on the remap device; files copied, fsynced, read back from disk; remaps in both status outputs."""
        self._boot([self.main, self.spare], "boot1", "rw")
        self.prove_root_on_remap()
        self.tell(f"copying {' and '.join('/' + source for source in SOURCES)} to {COPY}, with fsync of every file")
        result = self.vm.try_run(self._copy_script(), timeout=300)
        check(result.exit == 0 and not result.stderr, f"the copy failed: {result}")
        copied = self.checksums(COPY)
        total = int(self.vm.run(f"du -sb --apparent-size {COPY}").stdout.split()[0])
        check(total >= 50 << 20, f"only {total} bytes were copied")
        self._compare_with_source(copied)
        self.sums.update(copied)
        self.tell(f"{len(copied)} files, {total >> 20} MiB, each with the right SHA-256 when read back from the disk")
        self.check_quiet()
        self.check_status(show=True)
        self.remaps = self._mapped()
        self._check_remaps_are_bad_sectors()

    def burst(self, seconds=4.0):
        """More writes, and the power is cut among them. What was acknowledged before must be there later."""
        self.tell("a burst of writes, and the power is cut in its midst")
        script = (
            f"mkdir -p {BURST} && sync / && (dd if=/dev/zero of={BURST}/bulk bs=1M count=60 status=none &) ; i=0\n"
            f"while i=$((i + 1)); do f={BURST}/$i\n"
            "dd if=/dev/urandom of=$f bs=16k count=$((1 + i % 16)) conv=fsync status=none || exit 1\n"
            'sha256sum "$f" || exit 1; done'
        )
        process = self.vm.start(script)
        process.wait_output(f"{BURST}/5\n", timeout=60)
        time.sleep(seconds)
        check(process.running(), f"the burst ended by itself: {process.result()}")
        self.power_cut()
        lines = process.result().stdout.split("\n")[:-1]  # what follows the last newline was not acknowledged
        acknowledged = dict(reversed(line.split("  ", 1)) for line in lines)
        self.sums.update(acknowledged)
        before = self.remaps
        self.remaps = self._mapped()
        self._expect_remaps(before, self.remaps, "after the power cut")
        self.tell(f"power cut; {len(acknowledged)} files of the burst were acknowledged; {self._count()} blocks remapped on the spare")

    def damage(self):
        """One superblock copy and one table block copy of the spare go bad; the checker says so and changes nothing."""
        dump = self._dump()
        superblock = dump["superblock_copies"][2]["sector"]
        slots = (slot for block, slot in self.remaps.items() if block not in self.hidden)
        block = Counter(slot // ENTRIES_PER_BLOCK for slot in slots).most_common(1)[0][0]
        table = next(copy["sector"] for copy in dump["table_blocks"] if copy["block"] == block and copy["copy"] == 0)
        for name, sector in (("superblock copy 2", superblock), (f"copy 0 of table block {block}", table)):
            self.spare.write(sector * SECTOR + 1024, random.Random(sector).randbytes(512))
            self.tell(f"512 bytes overwritten in {name} of the spare, at sector {sector}")
        before = cached.digest(self.spare.path)
        result = _tool("remap-fsck", "-n", self.spare.path, expect=(4,))
        check(cached.digest(self.spare.path) == before, "remap-fsck -n has changed the image")
        self.tell("remap-fsck -n says so, exit 4:")
        for line in result.stdout.splitlines()[:6]:
            self.tell("    " + line)
        self._expect_remaps(self.remaps, self._mapped(), "in what remap-dump reads of the damaged spare")

    def second_boot(self):
        """The initramfs repairs and assembles; nothing is lost, root sits on the remap device, nothing shows on the raw main."""
        self._boot([self.main, self.spare], "boot2", READ_ONLY)
        self.prove_root_on_remap()
        _tool("remap-fsck", "-n", self.spare.path)
        said = [line for line in self.vm.console.text().replace("\r", "").splitlines() if "remapsetup: " in line]
        for finding in ("RMF-0101", "RMF-0201"):
            check(any(finding in line for line in said), f"the initramfs has not said that it repaired {finding}:\n" + "\n".join(said))
        self.tell("the initramfs said, before it opened the set:")
        for line in said:
            self.tell("    " + line[line.index("remapsetup: ") :])
        self.tell("remap-fsck -n finds nothing more")
        self._expect_remaps(self.remaps, self._mapped(), "after the second boot")
        options = self.vm.run("findmnt -no OPTIONS /").stdout
        check("ro" in options.strip().split(","), f"root should be read-only for e2fsck, is mounted {options}")
        result = self.vm.try_run("e2fsck -fn $(findmnt -no SOURCE /)", timeout=240)
        check(result.exit == 0, f"e2fsck -fn on the remap device: {result}")
        self.tell("e2fsck -fn on the remap device, root still mounted read-only after the journal's replay: clean")
        sums = self.checksums(COPY, BURST)
        lost = {name: digest for name, digest in self.sums.items() if sums.get(name) != digest}
        check(not lost, f"{len(lost)} acknowledged files are lost or differ, e.g. {sorted(lost)[:5]}")
        self.tell(f"all {len(self.sums)} acknowledged files have their SHA-256")
        self.check_raw_main()
        self.check_status()
        result = self.vm.try_run(f"mount -o remount,rw / && cp -r {COPY}/bin /srv/again && sync -f /srv/again", timeout=200)
        check(result.exit == 0 and not result.stderr, f"writing again failed: {result}")
        self.check_quiet()
        self.check_status()
        self.tell("writing goes on")

    def shut_down(self):
        """An orderly power-off; both images are sound and the main shows nothing of the payload."""
        self.vm.shutdown(90)
        _tool("remap-fsck", "-n", self.spare.path)
        check(_host("blkid", "-p", self.main.path, expect=(0, 2)).stdout.strip() == "", "blkid sees something on the raw main")
        self.tell("powered off in order; remap-fsck -n is content, blkid sees nothing on the main's image")

    def run(self, heading=print):
        """All chapters, in order; `heading` is told of each."""
        try:
            for title, method in self.CHAPTERS:
                heading(title)
                getattr(self, method)()
        finally:
            self.power_cut()

    def open_console(self, socket_path: Path):
        """One more boot, with a root shell on a second serial port: a Unix socket on the host."""
        console = ["-serial", f"unix:{socket_path},server=on,wait=off"]
        self._boot([self.main, self.spare], "console", "rw systemd.wants=serial-getty@ttyS1.service", qemu_args=console)

    # Parts

    def plain_boot(self, disks, more: str = "rw", **options):
        """One boot of these disks, with VM's options; returns the machine."""
        self._plain_boots += 1
        self._boot(disks, f"plain{self._plain_boots}", more, **options)
        return self.vm

    def power_cut(self):
        """Kill the machine, if one runs."""
        if self.vm is not None:
            self.vm.power_cut()
            self.vm = None

    def boot_arguments(self, more: str) -> str:
        """The kernel command line, as any Debian's but for what the harness wants to see."""
        # a busy host may stop the guest for minutes, which is no lockup
        watch = "nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
        return f"root=UUID={FS_UUID} {self.on_failure} {watch} {more}"

    def prove_root_on_remap(self):
        """Walks from the mounted root down to the disks: the remap device, and below it main and spare."""
        number = self.vm.run("findmnt -no MAJ:MIN /").stdout.strip()
        name = self.vm.run(f"cat /sys/dev/block/{number}/dm/uuid").stdout.strip()
        check(name == f"REMAP-{SET_UUID}", f"root is on {number}, whose dm uuid is {name}")
        major, minor = number.split(":")
        table = self.vm.run(f"dmsetup table -j {major} -m {minor}").stdout.split()
        check(table[2] == "remap" and len(table) >= 5, f"root's table is not remap's: {' '.join(table)}")
        for disk, used in ((self.main, table[3]), (self.spare, table[4])):
            node = self.vm.dev(disk)
            real = self.vm.run(f"cat /sys/class/block/{node.removeprefix('/dev/')}/dev").stdout.strip()
            check(used == real, f"{disk.name} is {node} ({real}), the table says {used}")
        self.tell(f"root is {number}, dm uuid {name}; dmsetup table: {' '.join(table)}")

    def check_raw_main(self):
        """Nothing of the payload on the raw main, for blkid as for udev; the links lead to the remap device."""
        seen = self.vm.try_run("blkid -p {main}")
        check(seen.exit == 2 and not seen.stdout, f"blkid sees something on the raw main: {seen}")
        for disk in ("main", "spare"):
            text = self.vm.run(f"udevadm info -q property {{{disk}}}").stdout
            for wanted in ("ID_FS_TYPE=remap_member", "ID_FS_USAGE=raid", "SYSTEMD_READY=0", f"ID_REMAP_SET={SET_UUID}"):
                check(wanted in text.splitlines(), f"udev's {disk} lacks {wanted}:\n{text}")
        link = self.vm.run(f"readlink -f /dev/disk/by-uuid/{FS_UUID}").stdout.strip()
        check(link.startswith("/dev/dm-"), f"/dev/disk/by-uuid/{FS_UUID} leads to {link}")
        self.tell(f"blkid -p sees nothing on the raw main; udev calls both disks remap_member; by-uuid leads to {link}")

    def check_status(self, show=False):
        """dmsetup and remapsetup agree with each other and show a sound set; with `show` remapsetup's words are told."""
        line = self.vm.run("dmsetup status root").stdout.strip()
        fields = line.split()
        check(fields[2] == "remap" and fields[3] == SET_UUID, f"unexpected status: {line}")
        check(fields[-2:] == ["ok", "rw"] or fields[-1] == "ro", f"the set is not sound: {line}")
        status = json.loads(self.vm.run("remapsetup status --json root").stdout)
        self.tell(f"dmsetup status root: {line}")
        for shown in self.vm.run("remapsetup status root").lines if show else ():
            self.tell(textwrap.fill(shown, 110, initial_indent="    ", subsequent_indent="      "))
        shown = status["devices"][0]
        for name, field in (("mapped", 6), ("remaps_since_open", 12), ("main_write_errors", 13)):
            check(shown[name] == int(fields[field]), f"{name} is {fields[field]} for dmsetup, {shown[name]} for remapsetup")

    def check_quiet(self):
        """No trouble of the file system, and no error above the remap device, in the kernel log."""
        log = self.vm.dmesg()
        trouble = [line for line in log.splitlines() if TROUBLE.search(line)]
        check(not trouble, "the kernel log shows trouble above dm-remap:\n" + "\n".join(trouble[:20]))
        raw = len(re.findall(r"(?:I/O|medium) error, dev [a-z]", log))
        self.tell(f"the kernel log has {raw} errors of the disk itself, none of ext4 or of the remap device")

    def checksums(self, *folders):
        """SHA-256 of all files below, read from the disk, not from memory: path -> digest."""
        script = "echo 3 >/proc/sys/vm/drop_caches; find \"$@\" -type f -print0 | xargs -0 sha256sum"
        result = self.vm.run(["sh", "-c", script, "sh", *folders], timeout=240)
        return dict(reversed(line.split("  ", 1)) for line in result.lines)

    def _boot(self, disks, name, more, initrd=None, **options):
        self.tell(f"booting ({self.generator}, kernel {self.kernel.release})")
        start = time.monotonic()
        arguments = self.boot_arguments(f"{more} {QUIET}")
        for disk in disks:
            if disk is self.main:
                self._spoil(disk)
        self.vm = self.boot(
            *disks,
            name=f"{self.generator}-{name}",
            kernel=self.kernel.release,
            initrd=initrd or self.root.initramfs(self.generator),
            append=arguments,
            boot_timeout=120,
            shutdown_command="systemctl poweroff",
            **options,
        )
        if self.vm.channel.release:
            self.tell(f"up after {time.monotonic() - start:.0f} s")

    def _spoil(self, disk: Disk):
        disk.set_faults(bad_write=self.bad.writes, bad_read=self.bad.free, errno=self.errno)

    def _copy_script(self) -> str:
        sources = " ".join("/" + source for source in SOURCES)
        # sync(1) with names is fsync(2) of each, and says which failed
        return f"mkdir -p {COPY} && cp -a {sources} {COPY}; find {COPY} -type f -print0 | xargs -0 sync; sync -f {COPY}"

    def _compare_with_source(self, copied):
        wanted = self.root.sums()
        for name, digest in copied.items():
            base = name.removeprefix(COPY + "/")
            source = next(f"{folder.rsplit('/', 1)[0]}/{base}" for folder in SOURCES if base.startswith(folder.rsplit("/", 1)[1] + "/"))
            check(wanted.get(source) == digest, f"{name} differs from what the host put into /{source}")

    def _dump(self):
        return json.loads(_tool("remap-dump", "--json", self.spare.path, expect=(0, 1)).stdout)

    def _mapped(self):
        """The spare's mapping as remap-dump reads it from the image: main block -> slot."""
        newest = {}
        for entry in self._dump()["entries"]:
            # an entry with a "copy" is what a losing copy says
            if entry["state"] != "mapped" or "copy" in entry:
                continue
            block = entry["block"]
            if block not in newest or newest[block]["sequence"] < entry["sequence"]:
                newest[block] = entry
        return {block: entry["slot"] for block, entry in newest.items()}

    def _hidden_blocks(self):
        """Main blocks that adoption moved to the spare."""
        extents = self._dump()["superblock"]["hidden"]
        return {block for extent in extents for block in range(extent["start"], extent["start"] + extent["count"])}

    def _check_remaps_are_bad_sectors(self):
        """Remapped is what really failed, and enough of it; neighbours may have gone along untested."""
        bad = set(self.bad.writes)
        entries = [entry for entry in self._dump()["entries"] if entry["cause"] == "write-error"]
        wrong = [entry for entry in entries if entry["block"] not in bad]
        check(not wrong, f"{len(wrong)} good sectors count as failed, e.g. {wrong[:3]}")
        errors = {entry["errno"] for entry in entries}
        hit = bad & set(self.remaps)
        check(len(hit) >= 50, f"only {len(hit)} bad sectors were remapped: this proves little")
        self.tell(
            f"{len(hit)} of the {len(bad)} bad sectors were written and are remapped now ({len(entries)} found one by one, "
            f"errno {sorted(errors)}), with {self._count() - len(hit)} neighbours that were not tested"
        )

    def _count(self) -> int:
        return len(set(self.remaps) - self.hidden)

    @staticmethod
    def _expect_remaps(before, after, when):
        missing = {block: slot for block, slot in before.items() if after.get(block) != slot}
        check(not missing, f"{len(missing)} of {len(before)} remaps are missing {when}, e.g. {list(missing.items())[:5]}")


def copy_sparse(source: Path, target: Path):
    """A copy of an image that takes no more room than it must."""
    _host("cp", "--sparse=always", "--reflink=auto", source, target)


def _host(*command, expect=(0,)):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode not in expect:
        text = " ".join(str(word) for word in command)
        raise StoryError(f"{text}\nended with {done.returncode}, not {' or '.join(map(str, expect))}:\n{done.stdout}{done.stderr}")
    return done


def _tool(name, *arguments, expect=(0,)):
    return _host(paths.build() / "bin" / name, *arguments, expect=expect)
