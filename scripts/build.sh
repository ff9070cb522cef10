#!/usr/bin/env bash
# Builds bin/sluice, and the platform's release into bin/releases/<id>, to which bin/release points. Where the kernel of
# qemu VMs can't be had, the release is for sandbox VMs only, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
version=$(git describe --always --dirty 2>/dev/null || echo unknown)
[ -x bin/sluice ] || echo "build: compiling bin/sluice and all it is made of; the first time, that takes longest" >&2
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version" -o bin/sluice ./cmd/sluice
guest=
if [ "$(uname -m)" = x86_64 ] && id=$(scripts/build-guest.sh bin/guests); then
  guest=bin/guests/$id
else
  echo "note: this release has no kernel: its VMs run under the sandbox runtime only" >&2
fi
[ -e bin/release ] || echo "build: putting together the platform's release" >&2
release=$(GUEST=$guest scripts/build-release.sh bin/releases)
ln -sfn "releases/$release" bin/release # the newest; running machines keep the one they were started with
ln -sfn release/usr/bin/sluice-init bin/sluice-init
