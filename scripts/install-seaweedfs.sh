#!/bin/sh
# Installs an S3 server that has an STS, in .cache/bin of the repository, for the test of sessions of a role
# (go test -run TestStoreRole ./test/e2e), which is left out without it: its build takes longer than all tests may add.
# Does nothing if that version is there. Prints the path of the binary.
set -eu

version=v0.0.0-20261109003541-7506e5f91cd6
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/.cache/bin
stamp=$bin/weed.$version

if [ -x "$bin/weed" ] && [ -e "$stamp" ]; then
	echo "$bin/weed"
	exit 0
fi
mkdir -p "$bin"
exec 9>"$bin/weed.lock"
flock 9
if [ ! -x "$bin/weed" ] || [ ! -e "$stamp" ]; then
	echo "installing seaweedfs $version; this takes ten minutes and more, once" >&2
	# its module replaces another one, which go install refuses: it is built from a module beside it
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	cd "$dir"
	export GOFLAGS= CGO_ENABLED=0
	go mod init install >&2
	go get -tool "github.com/seaweedfs/seaweedfs/weed@$version" >&2
	go build -trimpath -ldflags='-s -w' -o "$bin/weed" github.com/seaweedfs/seaweedfs/weed >&2
	touch "$stamp"
fi
echo "$bin/weed"
