# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures for tests of sets."""

import pytest
from remapvm.sets import format_set


def _maker(disk, *options):
    def make(size="32M", spare_size="4M", spare=None, **faults_and_kind):
        main, other = disk("main", size, **faults_and_kind), disk("spare", spare_size, **(spare or {}))
        format_set(main, other, *options)
        return main, other

    return make


@pytest.fixture
def bare(disk):
    """bare(bad_write=..., spare={...}, ...) makes a bare set: (main, spare)."""
    return _maker(disk, "--bare")


@pytest.fixture
def adopted(disk):
    """The same with labels and hidden blocks."""
    return _maker(disk)
