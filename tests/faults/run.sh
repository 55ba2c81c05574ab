#!/usr/bin/env bash
# run.sh [BUILD_FOLDER] [--trials N] [--seed S] [--slow FACTOR]
#
# N faults of each kind (30 unless told) on a served group of four ranks, under load, at random ranks and moments: killed
# and stopped on one node, and cut off between nodes, which are network namespaces where this machine allows them. Prints
# the tables of docs/operations.md. The build folder is build/release unless told.
set -euo pipefail
source "$(dirname "$0")/../namespaces/network_nodes.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/release trials=(--trials 30)
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  build=$1
  shift
fi
[[ " $* " != *" --trials "* ]] || trials=()
cmake --build "$build" --target cachalot fault_trials >&2
status=0
"$build/bin/fault_trials" "${trials[@]}" "$@" || status=$?
if ! command -v ip >/dev/null || ! may_unshare -Urnm; then
  echo "no link is cut: this machine has no \`ip\`, or allows no namespaces"
  exit $status
fi
unshare_all -Urnm "$build/bin/fault_trials" --link-down "${trials[@]}" "$@" || status=$?
exit $status
