#!/usr/bin/env bash
# Runs every test with the race detector. Packages run one at a time: many use the kernel's shared
# resources (loop devices, cgroups), and a machine with two cores gains nothing from more. With arguments, flags and then
# packages, it runs just these.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-versitygw.sh >/dev/null
timeout=${SLUICE_TEST_TIMEOUT:-20m} # of one package
# Without it, because it costs minutes and has seen the same code elsewhere: seeded bugs, and cuts of an ext4's writes.
slow='TestSeededBugsAreFound$|TestCrashCuts'
if [ $# -gt 0 ]; then
  CGO_ENABLED=1 exec go test -race -count=1 -p 1 -timeout "$timeout" "$@"
fi
CGO_ENABLED=1 go test -race -count=1 -p 1 -timeout "$timeout" -skip "$slow" ./...
go test -count=1 -timeout "$timeout" -run "$slow" -v ./internal/disk ./internal/disk/simtest | grep -v '^=== '
# Ten thousand lives of disks. The race detector saw some of them above.
SLUICE_DISK_SEEDS=${SLUICE_DISK_SEEDS:-10000} go test -count=1 -timeout "$timeout" -run 'TestSimulation$' -v ./internal/disk/simtest | grep -v '^=== '
# Every decoder is fuzzed for a moment; make soak does it for minutes. A number of inputs and not a time: go test may
# take the end of a short time for a failure.
scripts/fuzz.sh 5000x
