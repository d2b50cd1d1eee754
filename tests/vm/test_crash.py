# SPDX-License-Identifier: GPL-2.0-or-later
"""What a power cut can leave of what the kernel target writes: recorded by dm-log-writes, replayed cut by cut."""

import pytest
from remapvm.crash import Recording

pytestmark = pytest.mark.vm


def test_record(machines):
    adopted = Recording(machines, "adopted", ["--force"], seed=1, torn=True)
    bare = Recording(machines, "bare", ["--bare"], seed=2, loop=True)
    vm = machines.boot(adopted.data, adopted.log, bare.data, bare.log)
    vm.run("modprobe -a dm-log-writes loop")
    for r in (adopted, bare):
        import time
        t = time.time(); r.run(vm); print(time.time() - t)
    vm.shutdown()
    import shutil
    shutil.copytree(adopted.folder, "/tmp/lw/rec", dirs_exist_ok=True)
    for r in (adopted, bare):
        t = time.time(); d = r.check("--show-kinds", check=False); print(d.stdout, d.stderr, time.time() - t)
