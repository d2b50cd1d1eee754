# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug kernels see bugs, and the harness sees what they say."""

import pytest
from remapvm import KernelWarning, leaks
from remapvm.initramfs import guest_module
from remapvm.kernels import find

pytestmark = [pytest.mark.vm, pytest.mark.only_on("uml", "x86-debug")]


@pytest.fixture(name="faulty")
def machine_with_a_bug(boot, kernel):
    """faulty(bug): a machine whose kernel has just got a module that did this."""

    def start(bug):
        vm = boot(remap=False, files={"/faulty.ko": guest_module(find(kernel), "faulty")})
        vm.start(f"insmod /faulty.ko bug={bug}").wait()
        return vm

    return start


@pytest.mark.parametrize(
    ("bug", "report"),
    [
        ("use_after_free", "BUG: KASAN: .*use-after-free"),
        ("lock_inversion", "possible circular locking"),
        ("rcu_without_lock", "suspicious RCU usage"),
        ("freed_work_pending", "WARNING: CPU"),
    ],
)
def test_a_bug_is_reported(faulty, bug, report):
    vm = faulty(bug)
    with pytest.raises(KernelWarning, match=report):
        vm.check_console()


def test_lost_memory_is_reported(faulty):
    vm = faulty("leak")
    assert leaks.find(vm, "faulty")
    # of others than the module under test it is no failure
    vm.check_leaks()


def test_memory_lost_by_a_module_that_is_gone_is_reported(faulty):
    vm = faulty("leak")
    vm.run("rmmod faulty")
    with pytest.raises(KernelWarning, match="lost memory"):
        vm.check_leaks()
    vm.run(f"echo clear >{leaks.FILE}")
