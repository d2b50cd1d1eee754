# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole Debians whose root lies in a stack of drivers on a remap device."""

import pytest
from remapvm.stacks import GENERATORS, STACKS, StackedRoot

pytestmark = [pytest.mark.boot, pytest.mark.long]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_root_in_a_stack_lies_on_remap(machines, generator, stack):
    root = StackedRoot(machines.folder / "disks", machines.boot, generator, stack, series=machines.kernel)
    root.adopt()
    root.plain_boot(root.disks)
    root.prove_root_on_remap()
    root.check_raw_main()
    root.check_quiet()
    root.vm.shutdown(90)
