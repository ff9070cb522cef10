#!/usr/bin/env bash
# The first process in the namespaces of scripts/fresh.sh, which starts it. It makes the empty root the only one, and
# runs the commands of its /root/commands in /root/sluice, until one fails.
#
#   scripts/fresh-root.sh ROOT GOROOT GOMODCACHE GOCACHE APT_ARCHIVES VARIABLE=VALUE…
set -euo pipefail
root=$1 goroot=$2 modules=$3 compiled=$4 archives=$5
shift 5
mount --bind "$root" "$root" # the only root that can be left, and entered, is a mount
cd "$root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
# Of each hierarchy of cgroups its own group, which the cgroup namespace takes for the whole.
while read -r hierarchy group; do
  umount ".$hierarchy"
  mount --bind "$group" ".$hierarchy"
done <"${root%/root}/cgroups"
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/lock

at() { mkdir -p ".$2"; mount --bind "$1" ".$2"; }
at "$goroot" /usr/local/go
mount -o remount,bind,ro ./usr/local/go
at "$modules" /root/go/pkg/mod
at "$compiled" /root/.cache/go-build
at "$archives" /var/cache/apt/archives

pivot_root . .
umount --lazy .
exec chroot . /usr/bin/env -i "$@" /bin/bash -c '
  set -uo pipefail
  cd /root/sluice
  mapfile -t commands </root/commands
  for command in "${commands[@]}"; do
    printf "\nfresh: %s\n" "$command" >&2
    bash -c "$command" || { code=$?; echo "fresh: $command: exit code $code" >&2; exit "$code"; }
  done
  exit 0'
