#!/bin/sh
# sysroot.sh DIR: make DIR, an aarch64 Debian 12 root with Python 3.11, as a bare machine would have it.
#
# The packages come from Debian through a private apt state and are unpacked, not configured: nothing of this
# machine's dpkg or apt state is touched, and no aarch64 program runs. DIR appears whole or not at all.
# Needs apt and dpkg, and Debian's keyring (debian-archive-keyring, on Ubuntu). The mirror is the one that this machine's
# apt has for Debian 12, or DEBIAN_MIRROR.
set -eu

mirror=${DEBIAN_MIRROR:-}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages='base-files base-passwd bash ca-certificates coreutils dash debianutils diffutils findutils grep gzip
          hostname libc-bin libgomp1 libstdc++6 mawk media-types netbase procps python3 python3-venv sed tar
          tzdata usr-is-merged util-linux zlib1g'

die() { printf 'sysroot.sh: %s\n' "$*" >&2; exit 1; }

[ $# = 1 ] || die "usage: sysroot.sh DIR"
[ ! -e "$1" ] || die "$1 exists already"
if [ -z "$mirror" ]; then
    # shellcheck disable=SC2016  # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -n 's/ bookworm main$//p' | head -n 1)
fi
[ -n "$mirror" ] || die "apt has no source for Debian 12 (bookworm) here: set DEBIAN_MIRROR"
[ -r "$keyring" ] || die "no $keyring (apt-get install debian-archive-keyring)"
parent=$(dirname -- "$1"); name=$(basename -- "$1")
mkdir -p -- "$parent"; parent=$(cd -- "$parent" && pwd)
work=$(mktemp -d "$parent/.sysroot.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
root=$work/root; apt=$work/apt
mkdir -p "$root" "$apt/lists/partial" "$apt/archives/partial"; : >"$apt/status"
echo "deb [arch=arm64 signed-by=$keyring] $mirror bookworm main" >"$apt/sources.list"

# What apt would install on a machine that has nothing. Its sandbox user cannot reach a private folder.
set -- -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Install-Recommends=false \
    -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none \
    -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt"
apt-get "$@" update
# shellcheck disable=SC2086  # a list of words
apt-get "$@" install -y --download-only $packages

# One /usr, as every Debian 12 has; then what the packages' own scripts would have made.
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib"
for dir in bin sbin lib; do ln -s "usr/$dir" "$root/$dir"; done
for deb in "$apt"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" >"$work/files.tar"
    tar -x -f "$work/files.tar" -C "$root" --keep-directory-symlink --no-same-owner
done
mkdir -p "$root/dev" "$root/proc" "$root/root" "$root/sys" "$root/tmp"
chmod 1777 "$root/tmp"; chmod 755 "$root"
ln -sf mawk "$root/usr/bin/awk"
cp "$root/usr/share/libc-bin/nsswitch.conf" "$root/etc/nsswitch.conf"
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
echo drydock-aarch64 >"$root/etc/hostname"
for program in sh python3 awk mktemp getconf ps; do
    [ -x "$root/usr/bin/$program" ] || die "the new root has no $program"
done
(cd "$apt/archives" && printf '%s\n' *.deb) >"$root/etc/drydock-packages"
mv -T -- "$root" "$parent/$name"
