#!/usr/bin/env bash
# run.sh [BUILD_FOLDER] [--trials N] [--seed S] [--slow FACTOR]
#
# N faults of each kind (30 unless told) on a served group of two replicas with two ranks each, under load, at random
# ranks and moments. Prints the table of docs/operations.md. The build folder is build/release unless told.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/release trials=(--trials 30)
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  build=$1
  shift
fi
[[ " $* " != *" --trials "* ]] || trials=()
cmake --build "$build" --target cachalot fault_trials >&2
exec "$build/bin/fault_trials" "${trials[@]}" "$@"
