#!/usr/bin/env bash
# Puts each of the bugs of bugs/*.patch into a copy of the sources, and simulates until it is found. One that is not found
# within the seeds ends it with an error.
#   tests/simulation/bugs.sh [SEEDS] [NAME...]    SEEDS: 1000 of the short clusters; NAME: of bugs/NAME.patch, else all
# Those of bugs/agents_*.patch are looked for by the groups of agents alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
seeds=${1:-1000}
names=("${@:2}")
[ "${#names[@]}" -gt 0 ] || mapfile -t names < <(basename -s .patch -a tests/simulation/bugs/*.patch)
copy=$PWD/build/bugs
mkdir -p "$copy/source/build"
# Only what differs, so that little is compiled again.
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
  cmp -s "$file" "$copy/source/$file" || { [ ! -f "$file" ] || install -D "$file" "$copy/source/$file"; }
done
(cd "$copy/source" && find src tests third_party -type f -print0 2>/dev/null) | while IFS= read -r -d '' file; do
  [ -f "$file" ] || rm "$copy/source/$file"
done
# What Rust makes is not built again.
[ -d "$copy/source/build/release/cargo" ] || { mkdir -p "$copy/source/build/release"
  cp -a build/release/cargo "$copy/source/build/release/" 2>/dev/null || true; }
cd "$copy/source"
[ -f build/release/build.ninja ] || cmake --preset release >/dev/null
failed=0
program_of() { case $1 in agents_*) echo agents_simulation_test ;; *) echo simulation_test ;; esac }
# Found is what the sources do not do as they are.
for program in $(for name in "${names[@]}"; do program_of "$name"; done | sort -u); do
  ninja -C build/release "$program" >build/log || { tail -20 build/log; exit 1; }
  build/release/bin/"$program" --seeds "$seeds" >build/found || { cat build/found; exit 1; }
done
for name in "${names[@]}"; do
  patch -s -p1 <"tests/simulation/bugs/$name.patch"
  program=$(program_of "$name")
  ninja -C build/release "$program" >build/log || { tail -20 build/log; exit 1; }
  build/release/bin/"$program" --seeds "$seeds" >build/found 2>&1 || true
  # A CHECK that does not hold tells its seed alone.
  if grep -qE '^seed [0-9]+(: |$)' build/found; then
    echo "$name: $(grep -m1 -E 'VIOLATION|CHECK|Assertion' build/found), $(grep -m1 -o '^seed [0-9]*' build/found)"
  else
    echo "$name: NOT FOUND in $seeds clusters"
    failed=1
  fi
  patch -s -R -p1 <"tests/simulation/bugs/$name.patch"
done
exit $failed
