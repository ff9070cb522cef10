#!/usr/bin/env bash
# The benchmarks. Each measures us beside a peer, or beside its other half, in the same run, and prints
# the ratio. None fails on a time. Arguments go to go test: -run picks some of them.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh bench
scripts/install-versitygw.sh >/dev/null
CGO_ENABLED=0 go test -count=1 -timeout 60m -v -tags bench "$@" ./test/bench/...
