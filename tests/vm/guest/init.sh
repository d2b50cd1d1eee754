#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Init of the test guest: what a small system needs, the drivers named on the kernel command line
# (remapvm.modules=a,b), then the harness's agent (on remapvm.port=). When the agent ends, so does the machine.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# No udevd here: libdevmapper makes the nodes below /dev/mapper itself.
export DM_DISABLE_UDEV=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run /tmp /root /mnt
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run

read -r cmdline </proc/cmdline
port=remapvm.agent
for word in $cmdline; do
    case $word in
    remapvm.modules=*)
        # one modprobe for all: each start of a program costs milliseconds here
        # shellcheck disable=SC2046 # a list of names, split on purpose
        modprobe -a $(echo "${word#*=}" | tr , ' ')
        ;;
    remapvm.port=*) port=${word#*=} ;;
    esac
done

# Boot messages are left out on the console, they cost time; from here on it shows all.
echo 7 >/proc/sys/kernel/printk

vm-agent "$port"
echo "init: the agent has ended" >/dev/console
poweroff -f
