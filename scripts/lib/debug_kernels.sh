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
        cat "$top/scripts/lib/debug_kernels.sh" "$top/tests/vm/kernels/$1.config"
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
    # In the background, because `set -e` means nothing in a list that || follows.
    (
        set -e
        cd "$debug_kernel_tmp"
        debug_kernel_unpack
        cd source
        debug_kernel_configure "$1"
        debug_kernel_compile "$1"
        cd ..
        rm -rf source "$debug_kernel_dir"
        : >kernel/complete
        mv kernel "$debug_kernel_dir"
    ) >"$debug_kernel_log" 2>&1 &
    wait $! || {
        tail -n 40 "$debug_kernel_log" >&2
        rm -rf "$debug_kernel_tmp"
        die "cannot build the kernel $1 (log: $debug_kernel_log)"
    }
    rm -rf "$debug_kernel_tmp"
    say "built in $(($(date +%s) - debug_kernel_started)) s"
}

debug_kernels_forget_old() {
    find "$remap_cache/debug-kernels" -mindepth 2 -maxdepth 2 -name complete -mtime "+$debug_kernel_keep_days" |
        while read -r debug_kernel_old; do rm -rf "${debug_kernel_old%/complete}"; done
}

# debug_kernel_unpack: makes source/ here, without the bulk of what no tiny kernel is built from.
debug_kernel_unpack() {
    apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)" download "$debug_kernel_source=$debug_kernel_version"
    mkdir source
    dpkg-deb --fsys-tarfile "$debug_kernel_source"_*.deb 2>/dev/null | tar -xO "./usr/src/$debug_kernel_source.tar.xz" | xz -dc |
        tar -x -C source --strip-components=1 --exclude="$debug_kernel_source/Documentation/*/*" \
            --exclude="$debug_kernel_source/drivers/gpu/*.[ch]" --exclude="$debug_kernel_source/drivers/net/*/*.[ch]" \
            --exclude="$debug_kernel_source/drivers/media/*.[ch]" --exclude="$debug_kernel_source/drivers/staging/*.[ch]" \
            --exclude="$debug_kernel_source/sound/*.[ch]" --exclude="$debug_kernel_source/tools/testing/*" \
            --exclude="$debug_kernel_source/arch/*/boot/dts/*"
    rm "$debug_kernel_source"_*.deb
}

debug_kernel_arch() {
    case $1 in
    uml) echo um ;;
    *) echo x86_64 ;;
    esac
}

# debug_kernel_edit FILE SCRIPT: the script of sed must change something.
debug_kernel_edit() {
    sed "$2" "$1" >"$1.new"
    if cmp -s "$1" "$1.new"; then die "nothing in $1 for $2"; fi
    mv "$1.new" "$1"
}

# debug_kernel_configure NAME: fails when an option of the fragment did not come through. (KASAN, say, vanishes without a
# word when something that it depends on is missing.)
debug_kernel_configure() {
    # Modules are built by callers who do not know what they are built for.
    printf 'ARCH := %s\nexport ARCH\ninclude Makefile\n' "$(debug_kernel_arch "$1")" >GNUmakefile
    # kmemleak ignores what is younger than 5 seconds: longer than most tests take.
    debug_kernel_edit mm/kmemleak.c 's/^#define MSECS_MIN_AGE\t.*/#define MSECS_MIN_AGE 100/'
    # User-mode Linux walks the areas of a new process without a lock, and PROVE_RCU says so at every boot.
    debug_kernel_edit arch/um/kernel/tlb.c '/^void force_flush_all/,/^}/ {
        s/^\tfor_each_vma(.*/\trcu_read_lock();\n&/
        s/^\t\tfix_range(.*/&\n\trcu_read_unlock();/
    }'
    # A line of user-mode Linux that was throttled never gets any more input: nothing activates it again.
    debug_kernel_edit arch/um/drivers/line.c '/^void line_throttle/,/^}/ { /deactivate_chan/d; }'
    # User-mode Linux does not run on processors with AMX, whose registers do not fit.
    debug_kernel_edit arch/x86/um/user-offsets.c 's/DEFINE_LONGS(HOST_FP_SIZE, 2696)/DEFINE_LONGS(HOST_FP_SIZE, 16384)/'
    make tinyconfig
    scripts/kconfig/merge_config.sh -m .config "$top/tests/vm/kernels/$1.config"
    printf 'CONFIG_LOCALVERSION="%s"\n' "-${debug_kernel_release#*-}" >>.config
    make olddefconfig
    grep '^CONFIG_' "$top/tests/vm/kernels/$1.config" | while read -r debug_kernel_option; do
        case $debug_kernel_option in
        *=n) ! grep -q "^${debug_kernel_option%n}" .config ;;
        *) grep -qxF "$debug_kernel_option" .config ;;
        esac || die "this kernel cannot have $debug_kernel_option"
    done
}

# debug_kernel_compile NAME: makes ../kernel.
debug_kernel_compile() {
    make -j "$(nproc)"
    make -s modules_install INSTALL_MOD_PATH="$PWD/../kernel"
    test "$(cat include/config/kernel.release)" = "$debug_kernel_release"
    cp vmlinux ../kernel/linux
    cp .config ../kernel/config
    rm -f "../kernel/lib/modules/$debug_kernel_release/build" "../kernel/lib/modules/$debug_kernel_release/source"
    find arch scripts \( -name '*.o' -o -name '*.a' -o -name '.*.cmd' \) ! -path 'scripts/*' -delete
    mkdir -p ../kernel/build/arch ../kernel/build/tools/objtool
    cp -a Makefile GNUmakefile Kbuild .config Module.symvers include scripts ../kernel/build/
    cp -a arch/Kconfig arch/um arch/x86 ../kernel/build/arch/
    [ ! -e tools/objtool/objtool ] || cp -a tools/objtool/objtool ../kernel/build/tools/objtool/
}
