# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a guest's kmemleak what memory is lost, and picks what one module allocated."""

import re

FILE = "/sys/kernel/debug/kmemleak"

# The first scan only remembers what has changed since it was allocated; the second one reports.
_SCRIPT = f"""
    [ -e {FILE} ] || mount -t debugfs debugfs /sys/kernel/debug || exit 1
    echo scan >{FILE} && echo scan >{FILE} && cat {FILE}
"""


def of_module(report: str, module: str):
    """Those of kmemleak's records that name the module, or one that has been unloaded: of these only addresses are known."""
    # before the kernel has enough randomness to hash them, the addresses in [<>] are "(____ptrval____)"
    named = re.compile(rf"\[{module}\]|\[<[^>]+>\] 0x")
    records = re.split(r"^(?=unreferenced object )", report, flags=re.M)
    return [record.rstrip() for record in records if record.startswith("unreferenced") and named.search(record)]


def find(vm, module="dm_remap"):
    """Records of what a module lost in a running machine; none where the kernel has no kmemleak."""
    if not (vm.kernel and vm.kernel.debug and vm.running and vm.channel.release):
        return []
    # two scans took more than two minutes in QEMU on a busy host
    return of_module(vm.run(_SCRIPT, timeout=600).stdout, module)
