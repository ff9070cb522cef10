#!/bin/sh
# Builds the platform's release: what the root namespace of every VM runs.
#
#   scripts/build-release.sh OUT_DIR [SLUICE_INIT]
#   GUEST=DIR scripts/build-release.sh …       with the kernel of qemu VMs, as made by build-guest.sh
#
# Makes OUT_DIR/<id> and prints <id>, the SHA-256 of its content: the same content gives the same id, and a
# release that is there already is left alone. SLUICE_INIT is a binary that was built before; without it
# cmd/sluice-init is built. Needs Go, and runc and e2fsprogs of this machine.
set -eu

fail() { echo "build-release: $1" >&2; exit 1; }

[ $# -ge 1 ] || fail "usage: scripts/build-release.sh OUT_DIR [SLUICE_INIT]"
mkdir -p "$1"
out=$(cd "$1" && pwd)
init=${2:-}
[ -z "${GUEST:-}" ] || GUEST=$(cd "$GUEST" && pwd)
if [ -n "$init" ]; then
	init=$(realpath "$init")
fi
cd "$(dirname "$0")/.."

stage=$(mktemp -d "$out/.stage.XXXXXX")
trap 'rm -rf "$stage"' EXIT INT TERM

mkdir -p "$stage/usr/bin" "$stage/usr/sbin"
if [ -n "$init" ]; then
	cp "$init" "$stage/usr/bin/sluice-init"
else
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$stage/usr/bin/sluice-init" ./cmd/sluice-init
fi

# add_program NAME: the program, and the shared libraries that it needs, at the same places under /usr.
add_program() {
	path=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v "$1") || fail "$1 is not installed (apt-get install runc e2fsprogs)"
	cp -L "$path" "$stage/usr/sbin/$1"
	ldd "$path" 2>/dev/null | awk '{for (i = 1; i <= NF; i++) if ($i ~ /^\//) {print $i; break}}' | while read -r lib; do
		to="$stage/usr/${lib#/}"
		to=$(echo "$to" | sed "s|$stage/usr/usr/|$stage/usr/|")
		[ -e "$to" ] && continue
		mkdir -p "$(dirname "$to")"
		cp -L "$lib" "$to"
	done
}
add_program runc
add_program mkfs.ext4
add_program e2fsck

# whoever is root in a VM is somebody else on its host
find "$stage" -type f -exec chmod a+r {} +

find "$stage" -type d -exec chmod 755 {} +
find "$stage/usr/bin" "$stage/usr/sbin" -type f -exec chmod 755 {} +
chmod 755 "$stage"

id=$(cd "$stage" && { find usr -type f | LC_ALL=C sort | xargs sha256sum; [ -z "${GUEST:-}" ] || basename "$GUEST"; } | sha256sum | cut -d' ' -f1)
if [ -n "${GUEST:-}" ]; then # its name is the hash of its content
	cp -rl "$GUEST" "$stage/boot" 2>/dev/null || { rm -rf "$stage/boot"; cp -r "$GUEST" "$stage/boot"; }
fi
if [ ! -d "$out/$id" ]; then
	mv -T "$stage" "$out/$id" 2>/dev/null || [ -d "$out/$id" ] || fail "can't put the release into $out"
fi
echo "$id"
