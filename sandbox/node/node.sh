#!/bin/sh
# The first process of the node, in mount and PID namespaces of its own: when it ends, every process
# and mount of the node ends.
# Arguments: the folder of the node, and the command line of the kubelet.
set -eu
folder=$1
shift
# Volumes and containers see later mounts of the node. The mounts of the machine do not change.
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
# The kubelet finds the kernel settings that it wants, so it does not change those of the machine.
(cd "$folder/sysctl" && find . -type f) | while read -r setting; do
  mount --bind "$folder/sysctl/$setting" "/proc/sys/$setting"
done
containerd --config "$folder/containerd.toml" &
export CONTAINERD_ADDRESS="$folder/containerd.sock"
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$folder"/images/*.tar; do
  ctr --namespace k8s.io images import --local "$image"
done
"$@" &
wait $!
