# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of user-mode Linux: a kernel that is a process, at the host's own speed.

Its disks are virtio-blk over vhost-user, served by qemu-storage-daemon with the same block nodes that QEMU gives its
guests, so that they fail in the same way. One processor, no other interfaces, no hot-plug.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from . import initramfs, kernels
from .channel import Channel
from .disk import Disk, parse_size
from .errors import GuestDied, SetupError, VmError
from .machine import Machine
from .qmp import Qmp

APPEND = (
    "console=tty0 con0=null,fd:1 con=null ssl=null remapvm.port=/dev/ttyS0 loglevel=5 kasan_multi_shot "
    "sysctl.kernel.hung_task_timeout_secs=30"
)
VIRTIO_BLOCK = 2
DYING_SECONDS = 30


def _without_randomization():
    """Words to run the kernel at a fixed address where the host allows that.

    The gap that the host leaves at random behind a program's data counts as memory of the guest, up to a gigabyte of
    it, and to set it up and have kmemleak look at it takes half of the time of a boot.
    """
    words = ["setarch", "-R"]
    return words if subprocess.run([*words, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0 else []


class UmlMachine(Machine):
    """A machine of user-mode Linux; the arguments mean what they mean for VM. smp is ignored: it has one processor."""

    def __init__(
        self,
        disks,
        folder: Path,
        name="vm",
        kernel="uml",
        append="",
        remap=True,
        files=None,
        smp=1,
        memory="512M",
        agent=True,
        boot_timeout=300,
        shutdown_command="poweroff -f",
        **others,
    ):
        super().__init__(folder, name, shutdown_command)
        if others:
            raise SetupError(f"user-mode Linux has no {', '.join(others)}: mark the test needs_qemu(what)")
        self._server = None
        self._alive = None
        self._order = [disk.name for disk in disks]
        # the path of a socket may have 107 characters
        self._sockets_folder = Path(tempfile.mkdtemp(prefix="remapvm."))
        with self._starting():
            self.kernel = kernels.find(kernel)
            self._serve(disks)
            self._boot(self._kernel_arguments(append, remap, files, memory))
            if agent:
                self._wait_agent(boot_timeout)
                self._use_caches()

    def dev(self, disk) -> str:
        """The device of a disk (Disk or its name) in the guest. Served disks have no serial numbers, but an order."""
        disk = self.disks[disk] if isinstance(disk, str) else disk
        return f"/dev/vd{chr(ord('a') + self._order.index(disk.name))}"

    # Inside

    def _serve(self, disks):
        """Start the process that serves the disks."""
        host, served = socket.socketpair()
        self._sockets.append(host)
        command = ["setpriv", "--pdeathsig", "KILL", "qemu-storage-daemon"]
        command += ["--chardev", f"socket,id=qmp,fd={served.fileno()}", "--monitor", "chardev=qmp"]
        for disk in disks:
            command += self._disk_arguments(disk)
        with open(self.folder / f"{self.name}.stderr", "wb") as errors:
            self._server = self._popen(command, errors, served)
        served.close()
        try:
            self.qmp = Qmp(host)
        except (GuestDied, OSError) as error:
            self._server.wait(10)
            raise VmError("qemu-storage-daemon did not start:\n" + self._errors()) from error

    def _disk_arguments(self, disk: Disk):
        if disk.interface != "virtio" or disk.physical != disk.block:
            raise SetupError("user-mode Linux has plain virtio disks only: mark the test needs_qemu(what)")
        self._attach(disk)
        faults = self._fault_options(disk)
        arguments = []
        # a node of its own for the disk: what is below it can be exchanged
        for node in (self._file_node(disk), faults, self._disk_node(disk, faults["node-name"])):
            arguments += ["--blockdev", json.dumps(node)]
        export = {"type": "vhost-user-blk", "id": disk.name, "node-name": f"disk-{disk.name}", "writable": True}
        export |= {"logical-block-size": disk.block, "addr": {"type": "unix", "path": str(self._socket(disk.name))}}
        return arguments + ["--export", json.dumps(export)]

    def _disk_node(self, disk: Disk, below: str):
        return {"driver": "raw", "node-name": f"disk-{disk.name}", "file": below}

    def _use_node(self, disk, node):
        self.qmp.command("blockdev-reopen", options=[self._disk_node(disk, node)])

    def _use_caches(self):
        """qemu-storage-daemon says at first that its disks have no cache; then the guest would send no flush."""
        if self._order:
            self.run('for type in /sys/block/vd*/cache_type; do echo "write back" >$type && grep -q back $type || exit 1; done')

    def _socket(self, disk_name: str) -> Path:
        return self._sockets_folder / disk_name

    def _kernel_arguments(self, append, remap, files, memory):
        initrd = self.folder / f"{self.name}.initramfs"
        initrd.write_bytes(initramfs.build(self.kernel, remap, files))
        self._temporary.append(initrd)
        disks = [f"virtio_uml.device={self._socket(name)}:{VIRTIO_BLOCK}" for name in self._order]
        return [f"mem={memory}", f"initrd={initrd}", f"uml_dir={self._sockets_folder}", *APPEND.split(), *disks, *append.split()]

    def _boot(self, arguments):
        agent_host, agent_guest = socket.socketpair()
        self._sockets.append(agent_host)
        # The processes of the guest are traced processes of the host. If only the kernel were killed they would go on,
        # untraced. The first process of a PID namespace takes all others along.
        namespace = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
        command = ["setpriv", "--pdeathsig", "KILL", *_without_randomization(), "unshare", *namespace, "--pid", "--fork", "--kill-child"]
        command += ["sh", "-c", 'ulimit -c 0; "$@"; exit $?', "uml", str(self.kernel.image())]
        command += [*arguments, f"ssl0=fd:{agent_guest.fileno()}"]
        (self.folder / f"{self.name}.uml").write_text(shlex.join(command) + "\n")
        self._alive, alive = socket.socketpair()
        self._sockets.append(self._alive)
        environment = os.environ | {"TMPDIR": self._memory_folder(arguments[0])}
        with open(self.console.path, "wb") as console:
            self._process = self._popen(command, console, agent_guest, alive, env=environment)
        agent_guest.close()
        alive.close()
        self.channel = Channel(agent_host)

    def _memory_folder(self, memory: str) -> str:
        """Where the file that is the guest's memory goes: not onto a disk if that can be helped."""
        shared = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
        fits = shared and shared.f_bavail * shared.f_frsize > 2 * parse_size(memory.partition("=")[2])
        return "/dev/shm" if fits and not shared.f_flag & os.ST_NOEXEC else str(self.folder)

    def _popen(self, command, output, *sockets, env=None):
        fds = [sock.fileno() for sock in sockets]
        try:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=fds, env=env)
        except FileNotFoundError as error:
            raise SetupError(f"{error.filename} is not installed: run scripts/test --prepare") from error

    def _errors(self) -> str:
        return (self.folder / f"{self.name}.stderr").read_text(errors="replace")

    def _after_end(self):
        if self._alive is not None and self._alive.fileno() >= 0:
            # the last of the namespace's processes to go closes this
            self._alive.settimeout(DYING_SECONDS)
            self._alive.recv(1)
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        super()._after_end()
        shutil.rmtree(self._sockets_folder, ignore_errors=True)
