# SPDX-License-Identifier: GPL-2.0-or-later
"""Roots in stacks of drivers on remap devices: LVM, LUKS, MD.

The host needs no drivers for it: a stack is put together in a machine with our small initramfs, by Debian's own tools out of
the root image, on disks that are plain at first; then these are adopted with all that is on them, as a user's would be.
Made once for each root image, and kept beside it.
"""

import dataclasses
import json
import random
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from . import cached, kernels, rootfs
from .disk import SECTOR, Disk
from .initramfs import guest_program, module_file
from .story import FS_UUID, SET_UUID, Story, StoryError, check, copy_sparse
from .vm import VM

OTHER_SET = "7b0c5a52-6c1e-4d55-9d6b-3f0e6f0b7a12"
LUKS_UUID = "1a5e7f00-2b3c-4d5e-8f60-718293a4b5c6"
KEY = "etc/keys/root.key"
MAIN_SIZE, SPARE_SIZE = "704M", "64M"  # the root image, and room for every layer's own metadata

# A file whose right content the spare alone holds: the main fails where it lies, and has something else there.
WITNESS = "srv/witness"
WITNESS_BYTES = random.Random(5).randbytes(65536)
BLOCK = 4096

GENERATORS = (*rootfs.GENERATORS, rootfs.DRACUT_WITHOUT_SYSTEMD)

LVM = "pvcreate -ff -y {below} && vgcreate -An vg0 {below} && lvcreate -An -y -Zn -Wn -n {name} -l 100%FREE vg0"
LUKS = (
    "cryptsetup -q luksFormat --type luks2 --uuid " + LUKS_UUID + " --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {below} /" + KEY
    + " && cryptsetup open --key-file /" + KEY + " {below} {name}"
)
# LVM's metadata is a ring of some hundred kilobytes; LUKS2 keeps two of its headers.
LVM_USE = "for i in $(seq 30); do vgchange -q --addtag used$i vg0 || exit 1; done"
LUKS_USE = (
    "head -c 64 /dev/urandom >/run/key && cryptsetup luksAddKey --key-file /" + KEY + " --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {below} /run/key"
    + " && cryptsetup config --label other {below} && cryptsetup luksKillSlot -q --key-file /" + KEY + " {below} 1"
)
# Where a layer's first sector lies in the one below.
LINEAR_START = "dmsetup table {name} | cut -d' ' -f5"
CRYPT_START = "dmsetup table {name} | cut -d' ' -f8"

# All of them for every stack, as many a Debian has them: what is not needed must not be in the way. mdadm apart: with dracut's
# shutdown it takes a minute more.
PACKAGES = ("lvm2", "cryptsetup", "cryptsetup-initramfs", "btrfs-progs")
LUKS_MODULES = ("dm-crypt", "xts", "aesni-intel", "sha256_generic", "algif_skcipher")


@dataclass(frozen=True)
class Stack:
    """What lies between root's file system and the remap devices.

    make     builds it on the disks {main} (and {second}) and leaves `device`
    start    prints where in a main the first sector of the device lies
    close    takes it down
    dracut   what a dracut that was not made on this machine must be told on the kernel command line
    key      the same, of the key's place, for a dracut without systemd: it does not look into crypttab for that
    layers   what a walk down from root meets: the beginning of a dm UUID, or "md"
    use      rewrites what names the payload to others, in the booted system
    mains    names of the disks; each gets a spare, and is a set of its own
    """

    extra: rootfs.Extra = rootfs.NOTHING
    make: str = ""
    device: str = ""
    start: str = ""
    close: str = ""
    dracut: str = ""
    key: str = ""
    layers: tuple = ()
    use: str = ""
    mains: tuple = ("main",)


LUKS_FILES = (
    (KEY, "a key for tests, no secret\n"),
    ("etc/crypttab", f"cryptroot UUID={LUKS_UUID} /{KEY} luks,initramfs\n"),
    ("etc/cryptsetup-initramfs/conf-hook", "KEYFILE_PATTERN=/etc/keys/*.key\nUMASK=0077\n"),
    ("etc/dracut.conf.d/key.conf", f'install_items+=" /{KEY} /etc/crypttab "\n'),
)


STACKS = {
    "plain": Stack(rootfs.Extra(packages=PACKAGES), use="tune2fs -L other -c 7 /dev/mapper/root && e2label /dev/mapper/root | grep other"),
    "btrfs": Stack(
        rootfs.Extra(packages=PACKAGES, modules=("btrfs",), fs_type="btrfs"),
        use="btrfs filesystem resize -64m / && btrfs filesystem resize max / && btrfs filesystem label / other && btrfs balance start --full-balance /",
    ),
    "lvm": Stack(
        rootfs.Extra(packages=PACKAGES),
        make=LVM.format(below="{main}", name="root"),
        device="/dev/mapper/vg0-root",
        start=LINEAR_START.format(name="vg0-root"),
        close="vgchange -an vg0",
        dracut="rd.lvm.lv=vg0/root",
        layers=("LVM-",),
        use=LVM_USE,
    ),
    "luks": Stack(
        rootfs.Extra(packages=PACKAGES, modules=LUKS_MODULES, files=LUKS_FILES),
        make=LUKS.format(below="{main}", name="cryptroot"),
        device="/dev/mapper/cryptroot",
        start=CRYPT_START.format(name="cryptroot"),
        close="cryptsetup close cryptroot",
        dracut=f"rd.luks.uuid={LUKS_UUID} rd.luks.name={LUKS_UUID}=cryptroot",
        key=f"rd.luks.key=/{KEY}:/",
        layers=("CRYPT-LUKS2-",),
        use=LUKS_USE.format(below="/dev/mapper/root"),
    ),
    "luks-on-lvm": Stack(
        rootfs.Extra(packages=PACKAGES, modules=LUKS_MODULES, files=LUKS_FILES),
        make=LVM.format(below="{main}", name="crypt") + " && " + LUKS.format(below="/dev/mapper/vg0-crypt", name="cryptroot"),
        device="/dev/mapper/cryptroot",
        start=f"echo $(($({CRYPT_START.format(name='cryptroot')}) + $({LINEAR_START.format(name='vg0-crypt')})))",
        close="cryptsetup close cryptroot && vgchange -an vg0",
        dracut=f"rd.lvm.lv=vg0/crypt rd.luks.uuid={LUKS_UUID} rd.luks.name={LUKS_UUID}=cryptroot",
        key=f"rd.luks.key=/{KEY}:/",
        layers=("CRYPT-LUKS2-", "LVM-"),
        use=f"{LVM_USE}; {LUKS_USE.format(below='/dev/mapper/vg0-crypt')}",
    ),
    "md": Stack(
        rootfs.Extra(packages=(*PACKAGES, "mdadm"), modules=("raid1",), sets=(f"other UUID={OTHER_SET} -",)),
        make="mdadm --create /dev/md0 --run --metadata=1.2 --level=1 --raid-devices=2 --assume-clean --bitmap=none {main} {second}",
        device="/dev/md0",
        start="cat /sys/block/md0/md/rd0/offset",
        # without the bad blocks that MD has noted when both disks failed, to show that the witness lies there
        close="mdadm --stop /dev/md0 && mdadm --assemble --update=force-no-bbl /dev/md0 {main} {second} && mdadm --stop /dev/md0",
        dracut="rd.auto=1",
        layers=("md",),
        # whatever it is called here
        use="array=/dev/$(sed -n 's/^\\(md[0-9]*\\) .*/\\1/p' /proc/mdstat) && mdadm --grow --bitmap=internal $array && mdadm --grow --bitmap=none $array",
        mains=("main", "second"),
    ),
}


class StackedRoot(Story):
    """A Debian whose root lies in one of STACKS; `root` is what the kernel command line says, by default its UUID; `files` as Extra's."""

    def __init__(self, folder: Path, boot, generator: str, stack: str, root=f"UUID={FS_UUID}", files=(), **options):
        super().__init__(folder, boot, generator, **options)
        self.stack = STACKS[stack]
        self.files = files
        self.root_argument = root
        self.told_by_initramfs = False
        self.disks = []
        self.pairs = {}  # set UUID -> (main, spare)

    def adopt(self):
        """Copies of the adopted disks; the witness's sectors fail on them."""
        extra = self.stack.extra
        extra = dataclasses.replace(extra, files=(*extra.files, (WITNESS, WITNESS_BYTES), *self.files))
        self.root = rootfs.build(
            self.kernel, module_file(self.kernel), guest_program("agent"), SET_UUID, FS_UUID, self.tell, extra, GENERATORS
        )
        made = _made(self.root, self.stack, self.kernel, self.tell)
        failing = json.loads((made / "witness.json").read_text())
        for main, set_uuid in zip(self.stack.mains, (SET_UUID, OTHER_SET)):
            pair = []
            for name in (main, f"{main}_spare"):
                path = self.folder / f"{name}.img"
                copy_sparse(made / path.name, path)
                pair.append(Disk(path, name, interface=self.interface if name == main else "virtio"))
            self.pairs[set_uuid] = tuple(pair)
            self.disks += pair
            pair[0].set_faults(bad_write=failing, bad_read=failing, errno=self.errno)
        self.main, self.spare = self.disks[:2]

    def boot_arguments(self, more: str) -> str:
        """As Story's, with root= as wanted, and what a generic dracut must be told."""
        words = super().boot_arguments(more).replace(f"root=UUID={FS_UUID}", f"root={self.root_argument}")
        if self.generator == rootfs.DRACUT_WITHOUT_SYSTEMD:
            words += f" {self.stack.key}"
        generic = self.generator != "initramfs-tools" and not self.told_by_initramfs
        return f"{words} {self.stack.dracut}" if generic else words

    def make_initramfs_inside(self) -> Path:
        """The initramfs that the running machine makes for itself, with what it finds that it needs."""
        release = self.kernel.release
        self.vm.run("mkdir -p /boot /tmp")
        self.vm.push(self.kernel.folder / "config", f"/boot/config-{release}")
        if self.generator == "initramfs-tools":
            self.vm.run("echo MODULES=dep >/etc/initramfs-tools/conf.d/machine && : >/etc/initramfs-tools/modules")
            command = f"mkinitramfs -o /srv/initramfs {release}"
        else:
            omit = f"--omit '{rootfs.SYSTEMD_IN_DRACUT}'" if self.generator == rootfs.DRACUT_WITHOUT_SYSTEMD else ""
            command = f"dracut --force --hostonly --zstd --no-early-microcode {omit} --kver {release} /srv/initramfs"
        done = self.vm.run(command + " 2>&1", timeout=900)
        print(done.stdout)
        check("remap: " not in done.stdout, f"the hook complained:\n{done.stdout}")
        path = self.folder / "made-inside.img"
        path.write_bytes(self.vm.pull("/srv/initramfs"))
        return path

    def prove_root_on_remap(self):
        """Walks from the mounted root through every layer to the disks, and reads what only the spare holds."""
        number = self._root_number()
        met, sets = [], {}
        self._walk(number, met, sets)
        check(met == list(self.stack.layers), f"below root lie {met}")
        check(set(sets) == set(self.pairs), f"root {number} lies on the sets {sorted(sets)}, not on {sorted(self.pairs)}")
        for set_uuid, pair in self.pairs.items():
            for disk, used in zip(pair, sets[set_uuid]):
                node = self.vm.dev(disk).removeprefix("/dev/")
                real = self.vm.run(f"cat /sys/class/block/{node}/dev").stdout.strip()
                check(used == real, f"{disk.name} is {node} ({real}), the table of {set_uuid} says {used}")
                holders = self.vm.run(f"cat /sys/class/block/{node}/holders/*/dm/uuid").lines
                check(holders == [f"REMAP-{set_uuid}"], f"{node} is held by {holders}")
        self.vm.run("echo 3 >/proc/sys/vm/drop_caches")
        check(self.vm.pull(f"/{WITNESS}") == WITNESS_BYTES, f"/{WITNESS} has not its content")
        self.tell(f"root {number} lies on {' and '.join(sets)}, through {met}; /{WITNESS} comes from the spare")

    def check_raw_main(self):
        """Nothing of the payload on any raw main."""
        for main, _ in self.pairs.values():
            seen = self.vm.try_run(f"blkid -p {{{main.name}}}")
            check(seen.exit == 2 and not seen.stdout, f"blkid sees something on the raw {main.name}: {seen}")

    def _spoil(self, disk):
        pass  # adopt() has

    def _root_number(self) -> str:
        if self.stack.extra.fs_type == "btrfs":  # its root has a number of its own
            return self.vm.run(f"cat /sys/fs/btrfs/{FS_UUID}/devices/*/dev").stdout.strip()
        return self.vm.run("findmnt -no MAJ:MIN /").stdout.strip()

    def _walk(self, number, met, sets):
        """Follows dm tables and MD's members down; remap devices go to `sets`, what is above them to `met`."""
        folder = f"/sys/dev/block/{number}"
        if self.vm.try_run(f"test -d {folder}/md").exit == 0:
            met.append("md")
            members = self.vm.run(f"cat {folder}/slaves/*/dev").lines
            active = self.vm.run(f"cat {folder}/md/dev-*/state").lines
            check(active == ["in_sync"] * len(members) and len(members) == len(self.pairs), f"the array's members: {members} {active}")
        else:
            uuid = self.vm.run(f"cat {folder}/dm/uuid").stdout.strip()
            major, minor = number.split(":")
            table = self.vm.run(f"dmsetup table -j {major} -m {minor}").stdout
            members = re.findall(r" (\d+:\d+)(?= |$)", table.rstrip())
            if uuid.startswith("REMAP-"):
                check(table.split()[2] == "remap" and len(members) == 2, f"{uuid} has the table {table}")
                sets[uuid.removeprefix("REMAP-")] = members
                return
            met.append(next((layer for layer in self.stack.layers if uuid.startswith(layer)), uuid))
        check(members, f"{number} lies on nothing")
        for member in members:
            self._walk(member, met, sets)


def _made(root: rootfs.Root, stack: Stack, kernel: kernels.Kernel, note) -> Path:
    """The stack's disks, adopted, in a folder beside the root image."""
    folder = root.folder / f"stack-{cached.digest(stack.make, stack.device, stack.start, stack.close, *stack.mains, MAIN_SIZE, SPARE_SIZE)}"
    with cached.making(root.folder.parent, f"{root.folder.name}.stack"):
        if not (folder / "witness.json").exists():
            folder.mkdir(exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            note("putting the stack together and adopting it")
            _make(root, stack, kernel, folder)
    return folder


def _make(root, stack, kernel, folder):
    source = Disk(root.image, "source")
    mains = [Disk(folder / f"{name}.img", name, MAIN_SIZE) for name in stack.mains]
    spares = [Disk(folder / f"{name}_spare.img", f"{name}_spare", SPARE_SIZE) for name in stack.mains]
    if not stack.make:  # no layers: the file system itself
        copy_sparse(root.image, mains[0].path)
    vm = VM([source, *mains, *spares], folder, name="make", kernel=kernel.release)
    try:
        sectors = _witness_sectors(root.image if stack.make else mains[0].path)
        if stack.make:
            sectors = _fill(vm, stack, mains, sectors)
        for main, spare, set_uuid in zip(mains, spares, (SET_UUID, OTHER_SET)):
            vm.run(f"remapsetup format --yes --uuid {set_uuid} --rescue-file none --remaptab none {{{main.name}}} {{{spare.name}}}")
            vm.run(f"dmsetup create r0 --table \"0 $(blockdev --getsz {{{main.name}}}) remap {{{main.name}}} {{{spare.name}}} 0\"")
            _move_to_spare(vm, main, sectors)
            vm.run("dmsetup remove r0")
        vm.shutdown()
    finally:
        vm.power_cut()
    for main in mains:
        for sector in sectors:
            main.write(sector * SECTOR, b"\xa5" * SECTOR)
    (folder / "witness.json").write_text(json.dumps(sectors))


def _fill(vm, stack, mains, sectors):
    """Builds the layers and copies the file system into them; returns where the witness's sectors are on the mains."""
    vm.run("modprobe -a dm-mod dm-crypt raid1; mount -o ro {source} /mnt && for f in dev proc sys run tmp; do mount --rbind /$f /mnt/$f; done")

    def inside(command):
        # no udev here: the tools must not wait for it
        return vm.run("DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 chroot /mnt sh -c " + shlex.quote(command), timeout=300).stdout

    inside(stack.make)
    inside(f"e2image -ra {{source}} {stack.device} && sync")
    start = int(inside(stack.start))
    sectors = [start + sector for sector in sectors]
    # the proof that it is there
    vm.run("echo 3 >/proc/sys/vm/drop_caches")
    vm.run(f"mkdir -p /run/check && mount -o ro,noload {stack.device} /run/check && cmp /run/check/{WITNESS} /mnt/{WITNESS} && umount /run/check")
    for main in mains:
        vm.set_faults(main, bad_read=sectors)
    vm.run("echo 3 >/proc/sys/vm/drop_caches")
    vm.run(f"mount -o ro,noload {stack.device} /run/check")
    if vm.try_run(f"cat /run/check/{WITNESS} | cmp - /mnt/{WITNESS}").exit == 0:
        raise StoryError(f"/{WITNESS} does not lie where it was looked for")
    vm.run("umount /run/check")
    for main in mains:
        vm.set_faults(main)
    inside(stack.close)
    vm.run("umount -R /mnt")
    return sectors


def _witness_sectors(image: Path):
    """One sector of each block of the witness in an image of its file system."""
    wanted = {WITNESS_BYTES[at : at + BLOCK]: at // BLOCK for at in range(0, len(WITNESS_BYTES), BLOCK)}
    found = {}
    with open(image, "rb") as file:
        for number in range(image.stat().st_size // BLOCK):
            block = file.read(BLOCK)
            if block in wanted:
                found[wanted[block]] = number * (BLOCK // SECTOR) + wanted[block] % (BLOCK // SECTOR)
    if len(found) != len(wanted):
        raise StoryError(f"{len(found)} of the {len(wanted)} blocks of /{WITNESS} are in {image}")
    return sorted(found.values())


def _move_to_spare(vm, main, sectors):
    """The set open as r0 remaps these sectors because they cannot be written; they keep their content."""
    vm.set_faults(main, bad_write=sectors)
    moves = "; ".join(
        f"dd if=/dev/mapper/r0 of=/run/sector skip={sector} count=1 iflag=direct 2>/dev/null && "
        f"dd if=/run/sector of=/dev/mapper/r0 seek={sector} count=1 oflag=direct conv=notrunc 2>/dev/null || exit 1"
        for sector in sectors
    )
    vm.run(f"{moves}; sync")
    vm.set_faults(main)
