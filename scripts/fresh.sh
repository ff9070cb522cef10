#!/usr/bin/env bash
# Runs the README's commands where there is nothing but what the README names: a clone of this repository in an empty
# root of this machine's Debian, with make, Go and root. What a command needs and doesn't install, it doesn't find.
#
#   scripts/fresh.sh                    the README's commands, and make demo-down after make demo
#   scripts/fresh.sh 'make build' …     these instead
#
# The root is made anew for each run, and has namespaces of its own for mounts, processes and cgroups: they end with the
# run, however it ends. Only the network is the machine's, because the kernel serves NBD nowhere else.
# Kept between runs, in ${XDG_CACHE_HOME:-~/.cache}/sluice/fresh: an archive of the empty root, Debian's packages, and
# what Go has compiled there. None can hide that something is missing: apt and Go check what they are given, and what
# was compiled is forgotten when the list of packages changes. Go's module cache is this machine's, read and added to:
# go.sum says what must be in it, and to fetch hundreds of modules again would test their servers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
say() { echo "fresh: $*" >&2; }
fail() { echo "error: $1" >&2; echo "try:   $2" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || fail "an empty root is for root alone to make" "sudo make fresh"
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -e /etc/debian_version ] && [ -n "$suite" ] || fail "make fresh makes an empty Debian of the host's suite, and this host is none" "run it on Debian"
"$here/setup.sh" fresh
. "$here/fresh-sweep.sh"

commands=("$@")
if [ $# -eq 0 ]; then
  while read -r command; do
    commands+=("$command")
    [ "$command" != 'make demo' ] || commands+=('make demo-down')
  done < <(sed -n '/^## Two commands/,/^## /s/^\(make [a-z-]*\).*/\1/p' README.md)
  [ ${#commands[@]} -ge 3 ] || fail "the README's two commands weren't found in it" "look at README.md, Two commands"
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/fresh
mkdir -p "$cache/apt/partial"
compiled=$cache/compiled-$({ go version; cat scripts/setup.sh; echo "$suite"; } | sha256sum | cut -c1-12)
mkdir -p "$compiled"
find "$cache" -maxdepth 1 -name 'compiled-*' ! -path "$compiled" -mtime +7 -exec rm -rf {} +

# sources: the lines of apt's sources that are Debian's own.
sources() {
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v s="$suite" '$3 == s || $3 == s "-updates" || $3 == s "-security" || $3 == s "/updates"' | sort -u
}

# base: the archive of an empty root, not older than a week.
base() {
  local archive=$cache/debian-$suite.tar mirror stage
  if [ -z "$(find "$archive" -mtime -7 2>/dev/null)" ]; then
    mirror=$(sources | awk -v s="$suite" '$3 == s { print $2; exit }')
    [ -n "$mirror" ] || fail "apt has no source for $suite" "look at /etc/apt/sources.list.d"
    say "making an empty Debian $suite, kept for a week (a minute or two)"
    stage=$(mktemp -d "$cache/.stage.XXXXXX")
    if ! unshare --mount debootstrap --variant=minbase --include=make,ca-certificates "$suite" "$stage/root" "$mirror" >"$stage/log" 2>&1; then
      tail -n 20 "$stage/log" >&2
      rm -rf --one-file-system "$stage"
      fail "debootstrap made no empty Debian" "look at what it says above"
    fi
    rm -f "$stage"/root/var/cache/apt/archives/*.deb
    tar -C "$stage/root" --numeric-owner --xattrs -cf "$archive.new" .
    mv "$archive.new" "$archive"
    rm -rf --one-file-system "$stage"
  fi
  tar -C "$1" --numeric-owner --xattrs -xf "$archive"
}

# configure: how this machine reaches the network, and nothing else of it.
configure() {
  rm -rf "$1"/etc/apt/sources.list.d/*
  sources >"$1/etc/apt/sources.list"
  apt-config dump | grep -E '^Acquire::(https?::|Check-|Retries|ForceIPv)' >"$1/etc/apt/apt.conf.d/90host" || true
  echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/fresh" # nobody needs this root after a crash
  cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
  if [ -e /etc/ssl/certs/ca-certificates.crt ]; then cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"; fi
}

sweep_dead
work=$(mktemp -d /var/tmp/sluice-fresh.XXXXXX)
exec 8>"$work/lock"
flock 8
inside='' # the process that holds all others, while there is one
finish() {
  local code=$?
  trap - EXIT
  trap '' INT TERM HUP
  if [ -n "$inside" ]; then
    say "ending what runs in the empty root"
    # Its first process: unshare, which waits for it, ends once the kernel has ended all others. Ended itself, it wouldn't.
    for first in $(cat "/proc/$inside/task/$inside/children" 2>/dev/null) "$inside"; do
      kill -KILL "$first" 2>/dev/null || true
      wait "$inside" 2>/dev/null || true
    done
  fi
  sweep "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

[ -z "$(git status --porcelain 2>/dev/null)" ] || say "a clone has what was committed; what was not isn't run"
mkdir "$work/root"
base "$work/root"
configure "$work/root"
git -c advice.detachedHead=false clone --quiet . "$work/root/root/sluice"
printf '%s\n' "${commands[@]}" >"$work/root/root/commands"

environment=(PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
  "TERM=${TERM:-dumb}" "DEMO_DIR=/var/tmp/demo-${work##*.}") # another demo on this machine has other names than this
for name in $(compgen -e | grep -E '^SLUICE_|^([a-z]+_proxy|[A-Z]+_PROXY)$'); do environment+=("$name=${!name}"); done
for name in GOPROXY GONOPROXY GOPRIVATE GOSUMDB GONOSUMDB GOINSECURE GOVCS GOFLAGS GOTOOLCHAIN; do
  environment+=("$name=$(go env "$name")")
done
cgroups "$work" >"$work/cgroups"
modules=$(go env GOMODCACHE)
mkdir -p "$modules"

enter_cgroups() {
  local group file
  while read -r _ group; do
    mkdir -p "$group"
    # A group of the cpuset controller holds nobody before it was told on which processors.
    for file in cpuset.cpus cpuset.mems; do
      if [ -e "$group/$file" ]; then cat "${group%/*}/$file" >"$group/$file"; fi
    done
    echo "$BASHPID" >"$group/cgroup.procs"
  done <"$work/cgroups"
}
say "${#commands[@]} commands in an empty root, $work/root"
set -m # a group of its own: an interrupt is for this script, which ends the rest
(
  enter_cgroups
  space=(--mount --propagation private --pid --fork --kill-child)
  [ ! -s "$work/cgroups" ] || space+=(--cgroup)
  exec 8>&-
  exec setpriv --pdeathsig KILL unshare "${space[@]}" "$here/fresh-root.sh" "$work/root" "$(go env GOROOT)" "$modules" \
    "$compiled" "$cache/apt" "${environment[@]}"
) </dev/null &
inside=$!
set +m
code=0
wait "$inside" || code=$?
inside=''
exit "$code"
