# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds what must not appear on a guest's console: reports of the kernel about itself."""

import re
from pathlib import Path

# Each of these opens or belongs to a report about a bug in the kernel. Most count only at the start of a kernel
# message (after "[  1.234567] ").
_TROUBLE = re.compile(
    r"\[\s*\d+\.\d+\](?:\s*\[[^\]]*\])? (?:"
    r"WARNING: |BUG: |BUG |Oops|kernel BUG at |general protection fault|divide error|Kernel panic|Call Trace:|"
    r"INFO: task .* blocked for more than|rcu: INFO: |watchdog: BUG|UBSAN: |"
    r"ODEBUG: |DEBUG_LOCKS_WARN_ON|INFO: trying to register non-static key|"
    r"(?:list_add|list_del) corruption|refcount_t: |Padding overwritten)"
    r"|BUG: KASAN|possible (?:circular|recursive) locking|inconsistent lock state|suspicious RCU usage"
)

# Between these lines the harness itself asked for stack traces.
IGNORE_FROM = "remapvm: blocked tasks, asked for by the harness"
IGNORE_TO = "remapvm: end of blocked tasks"


class Console:
    """The growing console log of one guest; remembers up to where it was checked."""

    def __init__(self, path: Path):
        self.path = path
        self._offset = 0
        self._ignoring = False
        self._expected = []
        self._in_expected = False

    def expect(self, pattern: str):
        """Reports matching this regular expression (searched in the line) are wanted by the test."""
        self._expected.append(re.compile(pattern))

    def text(self) -> str:
        """All of it."""
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def tail(self, lines: int = 60) -> str:
        """The last lines."""
        return "\n".join(self.text().replace("\r", "").splitlines()[-lines:])

    def new_trouble(self):
        """Lines since the last call that report a kernel bug and were not expected."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as log:
            log.seek(self._offset)
            data = log.read()
        complete = data.rfind(b"\n") + 1
        self._offset += complete
        found = []
        for line in data[:complete].decode(errors="replace").splitlines():
            if IGNORE_FROM in line:
                self._ignoring = True
            elif IGNORE_TO in line:
                self._ignoring = False
            elif not self._ignoring and not self._is_expected(line) and is_trouble(line):
                found.append(line.strip())
        return found

    def _is_expected(self, line: str) -> bool:
        if any(pattern.search(line) for pattern in self._expected):
            self._in_expected = True
            return True
        if "Call Trace:" in line and self._in_expected:
            return True  # a part of the report that was
        if is_trouble(line):
            self._in_expected = False
        return False


def is_trouble(line: str) -> bool:
    """Whether a line of the console reports a kernel bug."""
    return bool(_TROUBLE.search(line))
