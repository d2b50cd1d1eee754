#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Before the emergency shell, or what rd.shell=0 has in its place: say which member of which known set is missing, and
# what to do.

/usr/sbin/remapsetup open --all --advice
