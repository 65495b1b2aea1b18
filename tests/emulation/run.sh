#!/bin/sh
# run.sh [--chroot DIR [--bind=HOST:INSIDE]...] CMD...: run CMD where aarch64 programs execute, through qemu.
#
# A private user and mount namespace: since Linux 6.7 binfmt_misc belongs to the user namespace, so nothing is
# registered on this machine. Every step execs the next: CMD has the process id, the signals and the status.
# With --chroot, CMD runs in DIR as root, with a clean environment: add to it by `env`. DIR is never written:
# what CMD writes goes to a layer in memory that ends with it. Keep what must last under a --bind; a hard link
# cannot cross two binds, so give a store and its cache one bind. Status 96: no such namespace could be made.
set -eu
[ "${1-}" = --inside ] || exec unshare --user --map-root-user --mount sh "$0" --inside "$@"
shift

die() { printf 'run.sh: %s\n' "$*" >&2; exit 96; }

qemu=$(command -v qemu-aarch64-static) || die "no qemu-aarch64-static (apt-get install qemu-user-static)"
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || die "no own binfmt_misc (Linux >= 6.7?)"
# The magic of an aarch64 ELF program. F: qemu is opened now, so it is found in the chroot. P: argv[0] is
# kept. C: the credentials are the program's.
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":qemu-aarch64:M::$magic:$mask:$qemu:FPC" >/proc/sys/fs/binfmt_misc/register ||
    die "binfmt_misc refused qemu"

[ "${1-}" = --chroot ] || exec "$@"
lower=$(cd "$2" && pwd) || die "no root $2"
shift 2
# Any folder can hold the layer; DIR/tmp is the one that nothing else of this machine needs.
layer=$lower/tmp; root=$layer/root
mount -t tmpfs -o mode=0755 drydock "$layer" || die "no tmpfs"
mkdir "$layer/upper" "$layer/work" "$root"
mount -t overlay -o "lowerdir=$lower,upperdir=$layer/upper,workdir=$layer/work,userxattr" drydock "$root" ||
    die "no overlay over $lower"
for dir in dev proc sys; do
    mkdir -p "$root/$dir"; mount --rbind "/$dir" "$root/$dir" || die "no /$dir"
done
# Names and certificates as this machine has them.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    [ ! -r "$file" ] || { mkdir -p "$root${file%/*}"; cp -L "$file" "$root$file"; }
done
while :; do
    case ${1-} in
    --bind) bind=${2?}; shift 2 ;;
    --bind=*) bind=${1#--bind=}; shift ;;
    *) break ;;
    esac
    inside=$root/${bind#*:}
    mkdir -p "$inside"; mount --rbind "${bind%%:*}" "$inside" || die "cannot bind $bind"
done
exec env -i HOME=/root LANG=C.UTF-8 TMPDIR=/tmp \
    PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    chroot "$root" "$@"
