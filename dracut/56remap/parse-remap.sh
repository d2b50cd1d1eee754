#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# rd.remap.timeout=SECONDS: how long to wait for the root device, in dracut's own terms.

# shellcheck source=/dev/null
type getarg > /dev/null 2>&1 || . /lib/dracut-lib.sh

timeout=$(getarg rd.remap.timeout=)
if [ -n "$timeout" ] && ! getarg rd.retry= > /dev/null; then
    echo "rd.retry=$timeout" > /etc/cmdline.d/56remap.conf
fi
unset timeout
