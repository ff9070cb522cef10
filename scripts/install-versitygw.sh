#!/bin/sh
# Installs the S3 server that tests and the demo run against, in .cache/bin of the repository. Does nothing
# if that version is there. Prints the path of the binary.
set -eu

version=v1.8.0
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/.cache/bin
stamp=$bin/versitygw.$version

if [ -x "$bin/versitygw" ] && [ -e "$stamp" ]; then
	echo "$bin/versitygw"
	exit 0
fi
mkdir -p "$bin"
# Two tests may find it missing at the same time; the second waits for the first.
exec 9>"$bin/versitygw.lock"
flock 9
if [ ! -x "$bin/versitygw" ] || [ ! -e "$stamp" ]; then
	echo "installing versitygw $version; this takes some minutes, once" >&2
	(cd / && CGO_ENABLED=0 GOFLAGS= GOBIN=$bin go install -trimpath -ldflags='-s -w' \
		"github.com/versity/versitygw/cmd/versitygw@$version") >&2
	touch "$stamp"
fi
echo "$bin/versitygw"
