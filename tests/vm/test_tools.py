# SPDX-License-Identifier: GPL-2.0-or-later
"""remapsetup and remap-fsck on block devices, with device-mapper at work."""

import json

import pytest
from remapvm import SECTOR
from remapvm.sets import Spare, format_set, status

pytestmark = pytest.mark.vm

BAD = [2100, 2101, 5000, 9999]
FORMAT = "remapsetup format --yes --rescue-file none"


@pytest.fixture
def members(disk):
    """members(main={...}, spare={...}) makes two empty disks."""

    def make(size="32M", spare_size="8M", main=None, spare=None):
        return disk("main", size, **(main or {})), disk("spare", spare_size, **(spare or {}))

    return make


def says(result, exit_status, *texts):
    """The command ended like this, and standard error says why."""
    assert result.exit == exit_status, result
    for text in texts:
        assert text in result.stderr, result
    assert not result.stdout


@pytest.mark.needs_qemu("a scsi disk")
def test_a_file_system_is_adopted_used_and_given_back(boot, members):
    main, spare = members(size="96M", main={"interface": "scsi", "wwn": 0x5000C500A1B2C3D4})
    vm = boot(main, spare)
    vm.run("mkfs.ext4 -q -L payload {main} && mount {main} /mnt && cp -a /etc /usr/sbin /mnt/ && umount /mnt")
    files = vm.run("mount -o ro {main} /mnt && (cd /mnt && find . -type f | sort | xargs sha256sum); umount /mnt").stdout
    before = vm.run("sha256sum <{main}").stdout
    vm.run(f"{FORMAT} --label data {{main}} {{spare}}")
    assert vm.run("cat /etc/remaptab").stdout.split()[0] == "data"
    assert vm.try_run("blkid -p {main}").exit == 2 and vm.try_run("blkid -p {spare}").exit == 2
    assert vm.try_run("mount {main} /mnt").exit != 0

    vm.run("remapsetup open {spare} data")
    assert vm.run("dmsetup info -c --noheadings -o uuid data").stdout.startswith("REMAP-")
    assert vm.run("blkid -p -o value -s LABEL /dev/mapper/data").stdout == "payload\n"
    assert vm.run("sha256sum </dev/mapper/data").stdout == before
    assert vm.run("mount -o ro /dev/mapper/data /mnt && (cd /mnt && find . -type f | sort | xargs sha256sum); umount /mnt").stdout == files

    # while it is open, nobody else may have the members
    for command in ("remapsetup release --yes {spare}", f"{FORMAT} --force {{main}} {{spare}}", "mkfs.ext4 -q {main}"):
        assert vm.try_run(command).exit != 0, command
    assert "in use" in vm.run("remap-fsck -p {spare}").stderr

    vm.run("mount /dev/mapper/data /mnt && echo new >/mnt/file && umount /mnt && remapsetup close data")
    vm.run("remapsetup release --yes {spare}")
    assert vm.run("cat /etc/remaptab").stdout == ""
    assert vm.run("e2fsck -fn {main} && mount -o ro {main} /mnt && cat /mnt/file").lines[-1] == "new"


def test_status_and_list_say_what_the_kernel_says(boot, members):
    main, spare = members(main={"bad_write": BAD})
    vm = boot(main, spare)
    vm.run(f"{FORMAT} --label data {{main}} {{spare}} && remapsetup open {{spare}} data")
    assert vm.blkio("write", "/dev/mapper/data", BAD, seed=1).ok
    shown = json.loads(vm.run("remapsetup status --json data").stdout)
    text = json.dumps(shown)
    kernel = status(vm, "data")
    assert kernel.remapped == len(BAD) and kernel.set_uuid in text
    assert f'"remapped": {len(BAD)}' in text or f'"remaps_since_open": {len(BAD)}' in text, text
    assert "data" in vm.run("remapsetup status").stdout
    listed = vm.run("remapsetup list").stdout
    assert kernel.set_uuid in listed and "data" in listed
    json.loads(vm.run("remapsetup list --json").stdout)


def test_all_known_sets_are_opened_and_no_other(boot, members, disk):
    main, spare = members()
    foreign, foreign_spare = disk("foreign", "16M"), disk("foreign_spare", "4M")
    format_set(foreign, foreign_spare)
    vm = boot(main, spare, foreign, foreign_spare)
    vm.run(f"{FORMAT} --label data {{main}} {{spare}}")
    vm.run("remapsetup open --all && remapsetup open --all")
    assert vm.run("dmsetup ls").stdout.split()[0] == "data" and len(vm.run("dmsetup ls").lines) == 1
    uuid = vm.run("dmsetup info -c --noheadings -o uuid data").stdout.strip()
    vm.run("remapsetup close data")
    vm.run("sed -i 's/[^ ]*$/noauto/' /etc/remaptab && remapsetup open --all && ! test -e /dev/mapper/data")
    vm.run(f"echo 'other UUID={'0' * 8}-0000-4000-8000-{'0' * 12} -' >/etc/remaptab")
    result = vm.try_run("remapsetup open --all")
    assert result.exit == 1 and "other" in result.stderr
    assert "REMAP-" in uuid


def test_a_damaged_spare_is_repaired_before_it_is_opened(boot, members):
    main, spare = members(main={"bad_write": BAD})
    format_set(main, spare, "--label", "data")
    vm = boot(main, spare)
    vm.run("remapsetup open {spare} data")
    assert vm.blkio("write", "/dev/mapper/data", BAD, seed=1, fua=True).ok
    vm.power_cut()
    layout = Spare(spare)
    spare.write(layout.superblocks[0] * SECTOR + 600, b"damage")
    spare.write(layout.tables[1] * SECTOR + 3 * 4096 + 700, b"damage")
    vm = boot(main, spare)
    assert vm.try_run("remap-fsck -n {spare}").exit == 4
    vm.run("echo 'data UUID=%s -' >/etc/remaptab" % vm.run("remapsetup probe --udev {spare} | sed -n s/ID_REMAP_SET=//p").stdout.strip())
    vm.run("remapsetup open --all")
    assert vm.blkio("verify", "/dev/mapper/data", BAD, seed=1).ok
    vm.run("remapsetup close data && remap-fsck -n {spare}")


def test_refusals_name_what_was_seen(boot, members, disk):
    main, spare = members()
    small, mounted, other_main, other_spare = disk("small", "1M"), disk("mounted", "16M"), disk("other_main", "32M"), disk("other_spare", "8M")
    format_set(main, spare)
    format_set(other_main, other_spare)
    vm = boot(main, spare, small, mounted, other_main, other_spare)
    vm.run("mkfs.ext4 -q {mounted} && mount {mounted} /mnt")

    says(vm.try_run("remapsetup open {main} x"), 2, vm.dev(main), "main")
    says(vm.try_run("remapsetup open --main {other_main} {spare} x"), 2, vm.dev(other_main))
    says(vm.try_run("remapsetup open {small} x"), 2, vm.dev(small))
    says(vm.try_run(f"{FORMAT} {{mounted}} {{small}}"), 8, vm.dev(mounted))
    says(vm.try_run(f"{FORMAT} --bare {{small}} {{mounted}}"), 8, vm.dev(mounted))
    vm.run("umount /mnt")
    says(vm.try_run(f"{FORMAT} {{small}} {{mounted}}"), 16, vm.dev(mounted), "ext4")
    says(vm.try_run(f"{FORMAT} {{mounted}} {{mounted}}"), 16)
    says(vm.try_run("remapsetup format --rescue-file none {mounted} {small}"), 16, "--yes")
    # a set that is open
    vm.run("remapsetup open {spare} data")
    says(vm.try_run("remapsetup open {spare} again"), 8)
    says(vm.try_run("remapsetup open {other_spare} data"), 8, "data")
    vm.run("remapsetup open {other_spare} again")


def test_yesterdays_spare_is_refused_with_both_epochs_named(boot, members):
    main, spare = members()
    format_set(main, spare)
    old = spare.read(0, spare.size)
    vm = boot(main, spare)
    for _ in range(2):
        vm.run("remapsetup open {spare} data")
        assert vm.blkio("write", "/dev/mapper/data", [9000]).ok
        vm.run("remapsetup close data")
    vm.shutdown()
    spare.write(0, old)
    vm = boot(main, spare)
    says(vm.try_run("remapsetup open {spare} data"), 2, "epoch")


@pytest.mark.needs_qemu("serial numbers")
def test_members_on_other_hardware_are_named_and_no_damage(boot, members, disk):
    main, spare = members()
    moved_main, moved_spare = disk("moved_main", "32M"), disk("moved_spare", "8M")
    vm = boot(main, spare, moved_main, moved_spare)
    vm.run(f"{FORMAT} {{main}} {{spare}}")
    assert "other hardware" not in vm.run("remap-fsck -n --main {main} {spare}").stdout
    vm.run("dd if={main} of={moved_main} bs=1M conv=fsync && dd if={spare} of={moved_spare} bs=1M conv=fsync")
    found = json.loads(vm.run("remap-fsck -n --json --main {moved_main} {moved_spare}").stdout)["findings"]
    assert {(finding["id"], finding["found"]) for finding in found} == {("RMF-0407", "serial moved_spare"), ("RMF-0514", "serial moved_main")}


def test_a_newer_format_is_refused(boot, members):
    main, spare = members()
    format_set(main, spare)
    for place in Spare(spare).superblocks:
        spare.write(place * SECTOR + 20, (2).to_bytes(4, "little"))
    vm = boot(main, spare)
    says(vm.try_run("remapsetup open {spare} data"), 8, "newer format")
    assert vm.try_run("remap-fsck -p {spare}").exit == 8
