#!/usr/bin/env bash
# Long runs of what `make test` runs briefly.
set -euo pipefail
cd "$(dirname "$0")/.."
SLUICE_TORTURE=${SLUICE_TORTURE:-30m} SLUICE_SIM_SEEDS=${SLUICE_SIM_SEEDS:-20000} SLUICE_CHAOS_ROUNDS=${SLUICE_CHAOS_ROUNDS:-200} \
  CGO_ENABLED=1 go test -race -count=1 -p 1 -timeout 6h -tags soak,qemu "$@" ./internal/disk/... ./internal/runtime/... ./test/...
# 2,400 cuts of an ext4's writes, each checked by e2fsck.
SLUICE_DISK_CUTS=${SLUICE_DISK_CUTS:-2400} go test -count=1 -timeout 2h -run 'TestCrashCuts$' -v ./internal/disk
# The models at their larger bounds; 40,000 seeds are 1.2 million steps.
SLUICE_MODEL_FULL=1 go test -count=1 -timeout 1h -v ./internal/disk/model
SLUICE_DISK_SEEDS=${SLUICE_DISK_SEEDS:-40000} go test -count=1 -timeout 3h -run 'TestSimulation$' -v ./internal/disk/simtest
# Lives of a disk of mode bounded, its journal kept, damaged or lost.
SLUICE_DISK_SEEDS=${SLUICE_BOUNDED_SEEDS:-4000} go test -count=1 -timeout 2h -run 'TestBounded' ./internal/disk
scripts/fuzz.sh "${SLUICE_FUZZ_TIME:-5m}"
