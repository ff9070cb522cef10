#!/usr/bin/env bash
# Installs the Debian packages that Sluice's build, demo and tests need. Says nothing where they are there.
#
#   scripts/setup.sh            what every target needs
#   scripts/setup.sh bench      and what only the benchmarks need
#   scripts/setup.sh fresh      only what make fresh needs of its host
set -euo pipefail

# A program, or a file by its path, and the package that has it. What a package of Debian's minimal base has is named
# only where tests or the product call it: internal/lint compares what they call with these tables.
declare -A base=(
  [runc]=runc [debootstrap]=debootstrap [busybox]=busybox-static [git]=git [make]=make
  [mkfs.ext4]=e2fsprogs [e2fsck]=e2fsprogs [debugfs]=e2fsprogs
  [mkfs.xfs]=xfsprogs [xfs_repair]=xfsprogs [xfs_growfs]=xfsprogs
  [qemu-img]=qemu-utils [qemu-io]=qemu-utils [nbdinfo]=libnbd-bin [nbdcopy]=libnbd-bin
  [ip]=iproute2 [nft]=nftables [losetup]=mount [mount]=mount [umount]=mount [fstrim]=util-linux [blockdev]=util-linux
  [promtool]=prometheus
  [flock]=util-linux [gcc]=gcc [/usr/include/stdlib.h]=libc6-dev # the race detector needs both
)
# VMs with a kernel of their own are for this architecture only.
[ "$(uname -m)" = x86_64 ] && base+=([qemu-system-x86_64]=qemu-system-x86 [lz4]=lz4)
# Packages of which one program is needed and nothing else: what comes with this one is a service that would start.
declare -A alone=([prometheus]=/usr/bin/promtool)
declare -A bench=( # peers to measure beside, and file systems that they use
  [fio]=fio [s3backer]=s3backer [mkfs.btrfs]=btrfs-progs [btrfs]=btrfs-progs [pgbench]=postgresql
)
declare -A fresh=([debootstrap]=debootstrap [git]=git [unshare]=util-linux [ip]=iproute2)

declare -A wanted=()
want() { local -n table=$1; local name; for name in "${!table[@]}"; do wanted[$name]=${table[$name]}; done; }
case ${1:-base} in
  base) want base ;;
  bench) want base; want bench ;;
  fresh) want fresh ;;
  *) echo "error: scripts/setup.sh knows no $1" >&2; echo "try:   scripts/setup.sh, with bench, fresh or nothing" >&2; exit 2 ;;
esac

has() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 ;;
  esac
}
declare -A missing=() # as a set: many programs are of one package
for name in "${!wanted[@]}"; do
  has "$name" || missing[${wanted[$name]}]=1
done
if ! command -v go >/dev/null 2>&1; then
  echo "error: Go is not installed" >&2
  echo "try:   install Go $(sed -n 's/^go //p' "$(dirname "$0")/../go.mod") or newer, and put it on PATH" >&2
  exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t packages < <(printf '%s\n' "${!missing[@]}" | sort)
if [ "$(id -u)" -ne 0 ]; then
  echo "error: these packages are missing: ${packages[*]}" >&2
  echo "try:   sudo apt-get install ${packages[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0)
echo "setup: asking Debian's mirror for its list of packages"
"${apt[@]}" update >/dev/null
for package in "${!alone[@]}"; do
  [ -n "${missing[$package]:-}" ] || continue
  unset "missing[$package]"
  program=${alone[$package]}
  echo "setup: taking $(basename "$program") from $package (once)"
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  (cd "$dir" && "${apt[@]}" -o APT::Sandbox::User=root download "$package" >/dev/null)
  dpkg-deb --fsys-tarfile "$dir"/*.deb | tar -x -C "$dir" ".$program"
  install -m 755 "$dir$program" /usr/local/bin/
  rm -rf "$dir"
done
[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t packages < <(printf '%s\n' "${!missing[@]}" | sort)
install=("${apt[@]}" install -y --no-install-recommends "${packages[@]}")
size=$("${install[@]}" --assume-no 2>/dev/null | sed -n 's/^Need to get \(.*\) of archives.*/, \1 to fetch/p' || true)
echo "setup: installing ${packages[*]}$size (once)"
"${install[@]}" >/dev/null
