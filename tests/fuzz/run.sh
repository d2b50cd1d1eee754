#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# One run of a fuzz target, by ctest: run.sh PROGRAM SEEDS FOUND OPTION... FOUND keeps what the runs found: new inputs
# in FOUND/corpus, and in FOUND/crash-*, slow-unit-* and so on what must be mended. These are tried first.
set -eu

program=$1
seeds=$2
found=$3
shift 3

[ -d "$seeds" ] || {
    echo "run.sh: no seeds in $seeds" >&2
    exit 2
}
mkdir -p "$found/corpus"
export ASAN_OPTIONS="${ASAN_OPTIONS:-quarantine_size_mb=8:malloc_context_size=6}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"

# What was found before and not mended fails at once.
for input in "$found"/crash-* "$found"/timeout-* "$found"/oom-* "$found"/leak-*; do
    [ -e "$input" ] || continue
    echo "again: $input"
    "$program" -timeout=60 "$input"
    mv "$input" "$found/corpus"
done
exec "$program" "$@" -timeout=60 -rss_limit_mb=2048 -max_len=32768 -len_control=20 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="$found/" "$found/corpus" "$seeds"
