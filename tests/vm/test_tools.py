# SPDX-License-Identifier: GPL-2.0-or-later
"""remapsetup and remap-fsck on block devices, with device-mapper at work."""

import itertools
import json

import pytest
from remapvm import SECTOR
from remapvm.sets import Spare, format_set, status, table

pytestmark = pytest.mark.vm

BAD = [2100, 2101, 5000, 9999]
SET = "7b0c5a52-6c1e-4d55-9d6b-3f0e6f0b7a33"
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


def test_list_says_which_member_is_missing(boot, members):
    main, spare = members()
    format_set(main, spare, "--uuid", SET)
    for there, state, trouble in (
        ([main], "", f"the spare of set {SET} is missing"),
        ([spare], "complete", f"the main of set {SET} is missing"),
        ([main, spare], "complete", ""),
    ):
        vm = boot(*there)
        [listed] = json.loads(vm.run("remapsetup list --json").stdout)["sets"]
        assert (listed["set"], listed["state"], listed["open_as"]) == (SET, state, "")
        assert listed["trouble"].startswith(trouble) and bool(listed["trouble"]) == bool(trouble)
        vm.power_cut()


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


def test_what_remaptab_says_of_a_set_reaches_the_kernel(boot, members):
    main, spare = members()
    format_set(main, spare, "--uuid", SET)
    vm = boot(main, spare)
    for options, features in (("-", "0"), ("fua", "1 fua"), ("read-only", "1 read_only"), ("fua,read-only", "2 read_only fua")):
        vm.run(f"echo 'data UUID={SET} {options}' >/etc/remaptab && remapsetup open --all")
        assert vm.run("dmsetup table data").stdout.split()[5:] == features.split()
        assert vm.run("blockdev --getro /dev/mapper/data").stdout.strip() == ("1" if "read-only" in options else "0")
        vm.run("remapsetup close --all && ! test -e /dev/mapper/data")
    # what is not listed is not opened, but shown
    vm.run("echo '# none' >/etc/remaptab && remapsetup open --all && ! test -e /dev/mapper/data")
    assert SET in vm.run("remapsetup list").stdout


@pytest.mark.needs_qemu("serial numbers")
@pytest.mark.parametrize("kind", ["", "--bare"])
def test_a_main_that_was_copied_to_a_new_disk_is_opened_there_and_recorded(boot, members, disk, kind):
    main, spare = members(main={"bad_write": BAD})
    new, newer = disk("new", "32M"), disk("newer", "40M")
    vm = boot(main, spare, new, newer)
    vm.run(f"{FORMAT} {kind} --label data {{main}} {{spare}} && remapsetup open --main {{main}} {{spare}} data")
    assert vm.blkio("write", "/dev/mapper/data", [*BAD, 12000], seed=3).ok
    vm.run("remapsetup close data && dd if={main} of={new} bs=1M conv=fsync && dd if={main} of={newer} bs=1M conv=fsync")
    vm.unplug(main)
    moved = ""
    if kind:
        # no label tells that it is this set's, so that has to be said
        says(vm.try_run("remapsetup open --main {new} {spare} data"), 2, "serial main, found serial new", "--moved")
        moved = "--moved"
    else:
        # two copies, neither on the recorded hardware
        says(vm.try_run("remapsetup open {spare} data"), 2, "all claim to be main")
    opened = vm.run(f"remapsetup open --main {{new}} {moved} {{spare}} data").stderr
    assert f"{vm.dev(new)}: is recorded as the main of the set now" in opened and ("needs main=serial:new in its line" in opened) == bool(kind)
    assert vm.blkio("verify", "/dev/mapper/data", [*BAD, 12000], seed=3).ok
    vm.run("remapsetup close data")
    # from now on it is the one of several
    if kind:
        says(vm.try_run("remapsetup open --main {newer} {spare} data"), 2)
        return
    vm.run("remapsetup open {spare} data")
    assert vm.run("dmsetup table data").stdout.split()[3] == vm.run("cat /sys/class/block/$(basename {new})/dev").stdout.strip()


@pytest.mark.needs_qemu("serial numbers")
def test_a_main_whose_labels_cannot_be_read_is_opened_at_the_users_word(boot, members, disk):
    main, spare = members(main={"bad_write": BAD})
    stranger, healthy = disk("stranger", "32M"), disk("healthy", "32M")
    format_set(main, spare, "--uuid", SET)
    labels = Spare(spare).labels
    assert len(labels) > 2
    vm = boot(main, spare, stranger, healthy)
    vm.run("remapsetup open --main {main} {spare} data")  # records the hardware of a set that was made of images
    assert vm.blkio("write", "/dev/mapper/data", [*BAD, 12000], seed=3, fua=True).ok
    vm.run("remapsetup close data")

    vm.set_faults(main, bad_write=[*BAD, *labels], bad_read=labels)
    vm.set_faults(stranger, bad_read=labels)
    word = "remapsetup open --main {main} --no-label {spare} data"
    says(vm.try_run("remapsetup open {spare} data"), 2, "was not found")
    says(vm.try_run("remapsetup open --main {main} {spare} data"), 8, "none of the", "--no-label")
    says(vm.try_run("remapsetup open --main {stranger} --no-label {spare} data"), 2, "serial main, found serial stranger")
    says(vm.try_run("remapsetup open --no-label {spare} data"), 16)
    assert vm.try_run("dmsetup create data --table " + f"'{table(vm)}'").exit != 0

    # they cannot be written either: it goes on without, and says so
    vm.run(word)
    assert vm.run("dmsetup table data").stdout.split()[5:] == ["1", "no_label"]
    assert status(vm, "data").health == "degraded"
    assert vm.blkio("verify", "/dev/mapper/data", [*BAD, 12000], seed=3).ok
    assert vm.blkio("write", "/dev/mapper/data", [12008, BAD[0]], seed=4, fua=True).ok
    vm.run("remapsetup close data")
    says(vm.try_run("remapsetup open --main {main} {spare} data"), 8, "--no-label")

    # what the manual says to do
    copy = "remapsetup release --yes --main {main} --to {healthy} {spare}"
    says(vm.try_run(copy), 8, "none of the")
    vm.run(f"{copy} --no-label")
    assert vm.blkio("verify", healthy, [*BAD[1:], 12000], seed=3).ok
    assert vm.blkio("verify", healthy, [12008, BAD[0]], seed=4).ok

    # writing brings one back, as it makes a drive reallocate the sector
    vm.set_faults(main, bad_write=[*BAD, *labels[1:]], bad_read=labels[1:])
    vm.unplug(main)
    main.write(labels[0] * SECTOR, bytes(SECTOR))
    vm.plug(main)
    says(vm.try_run(word), 2, "found none")
    vm.set_faults(main, bad_write=[*BAD, *labels[1:]], bad_read=labels)
    vm.run(word)
    assert vm.blkio("write", "/dev/mapper/data", [12016], seed=5, fua=True).ok
    vm.run("remapsetup close data")
    vm.set_faults(main, bad_write=BAD)
    vm.run("remapsetup open --fsck {spare} data")
    assert vm.blkio("verify", "/dev/mapper/data", [*BAD[1:], 12000], seed=3).ok
    assert vm.blkio("verify", "/dev/mapper/data", [12008, BAD[0]], seed=4).ok
    assert status(vm, "data").health == "ok"


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


def test_what_an_interrupted_opening_has_left_is_no_open_set(boot, members):
    main, spare = members()
    format_set(main, spare, "--uuid", SET)
    vm = boot(main, spare)
    vm.run(f"echo 'data UUID={SET} -' >/etc/remaptab")
    remains = f"dmsetup create --notable -u REMAP-{SET} data"
    # the members may be held already, by a table that nobody uses yet
    loaded = f"{remains} && dmsetup load data --table '0 65536 remap {{main}} {{spare}} 0'"
    for left, command in itertools.product((remains, loaded), ("remapsetup open --all", "remapsetup open {spare} data", "remapsetup open --listed data")):
        vm.run(left)
        assert vm.run("remapsetup list --json").stdout.count('"open_as": ""') == 1
        assert json.loads(vm.run("remapsetup status --json").stdout)["devices"] == []
        assert "interrupted" in vm.run(command).stderr
        assert vm.run("dmsetup table data").stdout.split()[2] == "remap"
        assert vm.blkio("read", "/dev/mapper/data", [9000]).ok
        vm.run("remapsetup close data")


def test_a_suspended_device_keeps_no_set_from_opening(boot, members, disk):
    """Whoever reads it waits; in the initramfs that would be for ever."""
    main, spare = members()
    format_set(main, spare, "--uuid", SET)
    stuck = disk("stuck", "16M")
    vm = boot(main, spare, stuck)
    vm.run(f"echo 'data UUID={SET} -' >/etc/remaptab; dmsetup create a_stuck --table '0 32768 linear {{stuck}} 0'")
    # what lies on it waits as well, and does not count as suspended itself
    vm.run("dmsetup create a_top --table '0 32768 linear /dev/mapper/a_stuck 0' && dmsetup suspend a_stuck")
    reader = vm.start("dd if=/dev/mapper/a_top of=/dev/null bs=4096 count=1 iflag=direct")
    vm.run("remapsetup open --all && remapsetup list && dmsetup table data")
    assert reader.running(), "it can be read: this proves nothing"
    vm.run("dmsetup resume a_stuck")
    assert reader.wait(60).exit == 0


@pytest.mark.needs_qemu("btrfs")
def test_a_btrfs_is_known_by_all_its_devices(boot, members, disk):
    """Its mounts have a number of their own and name one of them; so has each of its subvolumes."""
    main, spare = members(size="160M")
    format_set(main, spare, "--label", "data", "--uuid", SET)
    second, other_spare = disk("second", "160M"), disk("other_spare", "8M")
    vm = boot(main, spare, second, other_spare)
    vm.run("modprobe btrfs; remapsetup open {spare} data && mkfs.btrfs -q -d single -m raid1 /dev/mapper/data {second}")
    vm.run("btrfs device scan >/dev/null; mount -t btrfs /dev/mapper/data /mnt && btrfs subvolume create /mnt/sub && mkdir /mnt/sub/folder")
    for device in ("{second}", "/dev/mapper/data"):
        says(vm.try_run(f"remapsetup format --yes --rescue-file /run/rescue {device} {{other_spare}}"), 8, "mounted on /mnt")
    for place in ("/mnt/rescue", "/mnt/sub/rescue", "/mnt/sub/folder/not/yet/rescue"):
        says(vm.try_run(f"remapsetup format --dry-run --rescue-file {place} {{second}} {{other_spare}}"), 16, f"{place}: lies on {vm.dev(second)} itself")
    assert "data: left open: /dev/mapper/data: in use: mounted on /mnt" in vm.run("remapsetup close --all").stderr
    vm.run("umount /mnt && remapsetup close --all && ! test -e /dev/mapper/data")
