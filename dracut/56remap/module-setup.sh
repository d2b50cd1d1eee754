#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# dracut module: open dm-remap sets before the root file system is mounted.

# Is the block device $1 ("major:minor") the device of a set?
is_remap() {
    local uuid
    uuid=$(cat "/sys/dev/block/$1/dm/uuid" 2> /dev/null)
    [[ $uuid == REMAP-* ]]
}

# The sets that this host is known to need: listed in remaptab, or below its file systems.
remap_needed() {
    grep -q '^[[:space:]]*[^#[:space:]]' "${dracutsysrootdir-}/etc/remaptab" 2> /dev/null \
        || for_each_host_dev_and_slaves is_remap
}

# Warns when a set below one of this host's file systems is not in remaptab: the initramfs would not open it.
warn_unlisted() {
    local uuid
    is_remap "$1" || return 1
    uuid=$(cat "/sys/dev/block/$1/dm/uuid")
    remapsetup list --unit "${uuid#REMAP-}" --remaptab "${dracutsysrootdir-}/etc/remaptab" > /dev/null 2>&1 \
        || dwarn "remap: set ${uuid#REMAP-} is in use but not in /etc/remaptab: this initramfs will not open it"
    return 1
}

# called by dracut
check() {
    require_binaries remapsetup dmsetup || return 1
    if [[ ${hostonly-} ]] || [[ ${mount_needs-} ]]; then
        remap_needed || return 255
    fi
    return 0
}

# called by dracut
depends() {
    echo dm rootfs-block
}

# called by dracut
installkernel() {
    # A generic image may well be for a host without sets; a known set without its module would not boot.
    if ! modinfo -k "${kernel:?}" dm-remap > /dev/null 2>&1; then
        if remap_needed; then
            dfatal "remap: kernel $kernel has no module dm-remap, but this host has dm-remap sets: it could not boot"
            return 1
        fi
        dwarn "remap: kernel $kernel has no module dm-remap: no set can be opened"
        return 0
    fi
    hostonly='' instmods -c dm-remap
}

# called by dracut
install() {
    inst_multiple remapsetup remap-fsck
    inst_multiple -o remap-dump
    inst_simple /etc/remaptab
    for_each_host_dev_and_slaves warn_unlisted

    inst_rules 59-remap-bare.rules 60-remap.rules
    inst_rules "${moddir:?}/69-remap-initqueue.rules"
    inst_hook cmdline 30 "$moddir/parse-remap.sh"
    inst_hook initqueue/timeout 10 "$moddir/remap-timeout.sh"
    inst_hook pre-mount 10 "$moddir/remap-gate.sh"
    inst_hook emergency 50 "$moddir/remap-emergency.sh"
    inst_hook shutdown-emergency 50 "$moddir/remap-emergency.sh"
    dracut_need_initqueue
}
