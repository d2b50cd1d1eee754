# SPDX-License-Identifier: GPL-2.0-or-later
"""What our hooks put into an initramfs, and how much larger it becomes."""

import pytest
from remapvm import rootfs, story
from remapvm.initramfs import guest_program, module_file
from remapvm.kernels import find

pytestmark = pytest.mark.boot

MOST = 3 << 19  # 1.5 MiB


@pytest.mark.parametrize("generator", ["initramfs-tools", pytest.param("dracut", marks=pytest.mark.long)])
def test_the_initramfs_grows_by_little(tmp_path, kernel, generator):
    kernel = find(kernel)
    sizes = {}
    for name, extra in (("with", rootfs.NOTHING), ("without", rootfs.Extra(ours=False))):
        tree = tmp_path / name
        rootfs.make_tree(tree, kernel, module_file(kernel) if extra.ours else None, guest_program("agent"), story.SET_UUID, story.FS_UUID, extra)
        rootfs.make_initramfs(tree, kernel, generator, tmp_path / f"{name}.img")
        sizes[name] = (tmp_path / f"{name}.img").stat().st_size
    growth = sizes["with"] - sizes["without"]
    print(f"{generator}, {kernel.release}: {sizes['without']} bytes without, {growth} more with dm-remap")
    assert 0 < growth <= MOST
