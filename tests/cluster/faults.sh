#!/usr/bin/env bash
# faults.sh [BUILD_FOLDER] [--trials N] [--kind kill|stop|link] [--seed S]
#
# Faults on a cluster that `cachalot up` watches over, under load, at random moments: N of each kind (12 unless told), and
# a table of what came of them. kill and stop hit a random rank of 2 x 2 on this machine. link takes the network from a
# random one of two nodes for five seconds: network namespaces joined by a bridge, each with an sshd of its own, through
# which the servers are started; for that, root, `ip` and `sshd` are needed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$root/build/release kinds=(kill stop link) trials=12 seed=1
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  build=$1
  shift
fi
while [ $# -gt 0 ]; do
  case "$1" in
    --trials) trials=$2 ;;
    --kind) kinds=("$2") ;;
    --seed) seed=$2 ;;
    *) echo "faults.sh: $1 is not an option" >&2; exit 2 ;;
  esac
  shift 2
done
cmake --build "$build" --target cachalot up_faults >&2
build=$(realpath "$build")

failed=0
for kind in "${kinds[@]}"; do
  if [ "$kind" != link ]; then
    "$build/bin/up_faults" --kind "$kind" --trials "$trials" --seed "$seed" || failed=1
  else
    "$here/in_namespaces.sh" ssh "$build/bin/cachalot" "$root/models/nano" 2 \
      "$build/bin/up_faults" --kind link --trials "$trials" --seed "$seed" || failed=1
  fi
done
exit $failed
