#!/usr/bin/env bash
# Fuzzes every decoder of the disk and of answers from stores for a time (default 5m), or a number of inputs (5000x), each: every fuzz target that there is, by its own name.
set -euo pipefail
cd "$(dirname "$0")/.."
for pkg in $(grep -rl --include='*_test.go' '^func Fuzz' internal/disk internal/blob | xargs -n1 dirname | sort -u); do
  for target in $(go test -list '^Fuzz' "./$pkg" | grep '^Fuzz'); do
    go test -run '^$' -fuzz "^$target\$" -fuzztime "${1:-5m}" -fuzzminimizetime 100x "./$pkg"
  done
done
