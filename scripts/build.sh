#!/usr/bin/env bash
# Installs what is missing and builds a preset:
#   scripts/build.sh [release|debug|sanitize|tsan|fuzz] [target...]
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

# One line that says how far the build is: on a terminal always the same one, else one each half minute.
NINJA_STATUS='@%f/%t/%e@' cmake --build "build/$preset" --parallel "$jobs" "$@" 2>&1 |
  awk -v terminal="$([ -t 1 ] && echo 1)" '
    function clock(seconds) { return sprintf("%d:%02d", seconds / 60, seconds % 60) }
    !/^@[0-9]+\/[0-9]+\/[0-9.]+@/ { if (wrote) printf "\n"; wrote = 0; if ($0 !~ /^ninja: no work/) print; next }
    {
      split($0, part, /[@\/]/)
      if (part[3] < 8 || part[4] < 10 || (!terminal && part[4] < next_line)) next
      next_line = part[4] + 30
      line = sprintf("building: %d of %d, %s gone, about %s to go", part[2], part[3], clock(part[4]),
                     clock(part[4] * (part[3] - part[2]) / (part[2] ? part[2] : 1)))
      if (terminal) { printf "\r%-70s", line; wrote = 1 } else print line
      fflush()
    }
    END { if (wrote) printf "\n" }'
