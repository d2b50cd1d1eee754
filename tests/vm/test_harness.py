# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness itself: nothing that it says about the module is worth more than this."""

import hashlib
import random

import pytest
from remapvm import SECTOR, BlkioReport, CommandFailed, CommandTimeout, KernelWarning

pytestmark = pytest.mark.vm

BAD = 2048


@pytest.mark.kernels("6.1", "6.12")
@pytest.mark.parametrize("interface", ["virtio", "scsi", "nvme"])
def test_a_bad_sector_fails_alone_and_only_on_writes(boot, disk, interface):
    main = disk("main", "16M", interface=interface, bad_write=[BAD, BAD + 5])
    vm = boot(main, remap=False)
    written = vm.blkio("write", main, f"{BAD - 8}+24", seed=3)
    assert sorted(written.errors) == [BAD, BAD + 5]
    assert written.requests == 24
    read = vm.blkio("scan", main, f"{BAD - 8}+24")
    assert not read.errors
    assert [sector for sector, seed in read.seeds.items() if seed != 3] == [BAD, BAD + 5]


def test_a_sector_bad_for_reading_can_be_written(boot, disk):
    main = disk("main", "16M", bad_read=[BAD])
    vm = boot(main, remap=False)
    assert vm.blkio("write", main, f"{BAD}+2").ok
    assert vm.blkio("verify", main, f"{BAD}+2").errors == {BAD: "EIO"}


def test_hundreds_of_bad_sectors_fail_each_at_its_place(boot, disk):
    bad = sorted(random.Random(1).sample(range(32768), 500))
    main = disk("main", "16M", bad_write=bad)
    vm = boot(main, remap=False)
    # neighbours in flight at the same time may be merged, and fail together
    vm.run("echo 2 >/sys/block/$(basename {main})/queue/nomerges")
    assert sorted(vm.blkio("write", main, threads=4).errors) == bad
    assert sorted(vm.blkio("verify", main, bs=65536).differs) == bad


def test_a_bad_sector_cannot_be_zeroed_either(boot, disk):
    main = disk("main", "16M", bad_write=[BAD])
    vm = boot(main, remap=False)
    assert vm.blkio("write", main, [BAD - 1, BAD + 1]).ok
    assert vm.blkio("zeroout", main, f"{BAD - 8}+16", bs=8192).errors
    assert vm.blkio("zeroout", main, f"{BAD + 1}+7", bs=8192).ok


def test_faults_change_on_a_running_disk(boot, disk):
    main = disk("main", "16M")
    vm = boot(main, remap=False)
    assert vm.blkio("write", main, "0-63", seed=1).ok
    vm.set_faults(main, bad_write=[7], bad_read=[9])
    assert sorted(vm.blkio("write", main, "0-63", seed=2).errors) == [7]
    vm.set_faults(main)
    assert vm.blkio("verify", main, "0-63", seed=2).differs == {7: (1, 7)}
    vm.set_faults(main, fail_write=True, fail_read=True)
    assert len(vm.blkio("write", main, "0-63").errors) == 64
    assert len(vm.blkio("verify", main, "0-63").errors) == 64


def test_flushes_fail_from_now_on(boot, disk):
    main = disk("main", "16M")
    vm = boot(main, remap=False)
    # QEMU sends no flush down when nothing was written since the last
    assert vm.blkio("write", main, "0-63", seed=3).ok
    vm.set_faults(main, fail_flush=True)
    assert vm.blkio("write", main, "0-63", seed=4).ok
    assert vm.blkio("flush", main).errors == {0: "EIO"}


@pytest.mark.needs_qemu("flushes that succeed again")
def test_flushes_succeed_again(boot, disk):
    main = disk("main", "16M", fail_flush=True)
    vm = boot(main, remap=False)
    assert vm.blkio("write", main, "0-63", seed=3).ok
    assert vm.blkio("flush", main).errors == {0: "EIO"}
    vm.set_faults(main)
    assert vm.blkio("write", main, "0-63", seed=3, flush=True).ok


@pytest.mark.needs_qemu("disks that come and go")
@pytest.mark.parametrize("interface", ["virtio", "scsi"])
def test_disks_come_and_go_while_the_guest_runs(boot, disk, interface):
    main, late = disk("main", "16M"), disk("late", "8M", interface=interface, bad_write=[3])
    # virtio's driver is there for main; that of scsi must be asked for
    vm = boot(main, remap=False, append="remapvm.modules=virtio_scsi,sd_mod")
    vm.plug(late)
    assert sorted(vm.blkio("write", late, "0-7").errors) == [3]
    holder = vm.start("exec 3<{late}; echo held; sleep 1000", stdin=None)
    holder.wait_output("held")
    late_device = vm.dev(late)
    vm.unplug(late)
    assert vm.try_run(["blkio", "verify", late_device]).exit != 0
    again = vm.plug(late)
    assert vm.blkio("verify", again, "0-2").ok


@pytest.mark.needs_qemu("a scsi disk")
def test_a_disk_has_the_block_size_asked_for(boot, disk):
    main = disk("main", "16M", block=4096)
    other = disk("other", "16M", interface="scsi", physical=4096)
    vm = boot(main, other, remap=False)
    assert vm.run("blockdev --getss --getpbsz {main} {other}").lines == ["4096", "4096", "512", "4096"]
    assert vm.blkio("write", main, "0", bs=512).errors == {0: "EINVAL"}


def test_status_and_output_cross_the_channel_intact(boot):
    vm = boot(remap=False)
    result = vm.try_run("printf 'out\\n'; printf 'err\\n' >&2; exit 7")
    assert (result.exit, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert vm.try_run("kill -9 $$").exit == -9
    assert vm.run(["printf", "%s|", "a b", "$HOME", "{main}"]).stdout == "a b|$HOME|{main}|"
    assert vm.run("echo $GREETING", env={"GREETING": "hi"}).stdout == "hi\n"
    assert vm.run("echo ${HOME} {what} {nothing}", what="this").stdout == "/root this {nothing}\n"
    with pytest.raises(CommandFailed, match="exit 3"):
        vm.run("exit 3")
    with pytest.raises(FileNotFoundError):
        vm.run(["no-such-program"])


def test_files_cross_the_channel_intact(boot, kernel):
    vm = boot(remap=False)
    # user-mode Linux takes in each byte of its serial line by a system call of the host
    data = random.Random(2).randbytes(5 << 20 if kernel != "uml" else 300_000)
    vm.push(data, "/tmp/a file")
    assert vm.run("sha256sum <'/tmp/a file'").stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert vm.pull("/tmp/a file") == data


def test_commands_run_side_by_side(boot):
    vm = boot(remap=False)
    reader = vm.start("read line; echo got $line", stdin=None)
    assert vm.run("echo meanwhile").stdout == "meanwhile\n"
    assert reader.running()
    reader.write(b"this\n")
    assert reader.wait(10).stdout == "got this\n"
    # what a command leaves in the background does not hold it up
    assert vm.run("sleep 1000 & echo started", timeout=10).stdout == "started\n"


def test_a_hung_command_is_killed_alone(boot):
    vm = boot(remap=False)
    other = vm.start("read line; echo $line", stdin=None)
    with pytest.raises(CommandTimeout, match="did not end within 1 s"):
        vm.run("echo begun; sleep 1000", timeout=1)
    assert vm.try_run("pidof sleep").exit != 0
    other.write(b"alive\n")
    assert other.wait(10).stdout == "alive\n"


def test_acknowledged_writes_survive_a_power_cut(boot, disk):
    main = disk("main", "16M")
    vm = boot(main, remap=False)
    assert vm.blkio("write", main, "0-99", seed=1, fua=True).ok
    writer = vm.start_blkio("write", main, "100+20000", seed=2, fua=True, ack=True)
    writer.wait_output("ok 300 1\n")
    vm.power_cut()
    assert not vm.running
    acked = BlkioReport(writer.result()).acked
    assert 300 in acked and len(acked) < 20000
    vm = boot(main, remap=False)
    assert vm.blkio("verify", main, "0-99", seed=1).ok
    assert vm.blkio("verify", main, acked, seed=2).ok
    # the host sees the same disk
    assert main.read(100 * SECTOR, 8) == (100).to_bytes(8, "little")


def test_a_shut_down_guest_leaves_a_clean_file_system(boot, disk):
    main = disk("main", "64M")
    vm = boot(main, remap=False)
    vm.run("mkfs.ext4 -q {main} && mount {main} /mnt && echo kept >/mnt/file && umount /mnt")
    vm.shutdown()
    vm = boot(main, remap=False)
    assert vm.run("e2fsck -fn {main} && mount -o ro {main} /mnt && cat /mnt/file").lines[-1] == "kept"


def test_a_kernel_warning_is_noticed_at_the_next_command(boot):
    vm = boot(remap=False)
    with pytest.raises(KernelWarning, match="WARNING: CPU: 0 PID: 1"):
        vm.run("echo '<4>WARNING: CPU: 0 PID: 1 at drivers/md/dm.c:1' >/dev/kmsg")
    vm.expect_kernel_message("BUG: expected")
    vm.run("echo '<4>BUG: expected one' >/dev/kmsg")
    with pytest.raises(KernelWarning, match="BUG: another"):
        vm.run("echo '<4>BUG: another one' >/dev/kmsg")


def test_the_machine_ends_when_the_kernel_oopses(boot):
    vm = boot(remap=False)
    vm.expect_kernel_message("sysrq|Kernel panic")
    vm.start("echo c >/proc/sysrq-trigger")
    vm.wait_end(20)
    assert "Kernel panic" in vm.console.text()
