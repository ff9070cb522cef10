# What scripts/fresh.sh takes from the machine beside files, and how it is given back. For sourcing.

# cgroups WORK: each hierarchy and the group of a run in it, below this process's own. There is none on a host with
# cgroup v2 alone: who is in a group that has controllers to give can't give them.
cgroups() {
  local line path kind super id controllers own
  while read -r line; do
    read -r _ _ _ _ path _ <<<"$line"
    read -r kind _ super <<<"${line#* - }"
    case $kind:$path in
      cgroup:/sys/fs/cgroup/*|cgroup2:/sys/fs/cgroup/*) ;;
      *) continue ;;
    esac
    while IFS=: read -r id controllers own; do
      if [ "$kind" = cgroup2 ]; then [ "$id" = 0 ] || continue; else
        [ -n "$controllers" ] && [[ ,$super, = *,$controllers,* ]] || continue
      fi
      echo "$path $path${own%/}/${1##*/}"
    done </proc/self/cgroup
  done </proc/self/mountinfo
}

# sweep WORK: removes what a run of which no process lives has left. Of its fleets, each names what it has by the
# directory it is in.
sweep() {
  local work=$1 state dir id link device inode backing group try
  while read -r state; do
    dir=${state%/dev.json}
    id=$(printf %s "${dir#"$work/root"}" | sha256sum | cut -c1-6)
    for link in /sys/class/net/slc"$id" /sys/class/net/sl"$id"w*; do
      if [ -e "$link" ]; then ip link del "${link##*/}" || true; fi
    done
  done < <(find "$work/root/tmp" "$work/root/var/tmp" -maxdepth 6 -name dev.json 2>/dev/null)
  # The kernel tells a loop device's file as a path in the root that it was opened in.
  while read -r device inode backing; do
    if [ "$(stat -c %i "$work/root$backing" 2>/dev/null)" = "$inode" ]; then losetup -d "$device" || true; fi
  done < <(losetup --list --noheadings --output NAME,BACK-INO,BACK-FILE)
  while read -r _ group; do
    for try in {1..50}; do # the kernel is slow to forget the last process of a group
      [ -d "$group" ] || break
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.2
    done
    [ ! -d "$group" ] || echo "fresh: the group $group is left: a process in it doesn't end" >&2
  done < <(cat "$work/cgroups" 2>/dev/null)
  rm -rf --one-file-system "$work"
}

# sweep_dead: sweeps after runs that were killed.
sweep_dead() {
  local work
  for work in /var/tmp/sluice-fresh.*; do
    if [ -e "$work/lock" ] && flock --nonblock "$work/lock" true; then sweep "$work"; fi
  done
}
