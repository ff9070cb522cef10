#!/usr/bin/env bash
# Fuzzes every decoder of the disk and of answers from stores for a time (default 5m), or a number of inputs (5000x), each: every fuzz
# target that there is, by its own name. A package is built once for all its targets.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz/github.com/sluice-platform/sluice # where go test keeps what it finds
for pkg in $(grep -rl --include='*_test.go' '^func Fuzz' internal | xargs -n1 dirname | sort -u); do
  go test -c -fuzz . -o "$work/test" "./$pkg"
  started=$SECONDS
  for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$pkg"/*_test.go); do
    (cd "$pkg" && "$work/test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "${1:-5m}" -test.fuzzminimizetime 100x \
      -test.fuzzcachedir "$cache/$pkg")
  done
  printf 'ok  \t%s\t%ds\tfuzzed\n' "$pkg" $((SECONDS - started))
done
