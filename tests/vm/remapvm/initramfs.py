# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest's root: an initramfs of layers, each cached by what goes into it.

tools     busybox, dash and the host's disk tools with their shared libraries
modules   the kernel's modules named here with all they need, and dm-remap.ko
guest     init, agent, blkio and crashload
project   build/bin
"""

import lzma
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import cached, paths
from .cpio import Archive
from .errors import SetupError

# Put into every guest; loaded by init (the disks' drivers) or on demand.
MODULES = (
    "virtio_pci virtio_console virtio_blk virtio_scsi sd_mod nvme loop brd null_blk scsi_debug "
    "dm-mod dm-flakey dm-log-writes dm-snapshot dm-delay dm-crypt dm-mirror dm-raid raid1 "
    "ext4 xfs btrfs f2fs crc32_generic crc32c_generic crc32c-intel xts aes_generic"
).split()

# Host programs that a guest has. Those marked optional are there when the host has them.
PROGRAMS = (
    "dash dmsetup blkid wipefs losetup blockdev mount umount mkswap swapon swapoff dd cmp findmnt "
    "mke2fs mkfs.ext4 e2fsck dumpe2fs debugfs tune2fs setpriv "
    "mkfs.xfs xfs_repair mkfs.btrfs btrfs mkfs.f2fs fsck.f2fs"
).split()
OPTIONAL_PROGRAMS = "lsblk udevadm".split()

PROJECT_TOOLS = "remapsetup remap-fsck remap-dump".split()
GUEST_PROGRAMS = ("agent", "blkio", "comeandgo", "crashload")
SEARCH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


def build(kernel, remap: bool, files=None) -> bytes:
    """The whole initramfs for a kernel.

    remap: with dm-remap.ko and the project's tools, which then must have been built.
    files: more files, guest path -> host Path or bytes.
    """
    layers = [_tools_layer(), _modules_layer(kernel, remap), _guest_layer()]
    if remap:
        layers.append(_project_layer())
    data = b"".join(layer.read_bytes() for layer in layers)
    return data + _files_layer(files or {})


def guest_program(name: str) -> Path:
    """A program of tests/vm/guest/ ("agent", say), compiled statically: it runs in any guest."""
    source = paths.GUEST / f"{name}.c"
    command = ["cc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]

    def compile_to(path):
        done = subprocess.run([*command, "-o", path, source], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(f"{source} does not compile:\n{done.stderr}")
        path.chmod(0o755)

    return cached.cached_file("guest", cached.digest(name, " ".join(command), source, *sorted(paths.GUEST.glob("*.h"))) + f"-{name}", compile_to)


def guest_module(kernel, name: str) -> Path:
    """A kernel module of tests/vm/guest/ ("dm-status", say), built for this kernel."""
    source = paths.GUEST / f"{name}.c"

    def make(path):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(source, folder)
            Path(folder, "Kbuild").write_text(f"obj-m := {name}.o\n")
            command = ["make", "-s", "-C", kernel.headers(), f"M={folder}", "modules"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SetupError(f"{source} does not compile for {kernel.release}:\n{done.stderr}")
            shutil.copy(Path(folder, f"{name}.ko"), path)

    return cached.cached_file("guest", cached.digest(kernel.release, source) + f"-{name}.ko", make)


def module_file(kernel) -> Path:
    """dm-remap.ko built for this kernel; an error says how to get it."""
    path = paths.build() / "kmod" / kernel.release / "dm-remap.ko"
    if not path.exists():
        raise SetupError(
            f"{path} is missing: build target kmod with -DKDIR={kernel.headers()}, "
            "or run scripts/test --prepare (a test that does not need it says boot(..., remap=False))"
        )
    return path


def _find_program(name: str):
    for folder in SEARCH:
        path = Path(folder, name)
        if path.exists():
            return path
    return None


def _place(path: str) -> str:
    """Where a host path goes: Debian's merged /usr, so that /lib/x and /usr/lib/x are the same file."""
    path = path.lstrip("/")
    return f"usr/{path}" if re.match(r"(bin|sbin|lib|lib64)/", path) else path


def _libraries(program: Path):
    """Shared libraries (and the loader) that a program needs, as the host has them; none for a static one."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if "not found" in done.stdout:
        raise SetupError(f"{program} lacks shared libraries:\n{done.stdout}")
    return re.findall(r"(/\S+) \(0x", done.stdout)


def _add_program(archive: Archive, program: Path, place: str):
    archive.file(place, program)
    for library in _libraries(program):
        archive.file(_place(library), Path(library))


def _stamp(path: Path) -> str:
    state = path.stat()
    return f"{path} {state.st_size} {state.st_mtime_ns}"


def _tools_layer() -> Path:
    busybox = _find_program("busybox")
    programs = {name: _find_program(name) for name in PROGRAMS + OPTIONAL_PROGRAMS}
    missing = [name for name in PROGRAMS if not programs[name]]
    if missing or not busybox:
        raise SetupError(f"not installed: {' '.join(missing) or 'busybox'}: run scripts/test --prepare")
    present = {name: path for name, path in programs.items() if path}
    key = cached.digest(Path(__file__), _stamp(busybox), *[_stamp(path) for path in present.values()])

    def make(path):
        archive = Archive()
        for name in ("bin", "sbin", "lib", "lib64"):
            archive.folder(f"usr/{name}")
            archive.link(name, f"usr/{name}")
        for name in ("proc", "sys", "dev", "run", "tmp", "root", "mnt", "etc", "var"):
            archive.folder(name)
        archive.link("etc/mtab", "/proc/self/mounts")
        archive.link("var/run", "/run")
        archive.node("dev/console", 5, 1)
        archive.data("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.data("etc/group", b"root:x:0:\n")
        for program in present.values():
            _add_program(archive, program, _place(str(program)))
        archive.file("usr/bin/busybox", busybox)
        # dash, not busybox: busybox's shell runs its own applets before anything in PATH
        archive.link("usr/bin/sh", "dash")
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet not in present and applet not in ("sh", "busybox"):
                folder = "sbin" if applet in ("modprobe", "insmod", "rmmod", "poweroff", "reboot") else "bin"
                archive.link(f"usr/{folder}/{applet}", "/usr/bin/busybox")
        path.write_bytes(archive.finish())

    return cached.cached_file("initramfs", key + "-tools", make)


def _guest_layer() -> Path:
    programs = {name: guest_program(name) for name in GUEST_PROGRAMS}
    init = paths.GUEST / "init.sh"
    key = cached.digest(Path(__file__), init, *programs.values())

    def make(path):
        archive = Archive()
        archive.data("init", init.read_bytes(), 0o755)
        archive.data("usr/bin/vm-agent", programs["agent"].read_bytes(), 0o755)
        for name in GUEST_PROGRAMS[1:]:
            archive.data(f"usr/bin/{name}", programs[name].read_bytes(), 0o755)
        path.write_bytes(archive.finish())

    return cached.cached_file("initramfs", key + "-guest", make)


def _project_layer() -> Path:
    tools = {name: paths.build() / "bin" / name for name in PROJECT_TOOLS}
    missing = [str(path) for path in tools.values() if not path.exists()]
    if missing:
        raise SetupError(
            f"not built: {' '.join(missing)}: run cmake --build, or scripts/test --prepare "
            "(a test that does not need them says boot(..., remap=False))"
        )

    def make(path):
        archive = Archive()
        with tempfile.TemporaryDirectory() as folder:
            for name, tool in tools.items():
                if tool.is_symlink():  # one program with several names
                    archive.link(f"usr/sbin/{name}", os.readlink(tool))
                    continue
                # without its 50 MB of debugging information, which each boot would unpack
                small = Path(folder, name)
                subprocess.run(["strip", "-o", small, tool], check=True)
                _add_program(archive, small, f"usr/sbin/{name}")
        archive.link("usr/sbin/fsck.remap", "remap-fsck")
        path.write_bytes(archive.finish())

    return cached.cached_file("initramfs", cached.digest(Path(__file__), *tools.values()) + "-project", make)


def _files_layer(files) -> bytes:
    if not files:
        return b""
    archive = Archive()
    for place, source in files.items():
        place = _place(place)
        if isinstance(source, bytes):
            archive.data(place, source, 0o755)
        else:
            archive.file(place, Path(source))
    return archive.finish()


def _module_name(path: str) -> str:
    return re.sub(r"\.ko(\.xz|\.zst|\.gz)?$", "", os.path.basename(path)).replace("-", "_")


class _ModuleIndex:
    """modules.dep, modules.softdep and modules.builtin of a kernel."""

    def __init__(self, folder: Path):
        self.depends, self.softly, self.path = {}, {}, {}
        for line in (folder / "modules.dep").read_text().splitlines():
            target, _, needed = line.partition(":")
            self.path[_module_name(target)] = target
            self.depends[_module_name(target)] = [_module_name(name) for name in needed.split()]
        for line in (folder / "modules.softdep").read_text().splitlines():
            words = line.split()
            if words[:1] == ["softdep"]:
                self.softly[words[1].replace("-", "_")] = [
                    word.replace("-", "_") for word in words[2:] if not word.endswith(":")
                ]
        self.builtin = {_module_name(line) for line in (folder / "modules.builtin").read_text().splitlines()}

    def known(self, wanted):
        """Those of the wanted modules that this kernel has: a debug kernel is a small one."""
        return [name for name in wanted if name.replace("-", "_") in self.path]

    def closure(self, wanted):
        """Paths of the wanted modules and of all they need."""
        todo, done = [name.replace("-", "_") for name in wanted], set()
        while todo:
            name = todo.pop()
            if name in done or name in self.builtin:
                continue
            if name not in self.path:
                raise SetupError(f"this kernel has no module {name}")
            done.add(name)
            todo += self.depends[name]
            todo += [soft for soft in self.softly.get(name, []) if soft in self.path]
        return sorted(self.path[name] for name in done)


def _plain_module(path: Path) -> bytes:
    """A module's content, uncompressed: that saves the guest the work."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def _modules_layer(kernel, remap: bool) -> Path:
    ours = module_file(kernel) if remap else None
    key = cached.digest(Path(__file__), _stamp(kernel.modules / "modules.dep"), *([ours] if ours else []))

    def make(path):
        index = _ModuleIndex(kernel.modules)
        with tempfile.TemporaryDirectory() as top:
            root = Path(top, "lib", "modules", kernel.release)
            for name in index.closure(MODULES if not kernel.debug else index.known(MODULES)):
                target = root / re.sub(r"\.(xz|zst|gz)$", "", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_plain_module(kernel.modules / name))
            if ours:
                (root / "updates").mkdir()
                shutil.copy(ours, root / "updates" / "dm-remap.ko")
            for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
                if (kernel.modules / name).exists():
                    shutil.copy(kernel.modules / name, root / name)
            subprocess.run(["/sbin/depmod", "-b", top, kernel.release], check=True)
            archive = Archive()
            for file in sorted(root.rglob("*")):
                if file.is_file():
                    archive.file(_place(str(file.relative_to(top))), file)
            path.write_bytes(archive.finish())

    return cached.cached_file("initramfs", key + "-modules", make)
