# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034 # the variables are for the scripts that source this
#
# What dm-remap's scripts need from Debian, and how they get it. Sourced, never run.
#
# Nothing is installed silently: every package that is missing is named first. Kernel images are not installed
# for the virtual machines (their hooks would touch the host's boot loader) but downloaded and unpacked into the
# cache folder. The headers of 6.12 in Debian 12 depend on their image, though, and bring it along.

# The one folder for everything that is expensive to make and safe to delete.
remap_cache="${DM_REMAP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dm-remap}"

# Kernel series that the module is built for and tested on.
remap_kernel_series="6.1 6.12"

packages_build="build-essential cmake pkg-config libdevmapper-dev libblkid-dev uuid-dev zlib1g-dev libcli11-dev
    nlohmann-json3-dev catch2 kmod python3"
packages_lint="shellcheck clang-format mandoc sparse perl systemd udev xz-utils dkms"
# The unit tests have file systems made by their own tools.
packages_unit="e2fsprogs xfsprogs btrfs-progs f2fs-tools util-linux zstd gddrescue"
packages_fuzz="clang libclang-rt-14-dev"
packages_vm="qemu-system-x86 qemu-utils busybox-static cpio zstd xz-utils kmod dmsetup e2fsprogs
    xfsprogs btrfs-progs f2fs-tools util-linux python3 python3-pytest python3-pytest-xdist"
packages_boot="mmdebstrap"

say() { printf '==> %s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    warn "$*"
    exit 1
}

# apt_missing PACKAGE...: those that are not installed, one a line.
apt_missing() {
    for apt_pkg in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$apt_pkg" 2>/dev/null)" = installed ] ||
            printf '%s\n' "$apt_pkg"
    done
}

apt_has_candidate() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [^(]'
}

# apt_refresh: one `apt-get update` per run at most, and only as root.
apt_refresh() {
    [ -z "${apt_refreshed:-}" ] || return 0
    [ "$(id -u)" = 0 ] || return 0
    say "refreshing the package lists"
    apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -qq update
    apt_refreshed=1
}

# apt_install PURPOSE PACKAGE...: install what is missing; says what, and for what.
apt_install() {
    apt_purpose=$1
    shift
    apt_list=$(apt_missing "$@" | tr '\n' ' ')
    [ -n "$apt_list" ] || return 0
    [ "$(id -u)" = 0 ] || die "missing packages for $apt_purpose, and not root to install them: $apt_list"
    apt_refresh
    say "installing for $apt_purpose: $apt_list"
    # shellcheck disable=SC2086 # a list of package names, split on purpose
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
        install -y -qq --no-install-recommends $apt_list >"$(apt_log)" 2>&1 ||
        {
            cat "$(apt_log)" >&2
            die "apt-get install failed"
        }
}

apt_log() {
    mkdir -p "$remap_cache"
    printf '%s\n' "$remap_cache/apt.log"
}

# kernel_image_package RELEASE: the package that holds this kernel's image; fails when the archive has none.
kernel_image_package() {
    for kernel_pkg in "linux-image-$1" "linux-image-$1-unsigned"; do
        if apt_has_candidate "$kernel_pkg"; then
            printf '%s\n' "$kernel_pkg"
            return 0
        fi
    done
    return 1
}

# releases_of SERIES: of the release names on stdin those of the series' plain amd64 flavour, newest first.
releases_of() {
    grep -E "^$(printf '%s' "$1" | sed 's/\./\\./g')\.[0-9][0-9a-z.+~]*(-[0-9]+)?-amd64\$" | sort -Vr
}

kernel_is_cached() { [ -e "$remap_cache/kernels/$1/complete" ]; }

kernels_with_headers() {
    for kernel_dir in /lib/modules/*/build; do
        [ -e "$kernel_dir/Makefile" ] || continue
        kernel_dir=${kernel_dir%/build}
        printf '%s\n' "${kernel_dir##*/}"
    done
}

# kernel_ensure SERIES: makes headers (installed) and image (unpacked in the cache) of the newest kernel of the series
# available, and sets kernel_release. What is there already is used without asking the archive, so that a
# second run needs no network.
kernel_ensure() {
    kernel_release=
    for kernel_candidate in $(kernels_with_headers | releases_of "$1"); do
        if kernel_is_cached "$kernel_candidate"; then
            kernel_release=$kernel_candidate
            return 0
        fi
    done
    apt_refresh
    for kernel_candidate in $(kernels_with_headers | releases_of "$1") \
        $(apt-cache pkgnames "linux-headers-$1." | sed 's/^linux-headers-//' | releases_of "$1"); do
        kernel_package=$(kernel_image_package "$kernel_candidate") || continue
        [ -e "/lib/modules/$kernel_candidate/build/Makefile" ] ||
            apt_has_candidate "linux-headers-$kernel_candidate" || continue
        if apt-cache depends "linux-headers-$kernel_candidate" | grep -q 'linux-image-'; then
            say "Debian's linux-headers-$kernel_candidate depends on its kernel image: apt installs that too"
        fi
        apt_install "building the module for $kernel_candidate" "linux-headers-$kernel_candidate"
        kernel_unpack "$kernel_candidate" "$kernel_package"
        kernel_release=$kernel_candidate
        return 0
    done
    die "the archive has no kernel $1 with both headers and image for amd64"
}

# kernel_unpack RELEASE PACKAGE: makes <cache>/kernels/RELEASE/{vmlinuz,config,lib/modules/RELEASE}.
# The folder appears whole or not at all.
kernel_unpack() {
    kernel_is_cached "$1" && return 0
    say "fetching kernel $1 into the cache (not installed)"
    mkdir -p "$remap_cache/kernels"
    kernel_tmp=$(mktemp -d "$remap_cache/kernels/.unpack.XXXXXX")
    # chained with &&: a set -e would have no effect in front of ||
    (
        cd "$kernel_tmp" &&
            apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)" download "$2" &&
            dpkg -x "$2"_*.deb deb &&
            mkdir -p root/lib/modules &&
            mv "deb/boot/vmlinuz-$1" root/vmlinuz &&
            mv "deb/boot/config-$1" root/config &&
            for kernel_modules in deb/usr/lib/modules/"$1" deb/lib/modules/"$1"; do
                [ ! -d "$kernel_modules" ] || mv "$kernel_modules" root/lib/modules/ || exit
            done &&
            rm -f "root/lib/modules/$1/build" "root/lib/modules/$1/source" &&
            /sbin/depmod -b root "$1" &&
            : >root/complete &&
            rm -rf "$remap_cache/kernels/$1" &&
            mv root "$remap_cache/kernels/$1"
    ) || {
        rm -rf "$kernel_tmp"
        die "cannot fetch kernel $1 (package $2)"
    }
    rm -rf "$kernel_tmp"
}

# checkpatch_ensure: sets checkpatch to a checkpatch.pl with its word lists. No headers package has it, so it is
# taken out of the kernel source package, once.
checkpatch_ensure() {
    checkpatch=$remap_cache/checkpatch/scripts/checkpatch.pl
    [ ! -e "$checkpatch" ] || return 0
    apt_has_candidate linux-source-6.1 || apt_refresh
    say "fetching checkpatch.pl out of linux-source-6.1 into the cache"
    mkdir -p "$remap_cache"
    checkpatch_tmp=$(mktemp -d "$remap_cache/.checkpatch.XXXXXX")
    (
        cd "$checkpatch_tmp" &&
            apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)" download linux-source-6.1 &&
            dpkg-deb --fsys-tarfile linux-source-6.1_*.deb 2>/dev/null | tar -xO ./usr/src/linux-source-6.1.tar.xz |
            xz -dc | tar -x --strip-components=1 --occurrence=1 linux-source-6.1/scripts/checkpatch.pl \
            linux-source-6.1/scripts/spelling.txt linux-source-6.1/scripts/const_structs.checkpatch &&
            rm -f linux-source-6.1_*.deb &&
            test -s scripts/checkpatch.pl &&
            rm -rf "$remap_cache/checkpatch" &&
            mv "$checkpatch_tmp" "$remap_cache/checkpatch"
    ) || {
        rm -rf "$checkpatch_tmp"
        die "cannot fetch checkpatch.pl"
    }
}
