#!/usr/bin/env bash
# Installs the Debian packages that Sluice's build, demo and tests need, and with the argument bench those that
# the benchmarks need too. Quick where they are there.
set -euo pipefail

declare -A package=(
  [runc]=runc [debootstrap]=debootstrap [mkfs.ext4]=e2fsprogs [e2fsck]=e2fsprogs [busybox]=busybox-static
  [qemu-img]=qemu-utils [nbdinfo]=libnbd-bin [nbdcopy]=libnbd-bin
  [ip]=iproute2 [nft]=nftables [losetup]=mount [fio]=fio [fstrim]=util-linux [gcc]=gcc [git]=git [make]=make
)
# VMs with a kernel of their own are for this architecture only.
[ "$(uname -m)" = x86_64 ] && package+=([qemu-system-x86_64]=qemu-system-x86 [lz4]=lz4)
# What only the benchmarks need: peers to measure beside, and file systems other than ext4.
[ "${1:-}" = bench ] && package+=([s3backer]=s3backer [mkfs.xfs]=xfsprogs [mkfs.btrfs]=btrfs-progs [pgbench]=postgresql)
missing=()
for tool in "${!package[@]}"; do
  command -v "$tool" >/dev/null 2>&1 || PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null 2>&1 || missing+=("${package[$tool]}")
done
if ! command -v go >/dev/null 2>&1; then
  echo "error: Go is not installed" >&2
  echo "try:   install Go $(sed -n 's/^go //p' "$(dirname "$0")/../go.mod") or newer, and put it on PATH" >&2
  exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "error: these packages are missing: ${missing[*]}" >&2
  echo "try:   sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=120 update >/dev/null
apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}" >/dev/null
