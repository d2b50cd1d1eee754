#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# rd.remap.timeout=SECONDS: how long to wait for the root device, in dracut's own terms.

# shellcheck source=/dev/null
type getarg > /dev/null 2>&1 || . /lib/dracut-lib.sh

timeout=$(getarg rd.remap.timeout=)
case $timeout in
    '') ;;
    *[!0-9]*) warn "remap: rd.remap.timeout=$timeout: expected seconds" ;;
    *) getarg rd.retry= > /dev/null || echo "rd.retry=$timeout" > /etc/cmdline.d/56remap.conf ;;
esac
unset timeout
