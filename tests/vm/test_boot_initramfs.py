# SPDX-License-Identifier: GPL-2.0-or-later
"""What our hooks put into an initramfs, and how much larger it becomes."""

import pytest
from remapvm.bench_boot import GROWTH, initramfs_sizes
from remapvm.kernels import find

pytestmark = pytest.mark.boot


@pytest.mark.parametrize("generator", ["initramfs-tools", pytest.param("dracut", marks=pytest.mark.long)])
def test_the_initramfs_grows_by_little(tmp_path, kernel, generator):
    kernel = find(kernel)
    without, ours = initramfs_sizes(tmp_path, kernel, generator)
    print(f"{generator}, {kernel.release}: {without} bytes without, {ours - without} more with dm-remap")
    assert 0 < ours - without <= GROWTH
