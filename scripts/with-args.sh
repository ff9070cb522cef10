#!/usr/bin/env bash
# Runs a command with the arguments that SLUICE_ARGS holds as text, as make gives them (make bench ARGS="-run 'A|B'").
# Blanks part them, quotes and backslashes keep together as in a shell; nothing is expanded, and nothing in them is run.
set -euo pipefail
args=()
if [ -n "${SLUICE_ARGS:-}" ]; then
  split=$(mktemp)
  trap 'rm -f "$split"' EXIT
  printf '%s\n' "$SLUICE_ARGS" | xargs printf '%s\0' >"$split" || { echo "error: ARGS has a quote without its end" >&2; exit 2; }
  mapfile -t -d '' args <"$split"
  rm -f "$split"
fi
unset SLUICE_ARGS
exec "$@" "${args[@]}"
