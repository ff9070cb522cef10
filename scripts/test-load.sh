#!/usr/bin/env bash
# Runs the tests on a host that is far too busy: LOAD threads (default 30) burn beside them. With arguments, just these,
# as scripts/test.sh takes them. RUNS says how many times in a row (default 1).
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
go build -o bin/burn ./test/burn
# A package has as much longer as the load makes it take.
export SLUICE_TEST_TIMEOUT=${SLUICE_TEST_TIMEOUT:-4h}
for run in $(seq "${RUNS:-1}"); do
  echo "run $run of ${RUNS:-1}, beside a load of ${LOAD:-30}"
  bin/burn -n "${LOAD:-30}" -for 24h -- scripts/test.sh "$@"
done
