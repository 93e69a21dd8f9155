#!/bin/sh
# Removes what a program left behind, whatever ended the program.
#
# The program writes to our standard input, one line each:
#   process PID   a process group was started     ended PID      it has ended
#   folder PATH   a folder or cgroup was made     removed PATH   it was removed
# The input is closed when the program ends, also by SIGKILL. Then every group that has not ended is
# killed, and every folder that was not removed is removed.

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

# Only rmdir removes a cgroup, those in it first, and only once their processes have ended: the
# kernel's files in it cannot be removed one by one.
remove_cgroup() {
  tries=100
  while [ -d "$1" ] && [ $tries -gt 0 ]; do
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$1" ] && sleep 0.05
    tries=$((tries - 1))
  done
}

printf '%s\n' "$folders" | while read -r folder; do
  case $folder in
    '') ;;
    /sys/fs/cgroup/*) remove_cgroup "$folder" ;;
    *) rm -rf "$folder" ;;
  esac
done
