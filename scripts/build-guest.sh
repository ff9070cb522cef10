#!/usr/bin/env bash
# Builds what a qemu VM boots: Debian's cloud kernel, and an initramfs with the modules that Sluice needs and the
# first program in the VM.
#
#   scripts/build-guest.sh OUT_DIR
#
# Makes OUT_DIR/<id> with vmlinux and initramfs, and prints <id>, the SHA-256 of the two. The kernel's package is
# downloaded once, into .cache/kernel; nothing is installed. Needs Go, lz4 and apt-get.
set -euo pipefail

modules=(virtio_pci virtio_blk virtio_net virtio_mem fuse loop nbd overlay veth tun nf_tables)

fail() { echo "build-guest: $1" >&2; exit 1; }
[ $# -eq 1 ] || fail "usage: scripts/build-guest.sh OUT_DIR"
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
cache=$PWD/.cache/kernel
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock -w 300 9 || fail "another build holds $cache"

# fetch_kernel: into $cache/<version>, complete or not at all; $cache/current points to it.
fetch_kernel() {
  local stage package
  [ "$(dpkg --print-architecture)" = amd64 ] || fail "qemu VMs are for amd64 hosts"
  command -v lz4 >/dev/null || fail "lz4 is not installed (run scripts/setup.sh)"
  stage=$(mktemp -d "$cache/.stage.XXXXXX")
  chmod 755 "$stage"
  trap 'rm -rf "$stage"' RETURN
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
  if [ -z "$package" ] && [ "$(id -u)" -eq 0 ]; then
    apt-get -q -o DPkg::Lock::Timeout=120 update >/dev/null
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
  fi
  [ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64 (run apt-get update)"
  echo "build: fetching the kernel of qemu VMs, $(apt-cache show "$package" | awk '/^Size: / { printf "%d MB", $2 / 1e6; exit }') (once)" >&2
  (cd "$stage" && apt-get -q -o DPkg::Lock::Timeout=120 -o APT::Sandbox::User=root download "$package" >/dev/null) || fail "can't download $package"
  dpkg-deb -x "$stage"/*.deb "$stage/tree"
  local image version at
  image=$(ls "$stage"/tree/boot/vmlinuz-*)
  version=${image##*/vmlinuz-}
  # The kernel proper is in its image as one LZ4 stream; booted without the unpacking, it starts a second sooner.
  at=$(LC_ALL=C grep -obUaP '\x02\x21\x4c\x18' "$image" | head -n 1 | cut -d: -f1)
  [ -n "$at" ] || fail "no LZ4 stream in $image"
  mkdir "$stage/kernel"
  tail -c +$((at + 1)) "$image" | lz4 -dc >"$stage/kernel/vmlinux" 2>/dev/null || true # what follows the stream isn't one
  [ "$(head -c 4 "$stage/kernel/vmlinux" | tail -c 3)" = ELF ] || fail "what is in $image is no kernel"
  mv "$stage/tree/lib/modules/$version/kernel" "$stage/kernel/modules"
  sha256sum <"$stage/kernel/vmlinux" >"$stage/kernel/vmlinux.sha256"
  rm -rf "${cache:?}/$version"
  mv "$stage/kernel" "$cache/$version"
  ln -sfn "$version" "$cache/current"
}
[ -e "$cache/current/vmlinux.sha256" ] || fetch_kernel

stage=$(mktemp -d "$out/.stage.XXXXXX")
trap 'rm -rf "$stage"' EXIT INT TERM
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$stage/init" ./internal/runtime/qemu/guestboot
go run ./internal/runtime/qemu/mkinitramfs -init "$stage/init" -modules "$cache/current/modules" -o "$stage/initramfs" "${modules[@]}"
rm "$stage/init"
cp -l "$cache/current/vmlinux" "$stage/vmlinux" 2>/dev/null || cp "$cache/current/vmlinux" "$stage/vmlinux"
chmod 755 "$stage"
chmod 644 "$stage"/*
id=$({ sha256sum <"$stage/initramfs"; cat "$cache/current/vmlinux.sha256"; } | sha256sum | cut -d' ' -f1)
if [ ! -d "$out/$id" ]; then
  mv -T "$stage" "$out/$id" 2>/dev/null || [ -d "$out/$id" ] || fail "can't put the guest into $out"
fi
echo "$id"
