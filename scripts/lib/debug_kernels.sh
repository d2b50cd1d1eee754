# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # variables are for, and from, the scripts that source this
#
# Kernels that watch themselves, built from Debian's source package: user-mode Linux (uml) and one for QEMU (x86-debug),
# each tinyconfig plus tests/vm/kernels/NAME.config. Sourced after packages.sh, with $top set to the source tree.
#
# A kernel lies in <cache>/debug-kernels/RELEASE/, RELEASE being VERSION-NAME-HASH and HASH that of all that it is made of:
# linux (the image), config, lib/modules/RELEASE, and build/, what is needed to build modules for it.

packages_debug_kernel="build-essential flex bison bc libelf-dev libssl-dev kmod xz-utils"
debug_kernel_source=linux-source-6.1
debug_kernel_keep_days=14

# debug_kernel_ensure NAME: makes the kernel unless the cache has it; sets debug_kernel_release and debug_kernel_dir.
debug_kernel_ensure() {
    apt_has_candidate "$debug_kernel_source" || apt_refresh
    debug_kernel_version=$(LC_ALL=C apt-cache policy "$debug_kernel_source" | sed -n 's/^  Candidate: \([0-9].*\)/\1/p')
    [ -n "$debug_kernel_version" ] || die "the archive has no $debug_kernel_source"
    debug_kernel_hash=$({
        printf '%s\n' "$debug_kernel_version"
        cat "$top/scripts/lib/build-debug-kernel" "$top/tests/vm/kernels/$1.config"
    } | sha256sum | cut -c1-8)
    debug_kernel_release=${debug_kernel_version%-*}-$1-$debug_kernel_hash
    debug_kernel_dir=$remap_cache/debug-kernels/$debug_kernel_release
    if [ -e "$debug_kernel_dir/complete" ]; then
        touch "$debug_kernel_dir/complete"
        return 0
    fi
    # shellcheck disable=SC2086 # a list of package names, split on purpose
    apt_install "building the kernel $1" $packages_debug_kernel
    debug_kernel_make "$1"
}

# debug_kernel_make NAME: the folder appears whole or not at all.
debug_kernel_make() {
    say "building the kernel $debug_kernel_release into the cache"
    mkdir -p "$remap_cache/debug-kernels"
    debug_kernels_forget_old
    debug_kernel_log=$remap_cache/debug-kernels/$1.log
    debug_kernel_tmp=$(mktemp -d "$remap_cache/debug-kernels/.build.XXXXXX")
    debug_kernel_started=$(date +%s)
    in_session scripts/lib/build-debug-kernel "$1" "$debug_kernel_source" "$debug_kernel_version" \
        "$debug_kernel_release" "$debug_kernel_tmp" >"$debug_kernel_log" 2>&1 || {
        tail -n 40 "$debug_kernel_log" >&2
        rm -rf "$debug_kernel_tmp"
        die "cannot build the kernel $1 (log: $debug_kernel_log)"
    }
    : >"$debug_kernel_tmp/kernel/complete"
    rm -rf "$debug_kernel_dir"
    mv "$debug_kernel_tmp/kernel" "$debug_kernel_dir"
    rm -rf "$debug_kernel_tmp"
    debug_kernel_tmp=
    say "built in $(($(date +%s) - debug_kernel_started)) s"
}

# debug_kernel_interrupted: leave nothing half built behind.
debug_kernel_interrupted() {
    [ -z "${debug_kernel_tmp:-}" ] || rm -rf "$debug_kernel_tmp"
}

debug_kernels_forget_old() {
    find "$remap_cache/debug-kernels" -mindepth 1 -maxdepth 1 -name '.build.*' -mtime +1 -exec rm -rf {} +
    find "$remap_cache/debug-kernels" -mindepth 2 -maxdepth 2 -name complete -mtime "+$debug_kernel_keep_days" |
        while read -r debug_kernel_old; do rm -rf "${debug_kernel_old%/complete}"; done
}
