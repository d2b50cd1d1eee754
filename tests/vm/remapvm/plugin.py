# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest's side of the harness: options, the fixtures `disk` and `boot`, and reports that show the guest."""

import re
import shutil
import signal
import threading

import pytest

from . import kernels, paths
from .disk import Disk, Faults
from .errors import VmError
from .machine import Machine
from .uml import UmlMachine
from .vm import VM

__all__ = [
    "boot",
    "disk",
    "kernel",
    "machines",
    "pytest_addoption",
    "pytest_configure",
    "pytest_collection_modifyitems",
    "pytest_generate_tests",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
]


def pytest_addoption(parser):
    """Command-line options of the harness."""
    group = parser.getgroup("dm-remap")
    group.addoption("--kernel", help="6.1, 6.12, a release, all (of these), or a debug kernel: uml, x86-debug (default: 6.1, or what a test's marker says)")
    group.addoption("--long", action="store_true", help="also run tests marked long")
    group.addoption("--share", action="store_true", help="tests marked uml_suffices run with --kernel uml only, and others that can run elsewhere do not")
    group.addoption("--keep-disks", action="store_true", help="keep the disk images of failed tests beside their logs")


def pytest_configure():
    """A termination request ends the run as Ctrl-C does: with the machines ended and the folders cleaned up."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out, of the tests selected, the long ones unless asked for, and what the wanted kernel cannot run."""
    reasons = {item: _why_left_out(config, item) for item in items}
    left_out = [item for item in items if reasons[item]]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not reasons[item]]
    config.stash[LEFT_OUT] = [f"{item.nodeid}: {reasons[item]}" for item in left_out if reasons[item] not in (LONG, ELSEWHERE) and not item.get_closest_marker("only_on")]


LEFT_OUT = pytest.StashKey()
LONG = "takes long"
ELSEWHERE = "it runs on another kernel"


def _why_left_out(config, item) -> str:
    """Why a test is not to run; empty when it is."""
    if item.get_closest_marker("long") and not config.getoption("--long"):
        return LONG
    only = item.get_closest_marker("only_on")
    if only and config.getoption("--kernel") not in only.args:
        return f"it is for {', '.join(only.args)}"
    if config.getoption("--share") and not only and _uml_suffices(item) != (config.getoption("--kernel") == "uml"):
        return ELSEWHERE
    if config.getoption("--kernel") not in kernels.DEBUG:
        return ""
    if "kernel" not in item.fixturenames:
        return "it is the same on every kernel"
    return _why_not_on_uml(item) if config.getoption("--kernel") == "uml" else ""


def _uml_suffices(item) -> bool:
    """Whether a test that is marked so runs there indeed, and is not wanted on several kernels."""
    marked = item.get_closest_marker("uml_suffices") and not item.get_closest_marker("kernels")
    return bool(marked) and not _why_not_on_uml(item)


def _why_not_on_uml(item) -> str:
    """What user-mode Linux lacks for a test; empty when it can run it."""
    interface = getattr(item, "callspec", None) and item.callspec.params.get("interface", "virtio")
    if interface and interface != "virtio":
        return f"user-mode Linux has no {interface} disks"
    marker = item.get_closest_marker("needs_qemu")
    return f"it needs {marker.args[0]}" if marker else ""


def pytest_terminal_summary(terminalreporter, config):
    """What did not run on this kernel, and why."""
    left_out = config.stash.get(LEFT_OUT, [])
    if left_out:
        terminalreporter.section(f"{len(left_out)} tests do not run on {config.getoption('--kernel')}")
        for line in left_out:
            terminalreporter.line(line)


def pytest_generate_tests(metafunc):
    """One instance of a test for each kernel it is to run on."""
    if "kernel" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("kernels")
    series = list(marker.args) if marker else [kernels.SERIES[0]]
    option = metafunc.config.getoption("--kernel")
    if option:
        series = list(kernels.SERIES) if option == "all" else [option]
    metafunc.parametrize("kernel", series, scope="function")


class Machines:
    """The disks and virtual machines of one test, and its folder of logs."""

    def __init__(self, folder, kernel):
        self.folder = folder
        self.kernel = kernel
        self.started = []
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "disks").mkdir(parents=True)

    def disk(self, name, size=None, *, path=None, bad_write=(), bad_read=(), fail_write=False, fail_read=False,
             fail_flush=False, errno=5, **options) -> Disk:
        """A new disk of that size, or one over an existing image (path)."""
        faults = Faults.make(
            bad_write=bad_write,
            bad_read=bad_read,
            fail_write=fail_write,
            fail_read=fail_read,
            fail_flush=fail_flush,
            errno=errno,
        )
        return Disk(path or self.folder / "disks" / f"{name}.img", name, size, faults=faults, **options)

    def boot(self, *disks, **options) -> Machine:
        """Start a machine with these disks."""
        options.setdefault("kernel", self.kernel)
        options.setdefault("name", f"vm{len(self.started) + 1}")
        # known before it is up, so that a failing boot is reported as well
        kind = UmlMachine if options["kernel"] == "uml" else VM
        vm = kind.__new__(kind)
        self.started.append(vm)
        vm.__init__(disks, self.folder, **options)
        return vm

    def trouble(self) -> str:
        """What the kernels reported that no command has noticed; empty when all is well."""
        texts = []
        for vm in self.started:
            try:
                vm.check_leaks()
                vm.check_console()
            except VmError as error:
                texts.append(str(error))
        return "\n".join(texts)

    def sections(self):
        """The story of each machine for the report of a failure: (title, text)."""
        for vm in self.started:
            commands = "\n".join(str(process.result()) for process in vm.commands)
            yield f"{vm.name}: commands", commands or "(none)"
            yield f"{vm.name}: end of the console", vm.console.tail(80) or "(empty)"

    def save_commands(self):
        """The list of commands, into the folder of logs."""
        for vm in self.started:
            text = "\n".join(str(process.result()) for process in vm.commands)
            (self.folder / f"{vm.name}.commands").write_text(text + "\n")

    def close(self):
        """End all machines."""
        for vm in self.started:
            vm.power_cut()


def _test_name(node_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", node_id).strip("-")


@pytest.fixture
def kernel(request):
    """The kernel series of this instance of the test."""
    return request.param


@pytest.fixture
def machines(request, kernel):
    """The test's disks and machines; ends them all. Logs go to build/vm-logs/<test>/, kept when the test fails."""
    made = Machines(paths.build() / "vm-logs" / _test_name(request.node.nodeid), kernel)
    request.node.vm_machines = made
    yield made
    made.close()
    if getattr(request.node, "vm_failed", False):
        made.save_commands()
        if not request.config.getoption("--keep-disks"):
            shutil.rmtree(made.folder / "disks")
    else:
        shutil.rmtree(made.folder)


@pytest.fixture
def disk(machines):
    """disk(name, size, bad_write=[...], interface="virtio", ...) makes a disk: see Disk and Faults."""
    return machines.disk


@pytest.fixture
def boot(machines):
    """boot(disk, ..., remap=True, append="", smp=1, ...) starts a machine: see VM."""
    return machines.boot


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Fails a test whose guest's kernel complained, and adds the guest's side to the report of a failure."""
    outcome = yield
    report = outcome.get_result()
    machines = getattr(item, "vm_machines", None)
    if machines is None:
        return
    if call.when == "call" and report.passed:
        trouble = machines.trouble()
        if trouble:
            report.outcome = "failed"
            report.longrepr = trouble
    if report.failed:
        item.vm_failed = True
        report.sections.extend(machines.sections())
        report.sections.append(("logs", str(machines.folder)))
