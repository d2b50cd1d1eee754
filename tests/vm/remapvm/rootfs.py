# SPDX-License-Identifier: GPL-2.0-or-later
"""A real root file system for the boot tests: Debian 12 with systemd and udev, in an ext4 image, and its initramfs.

Everything of ours gets into it the way a package would: by `cmake --install`. The initramfs is made by Debian's own
generators, inside the tree. Needs root (chroot), no loop device and no device-mapper.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import cached, paths
from .errors import SetupError
from .kernels import Kernel

SUITE = "bookworm"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "udev",
    "dmsetup",
    "kmod",
    "initramfs-tools",
    "dracut-core",
    "zstd",
    "e2fsprogs",
    "libblkid1",
    "libdevmapper1.02.1",
    "libstdc++6",
    "zlib1g",
)
GENERATORS = ("initramfs-tools", "dracut")
# Beside those whose initramfs every build() makes: dracut with its own init.
DRACUT_WITHOUT_SYSTEMD = "dracut-without-systemd"
SYSTEMD_IN_DRACUT = "systemd systemd-initrd systemd-udevd systemd-journald systemd-ask-password dracut-systemd"

# What the machine's root needs of the kernel's modules, relative to its modules folder.
MODULES = (
    "kernel/arch",
    "kernel/block",
    "kernel/crypto",
    "kernel/lib",
    "kernel/drivers/block",
    "kernel/drivers/char",
    "kernel/drivers/md",
    "kernel/drivers/virtio",
    "kernel/drivers/scsi/*.ko*",
    "kernel/fs/*.ko*",
    "kernel/fs/autofs",
    "kernel/fs/btrfs",
    "kernel/fs/ext4",
    "kernel/fs/jbd2",
    "modules.order",
    "modules.builtin",
    "modules.builtin.modinfo",
)
# What the initramfs gets of them; a generic image of all drivers takes half a minute to make and seconds to load.
INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ext4")

IMAGE_MIB = 640
LABEL = "system"
JOURNAL_MIB = 4

FILES = {
    "etc/hostname": "remap\n",
    "etc/machine-id": "0d8f3c5a9be34f7c8d1e6a2b4c7f9e10\n",
    # /etc/systemd/system: the harness's agent, and a console without a password
    "etc/systemd/system/vm-agent.service": """[Unit]
Description=The test harness's agent
[Service]
ExecStart=/usr/sbin/vm-agent
KillMode=process
Environment=HOME=/root
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
""",
    "etc/systemd/system/serial-getty@.service.d/autologin.conf": """[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I vt220
""",
    "etc/modules-load.d/vm-agent.conf": "virtio_console\n",
}
# No screen here, and no network: they would only take time.
MASKED = ("getty@tty1.service", "getty-static.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service")


@dataclass(frozen=True)
class Extra:
    """What a root has beyond PACKAGES, FILES and INITRAMFS_MODULES: that of a stack of drivers, say."""

    packages: tuple = ()
    modules: tuple = ()  # in the initramfs
    drivers: tuple = ()  # more of the kernel's modules in the root, as MODULES
    files: tuple = ()  # (path, content); they replace those of the same name, or with None take them away
    sets: tuple = ()  # more lines of remaptab
    fs_type: str = "ext4"  # or btrfs
    ours: bool = True  # without: no tool, rule, hook or module of ours, and no remaptab


NOTHING = Extra()


@dataclass
class Root:
    """One built root file system. The files belong to the cache: copy the image before using it."""

    folder: Path
    uuid: str  # of the file system

    @property
    def image(self) -> Path:
        """The file system, a sparse file."""
        return self.folder / "root.img"

    def initramfs(self, generator: str) -> Path:
        """The initramfs made by one of the generators that build() was told."""
        return self.folder / f"{generator}.img"

    def sums(self):
        """SHA-256 of every file below /usr, as the host put it there: path without leading slash -> digest."""
        return json.loads((self.folder / "sums.json").read_text())


def base(more=()) -> Path:
    """Plain Debian with PACKAGES, and more, as a tar file, made once."""
    packages = (*PACKAGES, *more)
    key = cached.digest(SUITE, *packages) + ".tar"
    return cached.cached_file("rootfs-base", key, lambda target: _debootstrap(target, packages))


def build(
    kernel: Kernel,
    module: Path,
    agent: Path,
    set_uuid: str,
    fs_uuid: str,
    note=lambda text: None,
    extra: Extra = NOTHING,
    generators=GENERATORS,
) -> Root:
    """The root file system for this kernel with the build's tools and hooks, knowing the set `set_uuid` as "root".

    Made anew when anything that goes into it has changed. `note` is told of what takes time.
    """
    if os.geteuid() != 0:
        raise SetupError("building a root file system needs root (chroot)")
    with tempfile.TemporaryDirectory(prefix="dm-remap-rootfs.") as scratch:
        ours = Path(scratch, "ours")
        _install(ours)
        key = cached.digest(
            Path(__file__), base(extra.packages).name, kernel.release, module or "", agent, set_uuid, fs_uuid, repr(extra), *generators, *_contents(ours)
        )
        folder = paths.cache() / "rootfs" / key
        with cached.making(folder.parent, key):
            if not (folder / "complete").exists():
                tree = Path(scratch, "tree")
                note("putting the tree together")
                _make_tree(tree, ours, kernel, module, agent, set_uuid, fs_uuid, extra)
                with _staging(folder) as staging:
                    for generator in generators:
                        note(f"making the initramfs with {generator}")
                        make_initramfs(tree, kernel, generator, staging / f"{generator}.img", extra.modules)
                    note(f"making the {extra.fs_type} image")
                    _mkfs(tree, staging / "root.img", fs_uuid, extra.fs_type)
                    (staging / "sums.json").write_text(json.dumps(_sums(tree, "usr")))
        os.utime(folder)
        return Root(folder, fs_uuid)


def make_initramfs(tree: Path, kernel: Kernel, generator: str, target: Path, modules=()) -> str:
    """Runs a generator inside the tree and returns its messages; they come with the error, too, when it fails."""
    inside = "/tmp/initramfs.img"
    config = tree / "boot" / f"config-{kernel.release}"
    if generator == "initramfs-tools":
        command = ["mkinitramfs", "-o", inside, kernel.release]
    else:
        command = ["dracut", "--omit", SYSTEMD_IN_DRACUT] if generator == DRACUT_WITHOUT_SYSTEMD else ["dracut"]
        command += ["--quiet", "--force", "--no-hostonly", "--zstd", "--no-early-microcode"]
        command += ["--drivers", " ".join((*INITRAMFS_MODULES, *modules)), "--kver", kernel.release, inside]
    shutil.copy(kernel.folder / "config", config)  # both read it; not for the image: it has no /boot
    done = run_in(tree, command)
    config.unlink()
    if done.returncode != 0:
        raise SetupError(f"{generator} failed with {done.returncode}:\n{done.stdout}")
    shutil.move(tree / inside.lstrip("/"), target)
    return done.stdout


def run_in(tree: Path, command) -> subprocess.CompletedProcess:
    """Runs a command inside the tree, with mounts of its own that vanish with it. Output and errors in stdout."""
    script = 'mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/run" && exec chroot "$0" "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, tree, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp", "HOME": "/root"},
        check=False,
    )


def make_tree(tree: Path, kernel: Kernel, module, agent: Path, set_uuid: str, fs_uuid: str, extra: Extra = NOTHING):
    """The whole root file system as a folder. With `module` None it lacks dm-remap.ko, as a host without it would."""
    with tempfile.TemporaryDirectory(prefix="dm-remap-rootfs.") as scratch:
        ours = Path(scratch, "ours")
        _install(ours)
        _make_tree(tree, ours, kernel, module, agent, set_uuid, fs_uuid, extra)


def _debootstrap(target: Path, packages):
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "--include=" + ",".join(packages), SUITE]
    _checked([*command, target])


def _install(target: Path):
    _checked(["cmake", "--install", paths.build(), "--prefix", "/usr", "--strip"], env={**os.environ, "DESTDIR": str(target)})


def _contents(folder: Path):
    """Names and contents of all files below, in a fixed order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder))
            yield path


def _make_tree(tree, ours, kernel, module, agent, set_uuid, fs_uuid, extra):
    tree.mkdir()
    _checked(["tar", "-C", tree, "--numeric-owner", "-xf", base(extra.packages)])
    if extra.ours:
        shutil.copytree(ours, tree, dirs_exist_ok=True, symlinks=True)
    modules = tree / "usr/lib/modules" / kernel.release
    _copy_modules(kernel.modules, modules, (*MODULES, *extra.drivers))
    if module:
        (modules / "updates").mkdir()
        # as a distribution's modules are: without debug information
        _checked(["strip", "--strip-debug", "-o", modules / "updates/dm-remap.ko", module])
    _checked(["depmod", "-b", tree, kernel.release])
    shutil.copy(agent, tree / "usr/sbin/vm-agent")
    options = {"ext4": "errors=remount-ro 0 1", "btrfs": "defaults 0 0"}[extra.fs_type]
    machine = {
        "etc/fstab": f"UUID={fs_uuid} / {extra.fs_type} {options}\n",
        "etc/initramfs-tools/conf.d/machine": f"MODULES=list\nFSTYPE={extra.fs_type}\nCOMPRESS=zstd\n",
        "etc/initramfs-tools/modules": "".join(f"{name}\n" for name in (*INITRAMFS_MODULES, *extra.modules)),
    }
    if extra.ours:
        machine["etc/remaptab"] = f"# NAME UUID=<set> OPTIONS\nroot UUID={set_uuid} -\n" + "".join(f"{line}\n" for line in extra.sets)
    for name, content in (FILES | machine | dict(extra.files)).items():
        if content is None:
            continue
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    units = tree / "etc/systemd/system"
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "vm-agent.service").symlink_to("../vm-agent.service")
    for name in MASKED:
        (units / name).symlink_to("/dev/null")


def _sums(tree: Path, below: str):
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((tree / below).rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _copy_modules(source: Path, target: Path, patterns):
    for pattern in patterns:
        for found in sorted(source.glob(pattern)):
            goal = target / found.relative_to(source)
            goal.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                shutil.copytree(found, goal)
            else:
                shutil.copy2(found, goal)


def _mkfs(tree: Path, image: Path, fs_uuid: str, fs_type: str):
    with open(image, "wb") as file:
        file.truncate(IMAGE_MIB << 20)
    if fs_type == "btrfs":
        _checked(["mkfs.btrfs", "-q", "-U", fs_uuid, "-L", LABEL, "--rootdir", tree, image])
        return
    command = ["mkfs.ext4", "-q", "-F", "-U", fs_uuid, "-L", LABEL, "-b", "4096", "-m", "1", "-J", f"size={JOURNAL_MIB}"]
    _checked([*command, "-E", "lazy_itable_init=1", "-d", tree, image])


@contextlib.contextmanager
def _staging(folder: Path):
    """A folder that becomes `folder` when all went well. Older ones go: each holds hundreds of megabytes."""
    parent = folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another run clears up as well
            if old.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".new.") as scratch:
        staging = Path(scratch, "root")
        staging.mkdir()
        yield staging
        (staging / "complete").touch()
        with contextlib.suppress(OSError):  # another run was faster
            staging.rename(folder)


def _checked(command, **options):
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if done.returncode != 0:
        raise SetupError(f"{command[0]} failed with {done.returncode}:\n{done.stdout}")
