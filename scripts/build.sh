#!/usr/bin/env bash
# Installs what is missing and builds a preset:
#   scripts/build.sh [release|debug|sanitize] [target...]
#   scripts/build.sh --configure release      without building
set -euo pipefail
cd "$(dirname "$0")/.."

build=1
[ "${1:-}" != --configure ] || { build=0; shift; }
preset=${1:-release}
shift || true

# A recent cargo may be there for a user who has not put it on the PATH.
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
scripts/install_packages.sh
jobs=$(nproc)
memory_jobs=$(awk '/MemAvailable/ {print int($2 / 1500000)}' /proc/meminfo)  # a compiler may take 1.5 GB
[ "$memory_jobs" -lt "$jobs" ] && jobs=$memory_jobs
[ "$jobs" -ge 1 ] || jobs=1

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
[ $build -eq 1 ] || exit 0
if [ $# -gt 0 ]; then set -- --target "$@"; fi
cmake --build "build/$preset" --parallel "$jobs" "$@"
