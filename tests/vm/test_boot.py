# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole Debians: the root file system on a disk with bad sectors, under dm-remap."""

import pytest
from remapvm import rootfs, story
from remapvm.disk import Disk
from remapvm.errors import SetupError
from remapvm.initramfs import guest_program, module_file

pytestmark = pytest.mark.boot


@pytest.mark.parametrize(
    "generator, interface, errno",
    [("initramfs-tools", "virtio", 5), ("dracut", "scsi", 61)],
    ids=["initramfs-tools", "dracut"],
)
def test_root_survives_bad_sectors_power_cut_and_damage(machines, generator, interface, errno):
    story.Story(machines.folder / "disks", machines.boot, generator, interface, errno, series=machines.kernel).run()


@pytest.mark.parametrize("generator", rootfs.GENERATORS)
def test_an_initramfs_without_the_module_is_made_and_boots_only_where_no_set_is_known(machines, tmp_path, generator):
    tale = story.Story(machines.folder / "disks", machines.boot, generator, series=machines.kernel)
    kernel = tale.kernel
    rootfs.make_tree(tmp_path / "tree", kernel, None, guest_program("agent"), story.SET_UUID, story.FS_UUID)
    with pytest.raises(SetupError, match="no module dm-remap, but this host has dm-remap sets"):
        rootfs.make_initramfs(tmp_path / "tree", kernel, generator, tmp_path / "initramfs")
    (tmp_path / "tree/etc/remaptab").write_text("# no set\n")
    messages = rootfs.make_initramfs(tmp_path / "tree", kernel, generator, tmp_path / "initramfs")
    assert "no module dm-remap: no set can be opened" in messages
    root = rootfs.build(kernel, module_file(kernel), guest_program("agent"), story.SET_UUID, story.FS_UUID)
    image = tale.folder / "plain.img"
    story.copy_sparse(root.image, image)
    vm = machines.boot(
        Disk(image, "plain"),
        initrd=tmp_path / "initramfs",
        append=tale.boot_arguments(f"rw {story.QUIET}"),
        boot_timeout=200,
        shutdown_command="systemctl poweroff",
    )
    assert vm.run("findmnt -no UUID /").stdout.strip() == story.FS_UUID
    vm.shutdown(90)


@pytest.mark.parametrize("generator", rootfs.GENERATORS)
def test_nothing_is_mounted_when_the_spare_is_missing(machines, generator):
    tale = story.Story(machines.folder / "disks", machines.boot, generator, series=machines.kernel)
    tale.adopt()
    vm = tale.plain_boot([tale.main], "rw rd.remap.timeout=5", agent=False)
    vm.wait_end(240)
    console = vm.console.text()
    assert f"the spare of set {story.SET_UUID} is missing" in console
    assert "EXT4-fs" not in console, "the raw main was mounted"


@pytest.mark.long
def test_root_on_remap_with_dracut_without_systemd(machines, tmp_path):
    tale = story.Story(machines.folder / "disks", machines.boot, rootfs.DRACUT_WITHOUT_SYSTEMD, series=machines.kernel)
    tale.adopt()
    module = module_file(tale.kernel)
    rootfs.make_tree(tmp_path / "tree", tale.kernel, module, guest_program("agent"), story.SET_UUID, story.FS_UUID)
    rootfs.make_initramfs(tmp_path / "tree", tale.kernel, tale.generator, tmp_path / "initramfs")
    vm = tale.plain_boot([tale.main, tale.spare], initrd=tmp_path / "initramfs")
    tale.prove_root_on_remap()
    tale.check_raw_main()
    vm.shutdown(90)
