# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting that does not depend on what else the host has to do.

A guest on emulated processors gets its share of the host's and no more, so a second in which three times as many programs
want to run as there are processors counts as a third of one. A limit still is one: none counts less than a tenth.
"""

import os
import threading
import time

_STEP = 1.0
_MOST = 10.0


def pace() -> float:
    """How much a second counts now, from 1 (the host has processors to spare) down to 0.1."""
    return 1 / min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1), _MOST)


def stretched(timeout: float) -> float:
    """A limit for a wait that cannot be divided, as the host is now."""
    return timeout / pace()


def wait_for(condition: threading.Condition, predicate, timeout: float) -> bool:
    """condition.wait_for(predicate, timeout) in such seconds; the caller holds the condition's lock."""
    left = float(timeout)
    while True:
        rate = pace()
        started = time.monotonic()
        if condition.wait_for(predicate, min(_STEP, left / rate)):
            return True
        left -= (time.monotonic() - started) * rate
        if left <= 1e-6:
            return False
