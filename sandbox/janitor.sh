#!/bin/sh
# Ends what a program left behind, however the program itself ended.
#
# The program holds the other end of our input and tells, one line each:
#   process PID   a process group it started      ended PID      it is gone
#   folder PATH   a folder or cgroup it made      removed PATH   it is gone
# Input ends when the program ends, also by SIGKILL. Then every group still known is killed,
# and every folder still known is removed.

groups=' '
folders=''

while read -r what which; do
  case $what in
    process) groups="$groups$which " ;;
    ended) groups="${groups%% "$which" *} ${groups#* "$which" }" ;;
    folder) folders=$(printf '%s\n' "$folders" "$which") ;;
    removed) folders=$(printf '%s\n' "$folders" | grep -vxF -e "$which") ;;
  esac
done

alive() {
  for group in $groups; do kill -0 "-$group" 2>/dev/null && return 0; done
  return 1
}

for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
tries=40
while alive && [ $tries -gt 0 ]; do
  sleep 0.05
  tries=$((tries - 1))
done

printf '%s\n' "$folders" | while read -r folder; do
  # A cgroup goes by rmdir only: the kernel's files in it cannot be removed one by one.
  [ -n "$folder" ] && { rmdir "$folder" 2>/dev/null || rm -rf "$folder"; }
done
