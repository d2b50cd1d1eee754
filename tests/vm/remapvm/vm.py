# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine: QEMU without KVM, its disks, its console, and commands inside it."""

import json
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import initramfs, kernels
from .blkio import BlkioReport
from .channel import Channel
from .console import IGNORE_FROM, IGNORE_TO, Console
from .disk import Disk, Faults
from .errors import CommandFailed, CommandTimeout, GuestDied, KernelWarning, SetupError, VmError
from .qmp import Qmp

# loglevel: boot messages cost time; warnings and worse are shown. oops=panic panic=-1: a guest whose kernel is broken
# ends at once. slub_debug, page_poison: use after free and overruns are seen, in the caches that matter here (for all
# caches, with U, it costs 5 s per boot; like this 0.3 s). Mitigations cost time and protect nothing here.
DEFAULT_APPEND = (
    "console=ttyS0 loglevel=5 panic=-1 oops=panic slub_debug=FZPU,kmalloc-*,bio-*,dm* page_poison=1 "
    "sysctl.kernel.hung_task_timeout_secs=30 mitigations=off no_timer_check"
)

DRIVERS = {"virtio": "virtio_blk", "scsi": "virtio_scsi,sd_mod", "nvme": "nvme"}


class VM:
    """One boot of a machine. The disks outlive it: to reboot, make another VM with the same disks.

    kernel      series ("6.1"), release, or a path to any kernel image
    initrd      None: our own small initramfs; else a path
    append      more for the kernel command line; with an own initrd or kernel image, all of it but the console
    remap       with our initramfs: take in dm-remap.ko and the tools; they must have been built
    files       with our initramfs: more files, guest path -> host path or bytes
    smp         processors; 2 only to provoke races, it is slower
    agent       wait for the agent at boot. A root image must start vm-agent itself for that
    shutdown_command  how the guest is asked to power off
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
        memory="512M",
        agent=True,
        boot_timeout=90,
        shutdown_command="poweroff -f",
        qemu_args=(),
    ):
        self.name = name
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.console = Console(self.folder / f"{name}.console")
        self.commands = []
        self.disks = {}
        self.qemu = None
        self.qmp = None
        self.channel = None
        self._process = None
        self._devices = {}
        self._fault_count = 0
        self._fault_node = {}
        self._shutdown_command = shutdown_command
        self._temporary = []
        self._sockets = []
        try:
            self._boot(list(disks), kernel, initrd, append, remap, files, smp, memory, qemu_args)
            if agent:
                self._wait_agent(boot_timeout)
        except BaseException:
            self.power_cut()
            raise

    # Commands in the guest

    def start(self, command, stdin=b"", env=None, **names):
        """Start a command and return a Process. See run() for the arguments; stdin=None leaves its input open."""
        self._require_running()
        if isinstance(command, str):
            argv = ["sh", "-c", self._fill_in(command, names)]
        else:
            argv = [str(self.dev(word)) if isinstance(word, Disk) else str(word) for word in command]
        if isinstance(stdin, str):
            stdin = stdin.encode()
        settings = [f"{name}={value}" for name, value in (env or {}).items()]
        process = self.channel.start(argv, settings, stdin)
        self.commands.append(process)
        return process

    def try_run(self, command, timeout=60, stdin=b"", env=None, **names):
        """Run a command to its end and return its Result, whatever its exit status.

        command: a line for the shell, in which {name} stands for the device of the disk of that name (and for
        **names); or a list of words, in which a Disk stands for its device.
        timeout: seconds; then the command is killed and CommandTimeout raised.
        """
        process = self.start(command, stdin, env, **names)
        try:
            result = process.wait(timeout)
        except CommandTimeout:
            self._show_blocked_tasks()
            raise
        self.check_console()
        return result

    def run(self, command, timeout=60, stdin=b"", env=None, **names):
        """Run a command that must succeed; CommandFailed shows its output. Arguments as for try_run()."""
        result = self.try_run(command, timeout, stdin, env, **names)
        if result.exit != 0:
            raise CommandFailed(result)
        return result

    def blkio(self, operation, target, sectors=None, timeout=120, **options) -> BlkioReport:
        """Exact sector I/O, see tests/vm/guest/blkio.c; never raises because of I/O errors: they are in the report.

        operation: write, verify, read, scan, flush, discard, zeroout. target: a Disk or a device path in the guest.
        sectors: sector numbers, or ranges as text ("0-99,200+8"); None: all.
        options: seed (a number or several), bs, threads, fua, flush, stop.
        """
        process = self.start_blkio(operation, target, sectors, **options)
        try:
            result = process.wait(timeout)
        except CommandTimeout:
            self._show_blocked_tasks()
            raise
        self.check_console()
        if result.exit not in (0, 1):
            raise CommandFailed(result)
        return BlkioReport(result)

    def start_blkio(self, operation, target, sectors=None, **options):
        """Start a blkio and return its Process; with ack=True its output tells each acknowledged write."""
        device = self.dev(target) if isinstance(target, Disk) else target
        argv = ["blkio", operation, device]
        for name, value in options.items():
            if value is True:
                argv.append(f"--{name}")
            elif isinstance(value, (list, tuple)):
                argv += [f"--{name}", ",".join(str(number) for number in value)]
            elif value is not False:
                argv += [f"--{name}", str(value)]
        if sectors is None:
            return self.start(argv)
        text = sectors if isinstance(sectors, str) else "\n".join(str(sector) for sector in sectors)
        return self.start([*argv, "--at", "-"], stdin=text)

    def push(self, source, place: str, mode: int = 0o644):
        """Copy a file of the host (path), or bytes, into the guest."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        quoted = shlex.quote(place)
        self.run(["sh", "-c", f"cat >{quoted} && chmod {mode:o} {quoted}"], stdin=data)

    def pull(self, place: str) -> bytes:
        """The content of a file in the guest."""
        return self.run(["cat", place]).raw_stdout

    def dev(self, disk) -> str:
        """The device of a disk (Disk or its name) in the guest, found by serial number: "/dev/vda", say."""
        disk = self.disks[disk] if isinstance(disk, str) else disk
        if disk.name not in self._devices:
            for wait in (0.1, 0.2, 0.5, 1, 2, 5, 0):  # a disk just plugged in takes a moment
                process = self.channel.start(["vm-agent", "--find", disk.serial])
                result = process.wait(30)
                if result.exit == 0:
                    self._devices[disk.name] = result.stdout.strip()
                    break
                time.sleep(wait)
            else:
                raise VmError(f"the guest has no disk with serial number {disk.serial}: {result}")
        return self._devices[disk.name]

    def dmesg(self) -> str:
        """The kernel's messages, also those the console left out."""
        return self.run(["dmesg"]).stdout

    # The kernel's opinion

    def expect_kernel_message(self, pattern: str):
        """Reports of the kernel that match this regular expression are wanted by the test and do not fail it."""
        self.console.expect(pattern)

    def check_console(self):
        """Raise KernelWarning if the kernel reported a bug since the last check."""
        found = self.console.new_trouble()
        if found:
            raise KernelWarning(f"the kernel of {self.name} reported:\n  " + "\n  ".join(found))

    # Power and hardware

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def power_cut(self):
        """Kill QEMU at once. What the guest's disks had acknowledged is in the images, nothing later is."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._after_end()

    def shutdown(self, timeout: float = 60):
        """Power off in an orderly way and wait for the end."""
        self.start(self._shutdown_command)
        self.wait_end(timeout)

    def wait_end(self, timeout: float = 60):
        """Wait until the guest has powered off (or rebooted: that ends QEMU too)."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise CommandTimeout(f"{self.name} did not power off within {timeout} s", None) from error
        self._after_end()
        self.check_console()

    def set_faults(self, disk: Disk, **faults):
        """Change which sectors of a running machine's disk fail; arguments as for Faults.make(). In force on return."""
        disk.faults = Faults.make(**faults)
        before = self._fault_node[disk.name]
        node = self._add_fault_node(disk)
        self.qmp.command("qom-set", path=f"/machine/peripheral/{disk.name}", property="drive", value=node)
        self.qmp.command("blockdev-del", **{"node-name": before})

    def plug(self, disk: Disk) -> str:
        """Attach a disk to the running machine; returns its device in the guest."""
        self._attach(disk)
        self.qmp.command("blockdev-add", **self._file_node(disk))
        node = self._add_fault_node(disk)
        self.qmp.command("device_add", **self._device(disk, node))
        return self.dev(disk)

    def unplug(self, disk: Disk, timeout: float = 30):
        """Ask the guest to give a disk up and wait until it has: its I/O fails from then on."""
        self.qmp.command("device_del", id=disk.name)
        self.qmp.wait_event("DEVICE_DELETED", timeout, device=disk.name)
        for node in (self._fault_node[disk.name], f"file-{disk.name}"):
            self.qmp.command("blockdev-del", **{"node-name": node})
        self._forget(disk)

    # Inside

    def _boot(self, disks, kernel, initrd, append, remap, files, smp, memory, qemu_args):
        image, initrd, arguments = self._what_to_boot(disks, kernel, initrd, append, remap, files)
        agent_host, agent_guest = socket.socketpair()
        qmp_host, qmp_guest = socket.socketpair()
        self._sockets = [agent_host, qmp_host]
        # setpriv: QEMU dies with us, however we end; it becomes QEMU, so that the process is QEMU's own
        self.qemu = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-name", self.name]
        self.qemu += "-nodefaults -no-user-config -display none -no-reboot -machine pc -accel tcg -cpu max".split()
        self.qemu += ["-smp", str(smp), "-m", str(memory), "-kernel", str(image), "-append", arguments]
        if initrd:
            self.qemu += ["-initrd", str(initrd)]
        self.qemu += ["-chardev", f"file,id=console,path={self.console.path}", "-serial", "chardev:console"]
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
                    pass_fds=(agent_guest.fileno(), qmp_guest.fileno()),
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
            return kernel, initrd, f"console=ttyS0 {append}"
        kernel = kernels.find(kernel)
        if initrd:
            return kernel.image(), initrd, f"console=ttyS0 {append}"
        own = self.folder / f"{self.name}.initramfs"
        own.write_bytes(initramfs.build(kernel, remap, files))
        self._temporary.append(own)
        modules = ["virtio_pci", "virtio_console"] + sorted({DRIVERS[disk.interface] for disk in disks})
        return kernel.image(), own, f"{DEFAULT_APPEND} remapvm.modules={','.join(modules)} {append}"

    def _wait_agent(self, timeout):
        if not self.channel.wait_ready(timeout):
            state = "died" if self.channel.closed else f"was not up within {timeout} s"
            raise GuestDied(f"{self.name} {state} at boot; its console:\n{self.console.tail()}")

    def _require_running(self):
        if self.channel is None or not self.running:
            raise GuestDied(f"{self.name} is not running")

    def _fill_in(self, command: str, names) -> str:
        """Replaces {name} for each known name, and only those: other braces belong to the shell."""

        def value(match):
            name = match[1]
            if name in names:
                return str(self.dev(names[name]) if isinstance(names[name], Disk) else names[name])
            return self.dev(name) if name in self.disks else match[0]

        return re.sub(r"(?<!\$)\{(\w+)\}", value, command)

    def _attach(self, disk: Disk):
        if disk.attached_to is not None:
            raise VmError(f"disk {disk.name} is in use by {disk.attached_to.name}")
        if disk.name in self.disks:
            raise VmError(f"{self.name} has a disk named {disk.name} already")
        disk.attached_to = self
        self.disks[disk.name] = disk

    def _forget(self, disk: Disk):
        disk.attached_to = None
        self.disks.pop(disk.name, None)
        self._devices.pop(disk.name, None)

    def _file_node(self, disk: Disk):
        # A write is complete when it is in the host's page cache, which outlives QEMU: so what the guest saw
        # acknowledged survives power_cut(). no-flush only spares the host's own disk; the guest sees a disk
        # with a volatile cache and sends its flushes.
        return {
            "driver": "file",
            "node-name": f"file-{disk.name}",
            "filename": str(disk.path),
            "cache": {"direct": False, "no-flush": True},
        }

    def _fault_options(self, disk: Disk):
        """A blkdebug node with the disk's present faults."""
        self._fault_count += 1
        config = self.folder / f"{self.name}.faults-{disk.name}-{self._fault_count}"
        config.write_text(disk.faults.config())
        self._fault_node[disk.name] = f"faults-{self._fault_count}"
        return {
            "driver": "blkdebug",
            "node-name": self._fault_node[disk.name],
            "image": f"file-{disk.name}",
            "config": str(config),
        }

    def _add_fault_node(self, disk: Disk) -> str:
        options = self._fault_options(disk)
        self.qmp.command("blockdev-add", **options)
        return options["node-name"]

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

    def _show_blocked_tasks(self):
        """The stacks of what hangs, onto the console, for the report of a timeout."""
        script = f"echo '<4>{IGNORE_FROM}' >/dev/kmsg; echo w >/proc/sysrq-trigger; echo '<4>{IGNORE_TO}' >/dev/kmsg"
        try:
            self.channel.start(["sh", "-c", script]).wait(5)
        except VmError:
            pass  # the guest is past helping; the timeout is being reported already

    def _remove_temporary(self):
        for path in self._temporary:
            path.unlink(missing_ok=True)
        self._temporary = []

    def _after_end(self):
        if self.channel is not None:
            self.channel.close()
        if self.qmp is not None:
            self.qmp.close()
        for sock in self._sockets:
            sock.close()
        self._remove_temporary()
        for disk in list(self.disks.values()):
            disk.attached_to = None

