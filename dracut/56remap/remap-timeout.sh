#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sourced when the wait for root is nearly over: an attempt is made for each event of a member and no more, so one that
# failed for a reason that has passed is made again here, once.

rm -f -- "${job:-}"
/usr/sbin/remapsetup open --all --quiet
