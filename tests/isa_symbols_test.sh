#!/usr/bin/env bash
# isa_symbols_test.sh COMPILER OBJECT...
#
# The same program runs on machines of every instruction level. An inline function that is compiled into avx2/foo.o and into
# a common object is kept once, and the linker may keep the one with AVX2 instructions for all callers. So what the objects of a
# level define for others must carry the level's namespace in its name: cachalot::avx2:: or cachalot::avx512::.
set -euo pipefail
export LC_ALL=C

# Prints the functions of OBJECT, compiled for LEVEL, that the linker could take for others.
leaks() {  # LEVEL OBJECT
  # T strong, W weak, i resolved at load; data (V, u, D, R) holds no instructions.
  nm --demangle --defined-only "$2" | awk -v level="cachalot::$1::" '$2 ~ /^[TWi]$/ && !index($0, level) { $1 = ""; print }'
}

# Status 1 and a message for every object that leaks, or if a level has no object at all.
check() {  # OBJECT...
  local failed=0 object level names
  for level in avx2 avx512; do
    [[ " $*" == *"/$level/"* ]] || { echo "no object of $level was given"; failed=1; }
  done
  for object in "$@"; do
    [[ $object =~ /(avx2|avx512)/ ]] || continue
    level=${BASH_REMATCH[1]}
    names=$(leaks "$level" "$object")
    [ -z "$names" ] && continue
    echo "$object is compiled for $level and defines these outside cachalot::$level, where other code may pick them up:"
    echo "$names" | sed 's/^/   /'
    echo "  Put them into the level's namespace or an unnamed one, or have them inlined always."
    failed=1
  done
  return $failed
}

# A check that cannot fail proves nothing.
self_check() {  # COMPILER
  local folder
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' RETURN
  mkdir "$folder/avx2" "$folder/avx512"
  echo 'namespace cachalot::avx512 { inline int own(int x) { return x; } int (*keep)(int) = own; }' > "$folder/good.cc"
  echo 'namespace cachalot { inline int shared(int x) { return x; } int (*keep)(int) = shared; }' > "$folder/bad.cc"
  "$1" -c "$folder/good.cc" -o "$folder/avx512/good.o"
  "$1" -c "$folder/bad.cc" -o "$folder/avx2/bad.o"
  if check "$folder/avx2/bad.o" "$folder/avx512/good.o" > "$folder/report"; then
    echo "the self-check failed: a leaking object passed"
    return 1
  fi
  if ! grep -q 'cachalot::shared(int)' "$folder/report" || grep -q 'good.o' "$folder/report"; then
    echo "the self-check failed: it reports"
    cat "$folder/report"
    return 1
  fi
}

compiler=$1
shift
self_check "$compiler"
check "$@"
