#!/usr/bin/env bash
# run.sh BUILD SECONDS [TARGET...]
#
# Fuzzes each target (or those named) for so many seconds, as many at once as there are cores, under AddressSanitizer and
# UndefinedBehaviorSanitizer. What it learned stays in BUILD/fuzz/TARGET and is gone on from the next time; an input that
# ends the program, takes 20 s or 2 GB is written beside it, and its path and the way to run it again are printed.
set -euo pipefail
build=$1 seconds=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
seeds=$here/seeds dictionary=$here/dictionary
[ $# -gt 0 ] || set -- $(ls "$seeds")
# Little of what is freed is kept, so that growth shows.
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:quarantine_size_mb=16
export UBSAN_OPTIONS=print_stacktrace=1
export UCX_MEM_MMAP_HOOK_MODE=none  # its hooks crash under clang's AddressSanitizer, before main()

fuzz() {  # TARGET
  local target=$1 folder=$build/fuzz/$1
  mkdir -p "$folder/corpus"
  if "$build/bin/cachalot_fuzz" --target="$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
    -dict="$dictionary" -artifact_prefix="$folder/" -print_final_stats=1 "$folder/corpus" "$seeds/$target" >"$folder/log" 2>&1; then
    awk -v target="$target" -v seconds="$seconds" '
      /^stat::number_of_executed_units/ {units = $2} /^stat::peak_rss_mb/ {rss = $2} / cov: / {coverage = $4}
      match($0, /rss: [0-9]+/) && !first {first = substr($0, RSTART + 5, RLENGTH - 5)}
      END {printf "%-18s %9d inputs in %d s, %d edges, %d MB at first, %d at most: nothing found\n",
        target, units, seconds, coverage, first, rss}
    ' "$folder/log"
  else
    grep -m1 -E 'ERROR|SUMMARY|CHECK|deadly' "$folder/log" || tail -n 3 "$folder/log"
    echo "$target FAILED: UCX_MEM_MMAP_HOOK_MODE=none $build/bin/cachalot_fuzz --target=$target $(ls -t "$folder" | grep -m1 -E '^(crash|timeout|oom|leak)-' |
      sed "s,^,$folder/,")    (log: $folder/log)"
    return 1
  fi
}
export -f fuzz
export build seconds seeds dictionary
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}' || { echo "Something was found."; exit 1; }
