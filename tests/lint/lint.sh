#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Style checks, one a call: lint.sh shell|format|man|checkpatch|sparse. Run by ctest (label lint); what it needs is
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

case ${1:-} in
shell | format | man | checkpatch | sparse) "lint_$1" ;;
*) die "usage: lint.sh shell|format|man|checkpatch|sparse" ;;
esac
