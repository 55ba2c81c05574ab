#!/usr/bin/env bash
# Installs what is missing and builds a preset: scripts/build.sh [release|debug|sanitize] [target...]
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
shift || true
scripts/install_packages.sh

# A recent cargo may be there for a user who has not put it on the PATH.
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
jobs=$(nproc)
memory_jobs=$(awk '/MemAvailable/ {print int($2 / 1500000)}' /proc/meminfo)  # a compiler may take 1.5 GB
[ "$memory_jobs" -lt "$jobs" ] && jobs=$memory_jobs
[ "$jobs" -ge 1 ] || jobs=1

cmake --preset "$preset" >"build-$preset.log" 2>&1 || { cat "build-$preset.log"; rm -f "build-$preset.log"; exit 1; }
rm -f "build-$preset.log"
if [ $# -gt 0 ]; then set -- --target "$@"; fi
cmake --build "build/$preset" --parallel "$jobs" "$@"
