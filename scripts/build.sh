#!/usr/bin/env bash
# Builds bin/sluice, and the platform's release into bin/releases/<id>, to which bin/release points.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
version=$(git describe --always --dirty 2>/dev/null || echo unknown)
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version" -o bin/sluice ./cmd/sluice
release=$(scripts/build-release.sh bin/releases)
ln -sfn "releases/$release" bin/release # the newest; running machines keep the one they were started with
ln -sfn release/usr/bin/sluice-init bin/sluice-init
