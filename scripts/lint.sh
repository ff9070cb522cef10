#!/usr/bin/env bash
# golangci-lint (built once into .cache/bin) and the house rules.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.5.0
bin=$PWD/.cache/bin/golangci-lint
if ! [ -x "$bin" ]; then
  echo "building golangci-lint $version (some minutes, once)"
  CGO_ENABLED=0 GOBIN=$PWD/.cache/bin go install -trimpath "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
fi
"$bin" run ./...
go test -count=1 ./internal/lint
