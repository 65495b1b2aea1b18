#!/bin/sh
# nfs.sh ENV IMAGE FOLDER [RTT...]: what the environment ENV costs on NFS, as files and as its image (`drydock image`).
#
# In a virtual machine of qemu with Debian's kernel, which is NFS server and client, and counts one nanosecond for each
# instruction (-icount): neither this machine's speed nor what else runs on it is in the figures, and a wait costs no time
# here. RTT are round trips in milliseconds (default: 0.5). A line for each: seconds there, of them of the processor, calls
# of NFS, MB from the server. As root on Debian, with qemu-system-x86, debootstrap and e2fsprogs; FOLDER gets 5 GB.
# CODE and PYTHON, the folder of the interpreter that ENV was built on, may be set.
set -eu

env=$1 image=$2 folder=$3
shift 3
[ $# -gt 0 ] || set -- 0.5
code=${CODE:-import torch, transformers}
python=${PYTHON:-$(cd "$(dirname "$(readlink -f "$env/bin/python")")/.." && pwd)}
mkdir -p "$folder" && cd "$folder"

# --- the disks: a Debian with the interpreter, and what the server has ---

packages=nfs-common,nfs-kernel-server,kmod,squashfuse,fuse3,iproute2,libgomp1,libstdc++6,mount,rpcbind,python3-minimal,busybox-static
[ -d root ] || { debootstrap --variant=minbase --include="$packages" bookworm root.new && mv root.new root; }
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p')
[ -d kernel ] || { apt-get download "$kernel" && dpkg -x "$kernel"_*.deb kernel.new && mv kernel.new kernel; }
version=${kernel#linux-image-}
modules=kernel/lib/modules/$version/kernel
mkdir -p root/lib/modules root/srv/nfs root/mnt/nfs root/mnt/image "root$(dirname "$python")" server/store
cp -a "kernel/lib/modules/$version" root/lib/modules/ && chroot root depmod "$version"
(cd / && tar cf - --exclude=test --exclude=site-packages --exclude=include ".$python") | tar xf - -C root
ldd "$python"/bin/python3 "$python"/lib/python3*/lib-dynload/*.so 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
  while IFS= read -r file; do [ -e "root$file" ] || { mkdir -p "root$(dirname "$file")" && cp -L "$file" "root$file"; }; done
cp -a "$env/." server/store/ && cp "$image" server/image

cat >root/measure.py <<'END'
import os, subprocess, sys, time

def calls():
    return next(int(line.split()[1]) for line in open("/proc/net/rpc/nfs") if line.startswith("rpc "))

def megabytes():
    return sum(int(line.split()[5]) for line in open("/proc/self/mountstats") if line.split()[:1] == ["bytes:"]) / 1e6

label, *command = sys.argv[1:]
before = calls(), megabytes(), os.times(), time.monotonic()
code = subprocess.run(command).returncode
after, used = time.monotonic(), os.times()
busy = used[2] + used[3] - before[2][2] - before[2][3]
print(f"RESULT {label} status={code} seconds={after - before[3]:.2f} processor={busy:.2f} "
      f"calls={calls() - before[0]} MB={megabytes() - before[1]:.0f}", flush=True)
END

cat >root/init <<END
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
for module in nfs nfsv4 nfsd squashfs loop fuse sch_netem crc32c_generic; do modprobe \$module; done
echo 0 >/proc/sys/kernel/hung_task_timeout_secs
ip link set lo up
mount -t ext4 -o ro /dev/vdb /srv/nfs
mount -t nfsd nfsd /proc/fs/nfsd; mkdir -p /run/rpc_pipefs; mount -t rpc_pipefs rpc /run/rpc_pipefs
rpcbind -w
echo '/srv/nfs 127.0.0.1(ro,fsid=0,no_subtree_check,insecure,no_root_squash)' >/etc/exports
exportfs -ra; rpc.nfsd 8; rpc.mountd
on() { mount -t nfs -o vers=4.2,ro 127.0.0.1:/ /mnt/nfs; }
twice() { for state in cold warm; do python3 /measure.py "\$1 rtt=\$rtt \$state" "\$2/bin/python" -c '$code'; done; }
# What the server reads is in its memory, as is the interpreter; only the client begins anew each time.
on; cat /mnt/nfs/image >/dev/null; /mnt/nfs/store/bin/python -c '$code'; umount /mnt/nfs
for rtt in $*; do
  tc qdisc del dev lo root 2>/dev/null
  [ \$rtt = 0 ] || tc qdisc add dev lo root netem delay \$(python3 -c "print(int(\$rtt * 500))")us limit 100000
  on; twice files /mnt/nfs/store; umount /mnt/nfs
  on; mount -t squashfs -o loop,ro /mnt/nfs/image /mnt/image; twice kernel /mnt/image; umount /mnt/image; umount /mnt/nfs
  on; squashfuse_ll /mnt/nfs/image /mnt/image; twice squashfuse /mnt/image; umount /mnt/image; sleep 1; umount /mnt/nfs
done
echo o >/proc/sysrq-trigger; sleep 9
END
chmod +x root/init

rm -rf start && mkdir -p start/new start/dev start/bin
cp root/bin/busybox start/bin/
{
  # shellcheck disable=SC2016 # as it is there
  printf '#!/bin/busybox sh\nB=/bin/busybox; $B mount -t devtmpfs dev /dev\n'
  for module in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev \
    drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci drivers/block/virtio_blk crypto/crc32c_generic lib/crc16 \
    fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4; do
    cp "$modules/$module.ko" start/ && echo "\$B insmod /${module##*/}.ko"
  done
  # shellcheck disable=SC2016
  printf '$B sleep 1; $B mount -t ext4 /dev/vda /new && $B mount -t devtmpfs dev /new/dev && exec $B switch_root /new /init\n'
} >start/init
chmod +x start/init
(cd start && find . | ../root/bin/busybox cpio -o -H newc 2>/dev/null) | gzip >start.gz
for disk in root server; do
  rm -f "$disk.img"
  mkfs.ext4 -q -d "$disk" "$disk.img" "$(($(du -sm "$disk" | cut -f1) * 3 / 2 + 100))M" >/dev/null
done

# --- the machine: nothing of this one but the two disks, which it does not change ---

qemu-system-x86_64 -accel tcg,thread=single -icount shift=0,sleep=off -cpu max -smp 1 -m 4096 -nographic -no-reboot -nic none \
  -kernel "kernel/boot/vmlinuz-$version" -initrd start.gz -append "console=ttyS0 quiet panic=-1 mitigations=off" \
  -drive file=root.img,format=raw,if=virtio,snapshot=on -drive file=server.img,format=raw,if=virtio,readonly=on |
  sed -un 's/^.*RESULT \([ -~]*\).*/\1/p'
