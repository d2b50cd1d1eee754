#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The gate, sourced before root is mounted. The raw main of a bare set shows what the set shows, and a disk that is
# attached in another way than before may not be known as that main, so not be hidden: boot goes on only when every such
# set is open, and root does not lie on a raw main.

# shellcheck source=/dev/null
type getarg > /dev/null 2>&1 || . /lib/dracut-lib.sh

remap_gate() {
    /usr/sbin/remapsetup open --all --bare "$@" || return 1
    # shellcheck disable=SC2154 # dracut's
    /usr/sbin/remapsetup probe --bare "${root#block:}" 2> /dev/null || return 0
    warn "remap: root would be mounted from the raw main of a bare set"
    return 1
}

# The first time without waiting, to say what is missing.
if ! remap_gate; then
    remap_wait=$(getarg rd.remap.timeout=)
    case $remap_wait in
        *[!0-9]*) remap_wait= ;;
    esac
    while ! remap_gate --wait "${remap_wait:-30}"; do
        remap_wait=0
        remap_text="remap: a bare set is not open. Open it; or, to use its raw main, delete its line from /etc/remaptab"
        if getargbool 1 rd.shell; then
            emergency_shell "$remap_text"
            continue
        fi
        # Never back from here: with systemd root is mounted when this hook ends, however it ends.
        (emergency_shell "$remap_text")
        [ -n "$DRACUT_SYSTEMD" ] || die "$remap_text"
        while :; do
            sleep 60
        done
    done
    unset remap_wait remap_text
fi
