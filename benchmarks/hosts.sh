#!/bin/bash
# hosts.sh up DIR N: hosts h1 to hN on this machine, each with its own network, mounts, host name, processes, home and sshd.
# hosts.sh again DIR N: starts host hN again. hosts.sh down DIR: takes them down.
# It needs root, Linux, iproute2 and openssh-server. The desk is the namespace `desk` (10.77.0.1): hosts reach it and each
# other, and nothing else. `kill -9 $(cat DIR/hosts/h1/pid)` pulls a plug.
set -eu
dir=$(mkdir -p "$2" && cd "$2" && pwd)
home=$(getent passwd root | cut -d: -f6)

down() {
  for d in "$dir"/hosts/*; do
    [ ! -f "$d/pid" ] || kill -9 "$(cat "$d/pid")" 2>/dev/null || :
    ip netns del "host-${d##*/}" 2>/dev/null || :
  done
  ip netns del desk 2>/dev/null || :
}

network() {
  ip netns add desk
  ip -n desk link add br0 type bridge
  ip -n desk link set br0 up
  ip -n desk link set lo up
  ip -n desk addr add 10.77.0.1/24 dev br0
  ssh-keygen -q -t ed25519 -N '' -f "$dir/user"
  echo "127.0.0.1 localhost" >"$dir/hosts.etc"
  for i in $(seq "$1"); do echo "10.77.0.$((10 + i)) h$i" >>"$dir/hosts.etc"; done
}

host() {
  h=h$1 d=$dir/hosts/h$1 address=10.77.0.$((10 + $1))
  mkdir -p "$d/home/.ssh" "$d/etc" "$d/tmp" # /tmp is everybody's here, and process ids are the same on all
  chmod 700 "$d/home" "$d/home/.ssh"
  cp "$dir/user.pub" "$d/home/.ssh/authorized_keys"
  ssh-keygen -q -t ed25519 -N '' -f "$d/etc/key"
  echo "$address $(cut -d' ' -f1,2 "$d/etc/key.pub")" >>"$dir/known_hosts"
  cat >>"$dir/ssh_config" <<C
Host $h
  HostName $address
  User root
  IdentityFile $dir/user
  UserKnownHostsFile $dir/known_hosts
  KexAlgorithms curve25519-sha256
C
  cat >"$d/etc/sshd_config" <<C
ListenAddress $address
HostKey $d/etc/key
PidFile none
PermitRootLogin prohibit-password
UsePAM no
SetEnv TMPDIR=$d/tmp
MaxStartups 100:30:200
C
  connect "$1"
  start "$1"
}

connect() {
  h=h$1
  ip netns add "host-$h"
  ip link add "v$h" type veth peer name e0 netns "host-$h"
  ip link set "v$h" netns desk
  ip -n desk link set "v$h" master br0 up
  ip -n "host-$h" addr add "10.77.0.$((10 + $1))/24" dev e0
  ip -n "host-$h" link set e0 up
  ip -n "host-$h" link set lo up
}

start() {
  h=h$1 d=$dir/hosts/h$1
  cat >"$d/init.sh" <<C
hostname $h
mount --bind "$dir/hosts.etc" /etc/hosts
mount --bind "$d/home" "$home"
mkdir -p /run/sshd
mount -t tmpfs tmpfs /dev/shm
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$home" /usr/sbin/sshd -D -e -f "$d/etc/sshd_config"
C
  setsid ip netns exec "host-$h" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc bash "$d/init.sh" \
    >"$d/sshd.log" 2>&1 </dev/null &
  echo $! >"$d/pid"
}

case $1 in
  up)
    network "$3"
    for i in $(seq "$3"); do host "$i"; done
    ;;
  again) start "$3" ;;
  down) down ;;
  *) exit 2 ;;
esac
