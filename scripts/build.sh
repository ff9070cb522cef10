#!/usr/bin/env bash
# Builds bin/sluice and the platform's release tree bin/release (which has sluice-init in it).
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
version=$(git describe --always --dirty 2>/dev/null || echo unknown)
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version" -o bin/sluice ./cmd/sluice
scripts/build-release.sh bin/release >/dev/null
ln -sf release/usr/bin/sluice-init bin/sluice-init
