# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual machines for dm-remap's tests: see docs/testing.md."""

from .blkio import BlkioReport
from .channel import Process, Result
from .disk import SECTOR, Disk, Faults, parse_size
from .errors import CommandFailed, CommandTimeout, GuestDied, KernelWarning, SetupError, VmError
from .machine import Machine
from .uml import UmlMachine
from .vm import VM

__all__ = [
    "SECTOR",
    "VM",
    "BlkioReport",
    "CommandFailed",
    "CommandTimeout",
    "Disk",
    "Faults",
    "GuestDied",
    "KernelWarning",
    "Machine",
    "Process",
    "Result",
    "SetupError",
    "UmlMachine",
    "VmError",
    "parse_size",
]
