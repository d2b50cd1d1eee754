# SPDX-License-Identifier: GPL-2.0-or-later
"""What machines of all kinds have in common: their disks, their console, and commands inside them."""

import contextlib
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

from . import leaks
from .blkio import BlkioReport
from .console import IGNORE_FROM, IGNORE_TO, Console
from .disk import Disk, Faults
from .errors import CommandFailed, CommandTimeout, GuestDied, KernelWarning, VmError
from .patience import stretched


class Machine:
    """One boot of a machine. The disks outlive it: to reboot, make another machine with the same disks.

    A subclass starts `_process` and connects `channel` to its agent and `qmp` to whatever serves its disks.
    """

    def __init__(self, folder: Path, name: str, shutdown_command: str):
        self.name = name
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.console = Console(self.folder / f"{name}.console")
        self.commands = []
        self.disks = {}
        self.kernel = None
        self.qmp = None
        self.channel = None
        self._process = None
        self._devices = {}
        self._fault_count = 0
        self._fault_node = {}
        self._shutdown_command = shutdown_command
        self._temporary = []
        self._sockets = []

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

    def try_run(self, command, timeout=120, stdin=b"", env=None, **names):
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

    def run(self, command, timeout=120, stdin=b"", env=None, **names):
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
                try:
                    result = process.wait(30)
                except CommandTimeout:
                    self._show_blocked_tasks()
                    raise
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

    def check_leaks(self):
        """Raise KernelWarning if memory that the module allocated is lost. Only debug kernels can tell."""
        found = leaks.find(self)
        if found:
            raise KernelWarning(f"{self.name} lost memory:\n" + "\n".join(found))

    # Power

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The machine's process id on the host."""
        return self._process.pid

    def power_cut(self):
        """Kill the machine at once. What the guest's disks had acknowledged is in the images, nothing later is."""
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
        """Wait until the guest has powered off (or rebooted: that ends a machine too)."""
        try:
            self._process.wait(stretched(timeout))
        except subprocess.TimeoutExpired as error:
            raise CommandTimeout(f"{self.name} did not power off within {timeout} s", None) from error
        self._after_end()
        self.check_console()

    def wait_up(self, timeout: float = 300):
        """Wait for the agent of a machine that was started without."""
        self._wait_agent(timeout)

    def wait_console(self, text: str, timeout: float = 60):
        """Wait until the console has shown this text."""
        end = time.monotonic() + stretched(timeout)
        while text not in self.console.text():
            if not self.running or time.monotonic() > end:
                raise CommandTimeout(f"{self.name} has not said {text!r} within {timeout} s; its console:\n{self.console.tail()}", None)
            time.sleep(0.1)

    def set_faults(self, disk: Disk, **faults):
        """Change which sectors of a running machine's disk fail; arguments as for Faults.make(). In force on return."""
        disk.faults = Faults.make(**faults)
        before = self._fault_node[disk.name]
        self._use_node(disk, self._add_fault_node(disk))
        self.qmp.command("blockdev-del", **{"node-name": before})

    # Inside

    def _use_node(self, disk: Disk, node: str):
        """Make that block node the disk's."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _starting(self):
        """A machine that does not come up leaves nothing behind."""
        try:
            yield
        except BaseException:
            self.power_cut()
            raise

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
