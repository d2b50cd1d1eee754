# SPDX-License-Identifier: GPL-2.0-or-later
"""How the harness treats a test: what makes it fail, what its report shows, what is kept."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from remapvm import Disk, Faults, SetupError, VmError, console, parse_size, patience

pytestmark = pytest.mark.vm

HERE = Path(__file__).parent


def run_tests(folder, text, *options):
    """Run a test module in a pytest of its own, below folder; returns (its exit status, its output)."""
    (folder / "test_inner.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = os.environ | {"PYTHONPATH": str(HERE), "DM_REMAP_BUILD": str(folder / "build")}
    command = [sys.executable, "-m", "pytest", "-p", "remapvm.plugin", "-p", "no:cacheprovider", *options, str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_kernel_warning_fails_the_test_that_did_not_expect_it(tmp_path):
    status, output = run_tests(
        tmp_path,
        """
def test_warning_after_the_last_command(boot):
    vm = boot(remap=False)
    vm.run("(sleep 0.3; echo '<4>WARNING: CPU: 0 PID: 9 at fs/x.c:1 f+0x1/0x2' >/dev/kmsg; echo written) &")
    vm.start("sleep 1").wait()

def test_expected_warning(boot):
    vm = boot(remap=False)
    vm.expect_kernel_message("WARNING: .*fs/x.c")
    vm.run("echo '<4>WARNING: CPU: 0 PID: 9 at fs/x.c:1 f+0x1/0x2' >/dev/kmsg")
""",
    )
    assert status == 1
    assert "1 failed, 1 passed" in output
    assert "the kernel of vm1 reported:" in output
    assert "WARNING: CPU: 0 PID: 9 at fs/x.c:1" in output


def test_a_failing_test_shows_the_guest_and_keeps_its_logs(tmp_path):
    status, output = run_tests(
        tmp_path,
        """
def test_bad(boot, disk):
    vm = boot(disk("main", "1M"), remap=False)
    vm.run("echo the output; echo a line for the kernel >/dev/kmsg; false")

def test_good(boot, disk):
    boot(disk("main", "1M"), remap=False)
""",
    )
    assert status == 1
    assert "1 failed, 1 passed" in output
    for text in ("vm1: commands", "the output", "[exit 1,", "vm1: end of the console", "a line for the kernel"):
        assert text in output
    (kept,) = (tmp_path / "build" / "vm-logs").iterdir()
    assert "test_bad" in kept.name
    assert "a line for the kernel" in (kept / "vm1.console").read_text()
    assert "the output" in (kept / "vm1.commands").read_text()
    assert "main.img" not in [path.name for path in kept.rglob("*")]


def test_a_guest_that_does_not_come_up_is_reported(tmp_path):
    status, output = run_tests(
        tmp_path,
        """
def test_no_init(boot):
    boot(remap=False, append="rdinit=/no/such/init", boot_timeout=20)
""",
    )
    assert status == 1
    assert "died at boot" in output or "was not up within 20 s" in output
    assert "/no/such/init" in output


def test_no_machine_outlives_its_test(tmp_path):
    status, output = run_tests(
        tmp_path,
        """
def test_leaves_it_running(boot, tmp_path_factory):
    vm = boot(remap=False)
    print(f"pid={vm.pid}.")
    assert False
""",
    )
    assert status == 1
    pid = output.partition("pid=")[2].partition(".")[0]
    assert not Path("/proc", pid, "exe").exists()


def test_a_killed_test_run_takes_its_machines_along(tmp_path):
    (tmp_path / "test_inner.py").write_text(
        "import time\n"
        "def test_waits(boot):\n"
        "    print(f'pid={boot(remap=False).pid}.', flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE), "DM_REMAP_BUILD": str(tmp_path / "build")}
    command = [sys.executable, "-m", "pytest", "-s", "-p", "remapvm.plugin", "-p", "no:cacheprovider", str(tmp_path)]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as runner:
        line = next(line for line in runner.stdout if "pid=" in line)
        pid = line.partition("pid=")[2].partition(".")[0]
        assert "qemu" in os.readlink(f"/proc/{pid}/exe")
        runner.kill()
    end = time.monotonic() + 10
    while Path("/proc", pid, "exe").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path("/proc", pid, "exe").exists()


def test_a_test_that_needs_the_module_fails_without_it(boot, monkeypatch, tmp_path):
    monkeypatch.setenv("DM_REMAP_BUILD", str(tmp_path))
    with pytest.raises(SetupError, match="dm-remap.ko is missing"):
        boot()


def test_a_disk_is_in_one_machine_at_a_time(boot, disk):
    main = disk("main", "1M")
    vm = boot(main, remap=False)
    with pytest.raises(VmError, match="in use by vm1"):
        boot(main, remap=False)
    with pytest.raises(RuntimeError, match="in use"):
        main.write(0, b"x")
    vm.power_cut()
    main.write(0, b"x")


REPORTS = [
    "[   12.345678] WARNING: CPU: 0 PID: 12 at drivers/md/dm.c:10 f+0x1/0x2 [dm_mod]",
    "[   12.345678] WARNING: possible circular locking dependency detected",
    "[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "[   12.345678] BUG: KASAN: use-after-free in remap_map+0x1/0x2",
    "[   12.345678] BUG kmalloc-64 (Not tainted): Redzone overwritten",
    "[   12.345678] Oops: 0000 [#1] PREEMPT SMP",
    "[   12.345678] kernel BUG at drivers/md/dm.c:10!",
    "[   12.345678] general protection fault, probably for non-canonical address 0x6b6b6b6b6b6b6b6b: 0000 [#1]",
    "[   12.345678] INFO: task dmsetup:99 blocked for more than 30 seconds.",
    "[   12.345678] rcu: INFO: rcu_preempt self-detected stall on CPU",
    "[   12.345678] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [dmsetup:99]",
    "[   12.345678] Call Trace:",
    "[   12.345678] Kernel panic - not syncing: Fatal exception",
    "[   12.345678][  T123] WARNING: CPU: 0 PID: 12 at drivers/md/dm.c:10",
    "[   12.345678] refcount_t: underflow; use-after-free.",
    "[  OK  ] Started x.[   12.345678] WARNING: CPU: 0 PID: 12 at a.c:1",
]

OTHER_MESSAGES = [
    "[    1.345678] I/O error, dev vda, sector 2048 op 0x1:(WRITE) flags 0x8800 phys_seg 1 prio class 2",
    "[    1.345678] dm_remap: loading out-of-tree module taints kernel.",
    "[    1.345678] Buffer I/O error on dev dm-0, logical block 1, lost async page write",
    "a program says WARNING: something",
    "[    1.345678] systemd[1]: a unit's description with BUG: in it",
]


def test_reports_of_the_kernel_are_told_from_other_messages():
    assert [line for line in REPORTS if not console.is_trouble(line)] == []
    assert [line for line in OTHER_MESSAGES if console.is_trouble(line)] == []


def test_sizes_and_faults_are_read_as_meant(tmp_path):
    assert [parse_size(size) for size in ("100M", "20MiB", "8s", "4096", 512)] == [104857600, 20971520, 4096, 4096, 512]
    with pytest.raises(ValueError):
        parse_size("12 parsecs")
    disk = Disk(tmp_path / "image", "main", "9s")
    assert (disk.size, disk.sectors) == (4608, 9)
    faults = Faults.make(bad_write=range(3, 5), bad_read=[9], errno=61)
    assert list(faults.rules()) == [
        ("write", 3),
        ("write", 4),
        ("write-zeroes", 3),
        ("write-zeroes", 4),
        ("read", 9),
    ]
    assert faults.config().count('errno = "61"') == 5
    assert Faults.make().config() == ""


@pytest.mark.parametrize(("load", "least"), [(0.0, 0.2), (4.0, 0.8), (1000.0, 2.0)])
def test_a_second_counts_less_while_the_host_is_busy(monkeypatch, load, least):
    monkeypatch.setattr(patience.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(patience.os, "cpu_count", lambda: 1)
    condition = threading.Condition()
    started = time.monotonic()
    with condition:
        assert not patience.wait_for(condition, lambda: False, 0.2)
        assert least <= time.monotonic() - started
        assert patience.wait_for(condition, lambda: True, 0)


def test_a_run_that_is_shared_with_user_mode_linux_has_each_test_in_one_part(tmp_path):
    text = """
import pytest
pytestmark = pytest.mark.uml_suffices

def test_plain(kernel):
    pass

@pytest.mark.kernels("6.1", "6.12")
def test_series(kernel):
    pass

@pytest.mark.needs_qemu("a thing")
def test_qemu(kernel):
    pass

@pytest.mark.parametrize("interface", ["virtio", "scsi"])
def test_disk(kernel, interface):
    pass
"""

    def collected(*options):
        output = run_tests(tmp_path, text, "--collect-only", "-q", *options)[1]
        # not the lines that say what was left out, and why
        return {line.split("::")[1] for line in output.splitlines() if "::" in line and ": " not in line}

    everything = collected()
    beside = collected("--share")
    assert beside == {"test_series[6.1]", "test_series[6.12]", "test_qemu[6.1]", "test_disk[6.1-scsi]"}
    assert {name.replace("[uml", "[6.1") for name in collected("--kernel", "uml", "--share")} == everything - beside
    assert collected("--kernel", "uml") == {"test_plain[uml]", "test_series[uml]", "test_disk[uml-virtio]"}
