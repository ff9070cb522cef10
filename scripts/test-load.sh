#!/usr/bin/env bash
# Runs the tests on a host that is far too busy: LOAD threads (default 30) burn beside each test binary, while it runs.
# With arguments, just these, as scripts/test.sh takes them. RUNS says how many times in a row (default 1).
#
# What runs in a time of its own (seeds of the simulation, inputs of the fuzzers) can't tell how busy the host is; there
# is a little of it only.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
go build -o bin/burn ./test/burn
export SLUICE_TEST_EXEC="$PWD/bin/burn -n ${LOAD:-30} -for 24h --"
# A package has as much longer as the load makes it take.
export SLUICE_TEST_TIMEOUT=${SLUICE_TEST_TIMEOUT:-4h}
export SLUICE_DISK_SEEDS=${SLUICE_DISK_SEEDS:-300} SLUICE_FUZZ_INPUTS=${SLUICE_FUZZ_INPUTS:-200}
for run in $(seq "${RUNS:-1}"); do
  echo "run $run of ${RUNS:-1}, beside a load of ${LOAD:-30}"
  scripts/test.sh "$@"
done
