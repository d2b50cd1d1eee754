#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Before the emergency shell: say which member of which known set is missing.

/usr/sbin/remapsetup open --all
