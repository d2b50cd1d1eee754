# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the harness of tests/vm/remapvm available to every test below."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "vm"))

# hooks and fixtures are found by name in a conftest's namespace
# pylint: disable=wildcard-import,unused-wildcard-import,wrong-import-position
from remapvm.plugin import *  # noqa: E402, F401, F403
