#!/usr/bin/env bash
# Runs every test with the race detector, in two lanes.
#
# One lane has the packages whose tests share something of the kernel: loop devices, mounts, cgroups, namespaces, VMs.
# They need root, and run one package at a time; much of their time they wait. The other lane has all that only computes,
# and runs on what the first leaves of the processors. What the second says is kept back until the first is done.
# With arguments, flags and then packages, it runs just these. SLUICE_TEST_EXEC is a command under which each test
# binary runs (scripts/test-load.sh has one); the lanes come one after the other then.
set -euo pipefail
cd "$(dirname "$0")/.."

# internal/lint holds that a package is among these if its tests use the kernel so.
kernel=(./cmd/sluice ./internal/devfleet ./internal/disk ./internal/disk/cache ./internal/disk/frontend
  ./internal/disk/journal ./internal/hostnet ./internal/image ./internal/platform/... ./internal/runtime/...
  ./internal/worker/... ./internal/x/keyring ./test/attack/... ./test/bench/... ./test/chaos ./test/e2e ./test/torture)
# Run without the race detector, because they cost minutes and it has seen the same code elsewhere: seeded bugs, and
# cuts of an ext4's writes.
seeded='TestSeededBugsAreFound$' cuts='TestCrashCuts'

scripts/install-versitygw.sh >/dev/null
scripts/install-dex.sh >/dev/null
timeout=${SLUICE_TEST_TIMEOUT:-20m}  # of one package that shares the kernel
computes=${SLUICE_TEST_TIMEOUT:-60m} # of one that computes
export CGO_ENABLED=1
# Each process with the race detector waits for a second before it ends, for what its goroutines may still find. Ours end
# before it does; tests start hundreds of such processes.
export GORACE="atexit_sleep_ms=50 ${GORACE:-}"
under=() packages=2
if [ -n "${SLUICE_TEST_EXEC:-}" ]; then
  under=(-exec "$SLUICE_TEST_EXEC") packages=1
fi
if [ $# -gt 0 ]; then
  exec go test -race -count=1 -p 1 -timeout "$timeout" "${under[@]}" "$@"
fi

mapfile -t sharing < <(go list "${kernel[@]}")
mapfile -t computing < <(go list ./... | grep -vxF -f <(printf '%s\n' "${sharing[@]}"))
# compute: each step even where one before it failed, so that a run tells all there is.
compute() {
  local code=0
  go test -race -count=1 -p "$packages" -timeout "$computes" "${under[@]}" -skip "$seeded" "${computing[@]}" || code=1
  CGO_ENABLED=0 go test -count=1 -timeout "$computes" "${under[@]}" -run "$seeded" -v ./internal/disk/simtest | grep -v '^=== ' || code=1
  # Ten thousand lives of disks. The race detector saw some of them above.
  SLUICE_DISK_SEEDS=${SLUICE_DISK_SEEDS:-10000} CGO_ENABLED=0 go test -count=1 -timeout "$computes" "${under[@]}" -run 'TestSimulation$' -v ./internal/disk/simtest |
    grep -v '^=== ' || code=1
  # Every decoder is fuzzed for a moment; make soak does it for minutes. A number of inputs and not a time: go test may
  # take the end of a short time for a failure.
  CGO_ENABLED=0 scripts/fuzz.sh "${SLUICE_FUZZ_INPUTS:-5000}x" || code=1
  scripts/vulncheck.sh || code=1
  return $code
}

# share runs what shares the kernel.
share() {
  local code=0
  go test -race -count=1 -p 1 -timeout "$timeout" "${under[@]}" -skip "$cuts" "${sharing[@]}" || code=1
  CGO_ENABLED=0 go test -count=1 -timeout "$timeout" "${under[@]}" -run "$cuts" -v ./internal/disk | grep -v '^=== ' || code=1
  return $code
}

if [ ${#under[@]} -gt 0 ]; then
  code=0
  share || code=1
  compute || code=1
  exit $code
fi

echo "test: ${#sharing[@]} packages that share the kernel, and beside them ${#computing[@]} that compute, which report at the end" >&2
said=$(mktemp)
set -m # a process group of its own, which Ctrl-C and a failure here can end
nice -n 5 bash -c "set -uo pipefail; $(declare -p seeded computes packages under computing); $(declare -f compute); compute" </dev/null >"$said" 2>&1 &
beside=$!
set +m
trap 'trap - EXIT; kill -- "-$beside" 2>/dev/null || true; cat "$said"; rm -f "$said"' EXIT
code=0
share || code=1
wait "$beside" || code=1
exit $code
