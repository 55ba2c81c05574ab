#!/usr/bin/env bash
# soak.sh [BUILD_FOLDER] [--minutes M] [--ranks N]
#
# Full load on many ranks of the built-in model on this machine, 32 for ten minutes unless told: no rank may be taken for
# lost and no answer may end otherwise than complete. Prints a line, and what went wrong. The build folder is build/release
# unless told.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/release
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  build=$1
  shift
fi
cmake --build "$build" --target cachalot soak >&2
exec "$build/bin/soak" "$@"
