# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine: QEMU without KVM."""

import contextlib
import json
import shlex
import socket
import subprocess
import threading
from pathlib import Path

from . import initramfs, kernels
from .channel import Channel
from .disk import Disk
from .errors import GuestDied, SetupError, VmError
from .machine import Machine
from .qmp import Qmp

# loglevel: boot messages cost time; warnings and worse are shown. oops=panic panic=-1: a guest whose kernel is broken
# ends at once. slub_debug, page_poison: use after free and overruns are seen, in the caches that matter here (for all
# caches, with U, it costs 5 s per boot; like this 0.3 s). Mitigations cost time and protect nothing here.
# The watchdogs for what does not get a processor or does not let go of it measure the host's time: on a busy host a
# guest that does nothing wrong may stand still for the 20 s that they allow.
DEFAULT_APPEND = (
    "console=ttyS0 loglevel=5 panic=-1 oops=panic slub_debug=FZPU,kmalloc-*,bio-*,dm* page_poison=1 "
    "sysctl.kernel.hung_task_timeout_secs=30 sysctl.kernel.watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60 "
    "mitigations=off no_timer_check"
)
# A debug kernel sees these things by itself; what it needs for that makes it slow. Half of the time of a boot it would
# ask ACPI about the PCI bus; without ACPI there is no hot-plug.
DEBUG_APPEND = (
    "console=ttyS0 loglevel=5 panic=-1 kasan_multi_shot sysctl.kernel.hung_task_timeout_secs=120 "
    "sysctl.kernel.watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 workqueue.watchdog_thresh=120 pci=noacpi no_timer_check"
)

# A whole system. Without norandmaps each process has the C library at an address of its own, for each of which QEMU 7.2 translates
# it anew and links the result to the page that it lies in: a list that is searched from the front for each translation that goes
# when the page is freed and zeroed. Guests stood still for minutes, with QEMU in that list, when dracut's initramfs had been freed.
SYSTEM_APPEND = "console=ttyS0 norandmaps"

DRIVERS = {"virtio": "virtio_blk", "scsi": "virtio_scsi,sd_mod", "nvme": "nvme"}


class Keyboard:
    """The other end of a console that takes input. What the console shows goes to its log as well, so it is dropped here."""

    def __init__(self):
        self._here, self.qemu = socket.socketpair()
        threading.Thread(target=self._drop_output, daemon=True).start()

    def type(self, line: str):
        """A line, with the key that ends it."""
        self._here.sendall(line.encode() + b"\n")

    def close(self):
        """To be called when QEMU has ended."""
        self.qemu.close()
        with contextlib.suppress(OSError):  # the thread sees it
            self._here.shutdown(socket.SHUT_RDWR)
        self._here.close()

    def _drop_output(self):
        with contextlib.suppress(OSError):
            while self._here.recv(65536):
                pass


class VM(Machine):
    """A machine in QEMU.

    kernel      series ("6.1"), release, or a path to any kernel image
    initrd      None: our own small initramfs; else a path
    append      more for the kernel command line; with an own initrd or kernel image, all of it but the console
    remap       with our initramfs: take in dm-remap.ko and the tools; they must have been built
    files       with our initramfs: more files, guest path -> host path or bytes
    smp         processors; 2 only to provoke races, it is slower
    memory      default: 512M, 1G for a debug kernel
    agent       wait for the agent at boot. A root image must start vm-agent itself for that
    shutdown_command  how the guest is asked to power off
    keyboard    type() enters lines at the console
    """

    def __init__(
        self,
        disks,
        folder: Path,
        name="vm",
        kernel="6.1",
        initrd=None,
        append="",
        remap=True,
        files=None,
        smp=1,
        memory=None,
        agent=True,
        boot_timeout=300,
        shutdown_command="poweroff -f",
        keyboard=False,
        qemu_args=(),
    ):
        super().__init__(folder, name, shutdown_command)
        self.qemu = None
        self._keyboard = None
        with self._starting():
            if keyboard:
                self._keyboard = Keyboard()
            self._boot(list(disks), kernel, initrd, append, remap, files, smp, memory, qemu_args)
            if agent:
                self._wait_agent(boot_timeout)

    # Hardware

    def plug(self, disk: Disk) -> str:
        """Attach a disk to the running machine; returns its device in the guest."""
        self.plug_unseen(disk)
        return self.dev(disk)

    def plug_unseen(self, disk: Disk):
        """The same while the guest is still booting."""
        self._attach(disk)
        self.qmp.command("blockdev-add", **self._file_node(disk))
        node = self._add_fault_node(disk)
        self.qmp.command("device_add", **self._device(disk, node))

    def unplug(self, disk: Disk, timeout: float = 30):
        """Ask the guest to give a disk up and wait until it has: its I/O fails from then on."""
        self.qmp.command("device_del", id=disk.name)
        self.qmp.wait_event("DEVICE_DELETED", timeout, device=disk.name)
        for node in (self._fault_node[disk.name], f"file-{disk.name}"):
            self.qmp.command("blockdev-del", **{"node-name": node})
        self._forget(disk)

    def type(self, line: str):
        """A line at the console, with the key that ends it."""
        self._keyboard.type(line)

    # Inside

    def _after_end(self):
        super()._after_end()
        if self._keyboard is not None:
            self._keyboard.close()

    def _use_node(self, disk, node):
        self.qmp.command("qom-set", path=f"/machine/peripheral/{disk.name}", property="drive", value=node)

    def _boot(self, disks, kernel, initrd, append, remap, files, smp, memory, qemu_args):
        image, initrd, arguments = self._what_to_boot(disks, kernel, initrd, append, remap, files)
        memory = memory or ("1G" if self.kernel and self.kernel.debug else "512M")
        agent_host, agent_guest = socket.socketpair()
        qmp_host, qmp_guest = socket.socketpair()
        self._sockets = [agent_host, qmp_host]
        # setpriv: QEMU dies with us, however we end; it becomes QEMU, so that the process is QEMU's own
        self.qemu = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-name", self.name]
        # erms: with it the kernel zeroes pages byte by byte, and in one that programs have run from QEMU looks at each byte whether it
        # belongs to translated code (see SYSTEM_APPEND).
        self.qemu += "-nodefaults -no-user-config -display none -no-reboot -machine pc -accel tcg -cpu max,-erms,-fsrm".split()
        self.qemu += ["-smp", str(smp), "-m", str(memory), "-kernel", str(image), "-append", arguments]
        if initrd:
            self.qemu += ["-initrd", str(initrd)]
        console = f"file,id=console,path={self.console.path}"
        inherited = [agent_guest.fileno(), qmp_guest.fileno()]
        if self._keyboard is not None:
            inherited.append(self._keyboard.qemu.fileno())
            console = f"socket,id=console,fd={inherited[-1]},logfile={self.console.path},logappend=on"
        self.qemu += ["-chardev", console, "-serial", "chardev:console"]
        self.qemu += ["-chardev", f"socket,id=qmp,fd={qmp_guest.fileno()}", "-mon", "chardev=qmp,mode=control"]
        self.qemu += ["-chardev", f"socket,id=agent,fd={agent_guest.fileno()}", "-device", "virtio-serial-pci"]
        self.qemu += ["-device", "virtserialport,chardev=agent,name=remapvm.agent"]
        self.qemu += ["-device", "virtio-scsi-pci,id=scsi"]
        for disk in disks:
            self.qemu += self._disk_arguments(disk)
        self.qemu += list(qemu_args)
        (self.folder / f"{self.name}.qemu").write_text(shlex.join(self.qemu) + "\n")
        with open(self.folder / f"{self.name}.stderr", "wb") as errors:
            try:
                self._process = subprocess.Popen(
                    self.qemu,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    pass_fds=inherited,
                )
            except FileNotFoundError as error:
                raise SetupError(f"{error.filename} is not installed: run scripts/test --prepare") from error
        agent_guest.close()
        qmp_guest.close()
        try:
            self.qmp = Qmp(qmp_host)
        except (GuestDied, OSError) as error:
            self._process.wait(10)
            raise VmError("QEMU did not start:\n" + (self.folder / f"{self.name}.stderr").read_text()) from error
        self.channel = Channel(agent_host)
        self._remove_temporary()

    def _what_to_boot(self, disks, kernel, initrd, append, remap, files):
        """Kernel image, initrd and kernel command line."""
        if Path(str(kernel)).is_absolute():
            return kernel, initrd, f"{SYSTEM_APPEND} {append}"
        self.kernel = kernel = kernels.find(kernel)
        if initrd:
            return kernel.image(), initrd, f"{SYSTEM_APPEND} {append}"
        own = self.folder / f"{self.name}.initramfs"
        own.write_bytes(initramfs.build(kernel, remap, files))
        self._temporary.append(own)
        if kernel.debug:
            return kernel.image(), own, f"{DEBUG_APPEND} {append}"
        modules = ["virtio_pci", "virtio_console"] + sorted({DRIVERS[disk.interface] for disk in disks})
        return kernel.image(), own, f"{DEFAULT_APPEND} remapvm.modules={','.join(modules)} {append}"

    def _device(self, disk: Disk, node: str):
        device = {"id": disk.name, "drive": node, "serial": disk.serial}
        sizes = {"logical_block_size": disk.block, "physical_block_size": disk.physical}
        if disk.interface == "virtio":
            # merging would let a request fail for the sake of its neighbour
            exact = {"werror": "report", "rerror": "report", "request-merging": False}
            return {"driver": "virtio-blk-pci", **exact, **device, **sizes}
        if disk.interface == "nvme":
            return {"driver": "nvme", **device, **sizes}
        if disk.wwn is not None:
            device["wwn"] = disk.wwn
        return {"driver": "scsi-hd", "bus": "scsi.0", "werror": "report", "rerror": "report", **device, **sizes}

    def _disk_arguments(self, disk: Disk):
        self._attach(disk)
        faults = self._fault_options(disk)
        arguments = []
        for node in (self._file_node(disk), faults):
            arguments += ["-blockdev", json.dumps(node)]
        return arguments + ["-device", json.dumps(self._device(disk, faults["node-name"]))]
