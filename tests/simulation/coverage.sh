#!/usr/bin/env bash
# Which lines of the state machines simulated clusters reach: builds them with gcov in a folder of its own, simulates, and
# prints the part of each file's lines that ran. Under 95 % of all of them together it ends with an error.
#   tests/simulation/coverage.sh [SEEDS] [FILE...]    SEEDS: 1000 of the short clusters; FILE: below src/, else the usual ones
set -euo pipefail
cd "$(dirname "$0")/../.."
seeds=${1:-1000}
files=("${@:2}")
[ "${#files[@]}" -gt 0 ] || files=(engine/lockstep.cc serve/leader.cc scheduler/scheduler.cc router/answer_keeper.cc
  router/answer_keeper.h router/request_course.cc router/replica_health.cc router/replica_table.cc
  openai/answer/answer_log.cc comm/membership/hub.cc comm/membership/spoke.cc)
out=${CACHALOT_COVERAGE_FOLDER:-build/coverage}
if [ ! -f "$out/build.ninja" ]; then
  mkdir -p "$out"
  # What Rust makes is not built again.
  cp -a build/release/cargo "$out/" 2>/dev/null || true
  cmake -S . -B "$out" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="--coverage -O1" >/dev/null
fi
ninja -C "$out" simulation_test >"$out/log" || { tail -20 "$out/log"; exit 1; }
find "$out" -name '*.gcda' -delete
"$out/bin/simulation_test" --seeds "$seeds"
find "$out" -name '*.gcda' -print0 | xargs -0 gcov -n -r -s "$PWD" 2>/dev/null | awk -v wanted="${files[*]}" '
  BEGIN { count = split(wanted, names, " ") }
  /^File / { file = $2; gsub("\047", "", file); sub(/^.*src\//, "", file) }
  /^Lines executed:/ {
    split($0, part, /[:%]| of /)
    ran = part[2] / 100 * part[4]
    if (!(file in lines) || ran > reached[file]) { lines[file] = part[4]; reached[file] = ran }
  }
  END {
    for (idx = 1; idx <= count; idx++) {
      name = names[idx]
      if (!(name in lines)) { printf "%-36s none of it was compiled\n", name; bad = 1; continue }
      printf "%-36s %6.1f %% of %4d lines\n", name, 100 * reached[name] / lines[name], lines[name]
      all += lines[name]; all_reached += reached[name]
    }
    if (all > 0) printf "%-36s %6.1f %% of %4d lines\n", "all", 100 * all_reached / all, all
    exit bad || all == 0 || all_reached < 0.95 * all
  }'
