#!/usr/bin/env bash
# The main job of Sluice, from nothing: a fleet on this machine, six machines with data, one worker drained.
# Every command is shown as it runs, so that it can be repeated by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
DEMO_DIR=${DEMO_DIR:-/var/tmp/sluice-demo}
STORE=${STORE:-file}
RUNTIME=${RUNTIME:-sandbox}
export SLUICE_DIR=$DEMO_DIR
sluice=bin/sluice
started=$SECONDS
case $RUNTIME in
  qemu|mixed) [ -e /dev/kvm ] || echo "VMs with a kernel of their own have no KVM here: everything in them is much slower." ;;
esac

bold='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
# show prints a command as it can be typed: words with blanks are quoted.
show() {
  local word line=sluice
  for word in "$@"; do
    case $word in *[[:space:]]*) word="'$word'" ;; esac
    line+=" $word"
  done
  printf '\n%s$ %s%s\n' "$bold" "$line" "$plain"
}
run() { show "$@"; "$sluice" "$@"; }
run_silently() { show "$@"; "$sluice" "$@" >/dev/null; }
say() { printf '\n%s\n' "$*"; }

if [ -e "$DEMO_DIR" ]; then
  say "A demo fleet is still there in $DEMO_DIR; removing it first."
  "$sluice" dev down --dir "$DEMO_DIR"
fi

up=(dev up --dir "$DEMO_DIR" --workers 3 --runtime "$RUNTIME")
case $STORE in
  file) ;;
  s3) scripts/install-versitygw.sh >/dev/null; up+=(--store s3 --s3-server .cache/bin/versitygw) ;;
  *) up+=(--store "$STORE") ;;
esac

say "1. A control plane and three workers, each a host of its own as far as it can tell."
run "${up[@]}"

say "2. A base image, built once. Machines are forks of it: creating one copies nothing."
run image create base --from debian --include busybox-static --size 1GiB --cache .cache/debian

say "3. Six machines in three apps over two networks, each with a small HTTP service."
i=0
for spec in shop:green shop:green blog:green blog:blue ci:blue ci:blue; do
  i=$((i + 1))
  app=${spec%%:*} network=${spec##*:}
  run_silently machine create "m$i" --app "$app" --network "$network" --image base --cpus 0.5 --memory 128 \
    --worker "w$((i % 2 + 1))" --timeout 20m \
    --service "name=web,cmd=busybox httpd -f -p 8080 -h /srv,port=8080,check=tcp"
done

say "4. Data in each: 8 MiB of random bytes, its checksum, and a page to serve."
for i in 1 2 3 4 5 6; do
  "$sluice" machine exec "m$i" -- sh -c \
    'mkdir -p /srv && head -c 8388608 /dev/urandom > /srv/data && (cd /srv && sha256sum data > data.sha256) && hostname > /srv/index.html && sync'
done
run machine list
run worker list

say "5. The drain button. Each machine stops, a pointer moves, it starts elsewhere."
run worker drain w1 --wait
run worker list

say "6. The same bytes, on another worker: checksums made before the drain, checked after it."
failed=0
for i in 1 2 3 4 5 6; do
  verdict=$("$sluice" machine exec "m$i" -- sh -c 'cd /srv && sha256sum -c data.sha256' 2>&1) || failed=1
  page=$("$sluice" machine exec "m$i" -- busybox wget -q -O - http://127.0.0.1:8080/ 2>&1) || failed=1
  where=$("$sluice" machine status "m$i" --json | sed -n 's/^ *"worker": "\(.*\)",*$/\1/p' | head -n 1)
  printf '  m%s on %-3s  %-12s  http says %s\n' "$i" "$where" "$verdict" "$page"
done
[ $failed -eq 0 ] || { echo "error: a machine lost data or its service" >&2; exit 1; }
moved=$("$sluice" machine list --json | sed -n 's/.*"name": "\(m2\)".*/\1/p' | head -n 1)
run machine status "${moved:-m2}"

cat <<EOT

The fleet is up (it took $((SECONDS - started)) s). To try next:
  export SLUICE_DIR=$DEMO_DIR PATH=$PWD/bin:\$PATH
  sluice machine exec m2 --tty -- bash        a shell in a machine
  sluice worker uncordon w1                   take w1 back into service
  sluice worker drain w2 --wait               and empty another
  sluice dev kill w3                          pull a worker's plug, and watch the failover:
  sluice machine list
  sluice machine events m2
  make demo-down DEMO_DIR=$DEMO_DIR           remove everything
EOT
