#!/bin/sh
# Installs the OpenID Connect issuer that tests sign in at, in .cache/bin of the repository. Does nothing if that
# version is there. Prints the path of the binary.
set -eu

version=v0.0.0-20240807174518-43956db7fd75 # 2.41.1, whose tags Go doesn't take for versions of its module
api=v2.2.0
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/.cache/bin
stamp=$bin/dex.$version

if [ -x "$bin/dex" ] && [ -e "$stamp" ]; then
	echo "$bin/dex"
	exit 0
fi
mkdir -p "$bin"
# Two tests may find it missing at the same time; the second waits for the first.
exec 9>"$bin/dex.lock"
flock 9
if [ ! -x "$bin/dex" ] || [ ! -e "$stamp" ]; then
	echo "installing dex $version; this takes some minutes, once" >&2
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	# Its go.mod replaces a module of its own, with which go install takes nothing: so it is built as a dependency.
	# One of its stores is in C; how fast that is doesn't matter.
	printf 'module dex\ngo 1.23\nrequire (\ngithub.com/dexidp/dex %s\ngithub.com/dexidp/dex/api/v2 %s\n)\n' \
		"$version" "$api" >"$dir/go.mod"
	(cd "$dir" && CGO_ENABLED=1 CGO_CFLAGS=-O0 GOFLAGS=-mod=mod GOWORK=off go build -buildvcs=false -trimpath -ldflags='-s -w' \
		-o "$bin/" github.com/dexidp/dex/cmd/dex) >&2
	touch "$stamp"
fi
echo "$bin/dex"
