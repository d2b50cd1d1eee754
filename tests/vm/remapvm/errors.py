# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong with a virtual machine, seen from a test."""


class VmError(Exception):
    """Base of all errors of the harness."""


class SetupError(VmError):
    """Something the harness needs is missing on the host; the text says how to get it."""


class CommandFailed(VmError):
    """A command in the guest ended with another exit status than 0. Its `result` has the details."""

    def __init__(self, result):
        super().__init__(str(result))
        self.result = result


class CommandTimeout(VmError):
    """A command in the guest did not end in time; it was killed, the guest lives on."""

    def __init__(self, text, result):
        super().__init__(text)
        self.result = result


class GuestDied(VmError):
    """QEMU ended, or the agent's channel closed, while the test still needed the guest."""


class KernelWarning(VmError):
    """The guest's kernel reported a bug of its own: warning, oops, hung task, lockdep or KASAN report."""
