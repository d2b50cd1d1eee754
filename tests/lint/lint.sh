#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Style checks, one a call: lint.sh shell|format|man|units|checkpatch|sparse|dkms. Run by ctest (label lint); what it needs is
# installed by scripts/test. Prints what is wrong and exits with 1, or with 2 when it cannot check.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top"

die() {
    echo "lint.sh: $*" >&2
    exit 2
}

need() {
    command -v "$1" >/dev/null || die "$1 is not installed: run scripts/test --prepare"
}

# Files that git tracks, or all of them in a tree without git.
files() {
    git ls-files "$@" 2>/dev/null || find . -path ./build -prune -o -type f -print
}

# Shell scripts have no common suffix: their first line tells.
lint_shell() {
    need shellcheck
    files | while IFS= read -r file; do
        case $file in *.md | *.img | *.zst) continue ;; esac
        [ -f "$file" ] && head -n 1 "$file" | grep -qE '^(#!.*[/ ](sh|bash|dash)|# shellcheck shell=)' && printf '%s\n' "$file"
    done | xargs shellcheck -x
}

lint_format() {
    need clang-format
    files 'tools/*.[ch]pp' 'tests/unit/*.[ch]pp' 'tests/model/*.[ch]pp' 'tests/crash/*.[ch]pp' 'tests/fuzz/*.[ch]pp' | grep -E '\.[ch]pp$' | xargs clang-format --dry-run --Werror
}

lint_checkpatch() {
    need perl
    [ -e "${CHECKPATCH:-}" ] || die "CHECKPATCH does not name checkpatch.pl: run scripts/test --prepare"
    status=0
    for file in kmod/*.[ch]; do
        perl "$CHECKPATCH" --no-tree --strict --terse --max-line-length=100 -q -f "$file" || status=1
    done
    return $status
}

# sparse of the whole module; reports in the kernel's own headers are not ours.
lint_sparse() {
    need sparse
    [ -d "${KDIR:-}" ] || die "KDIR names no kernel build directory"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp kmod/*.[ch] kmod/Kbuild "$work"
    make -C "$KDIR" M="$work" C=2 CF=-D__CHECK_ENDIAN__ modules >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "the module does not build"
    }
    ! grep -E "^$work/.*(warning|error):" "$work/log" >&2
}

# The manual pages; that they have no date is meant.
lint_man() {
    need mandoc
    ! mandoc -Tlint -W warning docs/man/*.[58] | grep -v 'missing date, using ""'
}

# The units, and what the generator makes for two sets; the rules where udevadm can check them (systemd 254).
lint_units() {
    need systemd-analyze
    [ -x "${GENERATOR:-}" ] || die "GENERATOR does not name remap-generator"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    uuid=00000000-0000-4000-8000-00000000000
    printf 'data UUID=%s1 -\nmy-data UUID=%s2 nofail,timeout=30\n' $uuid $uuid >"$work/remaptab"
    : >"$work/cmdline"
    mkdir "$work/units" "$work/early" "$work/late"
    "$GENERATOR" "$work/units" "$work/early" "$work/late" "$work/remaptab" "$work" || die "the generator failed"
    for unit in udev/*.service udev/*.target; do
        # the program need not be installed here
        sed 's|=/usr/sbin/remapsetup |=/bin/true |' "$unit" >"$work/units/${unit##*/}"
    done
    # It succeeds whatever it finds; and what it finds in other units is not ours.
    SYSTEMD_UNIT_PATH="$work/units:" systemd-analyze verify --man=no 'remap-open@data.service' \
        'remap-open@my\x2ddata.service' remap-open.target remap-close.service >"$work/log" 2>&1 || :
    status=0
    ! grep remap "$work/log" >&2 || status=1
    SYSTEMD_UNIT_PATH="$work/units:" systemd-analyze verify --man=no sysinit.target 2>&1 | grep remap >&2 && status=1
    if udevadm verify --help 2>/dev/null | grep -q 'udevadm verify'; then
        udevadm verify udev/*.rules dracut/*/*.rules >&2 || status=1
    fi
    return $status
}

# What cmake --install leaves for DKMS makes a module, and leaves nothing on this machine.
lint_dkms() {
    need dkms
    [ -d "${KDIR:-}" ] || die "KDIR names no kernel build directory"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cmake --install "${BUILD:?}" --prefix "$work/usr" --component kmod-source >/dev/null
    for folder in "$work"/usr/src/dm-remap-*; do
        version=${folder##*/dm-remap-}
    done
    mkdir "$work/tree" "$work/installed"
    release=${KDIR%/build}
    set -- --dkmstree "$work/tree" --sourcetree "$work/usr/src" --installtree "$work/installed" -m dm-remap -v "$version"
    # It keeps a key for signing modules outside of the trees that it is given.
    # shellcheck disable=SC2016 # for the shell inside
    set -- unshare --mount sh -c 'mount -t tmpfs dkms /var/lib/dkms && dkms add "$@" && dkms build "$@" -k "$0" --kernelsourcedir "$KDIR"' \
        "${release##*/}" "$@"
    if ! "$@" >"$work/log" 2>&1; then
        cat "$work/log" "$work"/tree/dm-remap/*/build/make.log >&2
        return 1
    fi
    test -n "$(find "$work/tree" -name 'dm-remap.ko*')" || die "DKMS has made no module"
}

case ${1:-} in
shell | format | man | units | checkpatch | sparse | dkms) "lint_$1" ;;
*) die "usage: lint.sh shell|format|man|units|checkpatch|sparse|dkms" ;;
esac
