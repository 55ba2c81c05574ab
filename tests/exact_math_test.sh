#!/usr/bin/env bash
# exact_math_test.sh OBJECT...
#
# Ranks on different machines must compute the same bits. The C library's log, pow, sin, exp, ... have variants by CPU and by
# version, so that what computes a step, tables and draws included, uses base/math.h and kernels/cores.h instead: no object
# of it refers to the mathematical library, but for the functions whose result the standard fixes to the bit.
set -euo pipefail
export LC_ALL=C

exact='(fmaf?|sqrtf?|fabsf?|copysignf?|frexpf?|ldexpf?|scalbnf?|scalblnf?|logbf?|ilogbf?|modff?|fmodf?|remainderf?|nextafterf?|floorf?|ceilf?|truncf?|roundf?|roundevenf?|rintf?|nearbyintf?|lrintf?|llrintf?|lroundf?|llroundf?|fminf?|fmaxf?|fdimf?)'

# "OBJECT: SYMBOL" for what the objects want of the library's functions, given by name on standard input.
wanted() {  # OBJECT...
  local names object
  names=$(mktemp)
  cat > "$names"
  for object in "$@"; do
    nm --undefined-only --format=posix "$object" | cut -d' ' -f1 | { grep -xF -f "$names" || true; } | sed "s,^,$object: ,"
  done
  rm "$names"
}

# All functions of the libraries of mathematics, without the exact ones.
inexact() {
  local library
  for library in libm.so.6 libmvec.so.1; do
    library=$("$compiler" -print-file-name="$library")
    [ -e "$library" ] || continue
    nm --dynamic --defined-only --format=posix "$library" | awk '$2 ~ /^[TWi]$/ { sub(/@.*/, "", $1); print $1 }'
  done | grep -vE "^(__)?$exact(_finite)?$" | sort -u
}

compiler=$1
shift
inexact > "${names:=$(mktemp)}"
grep -qx pow "$names" && grep -qx expf "$names" && ! grep -qx fmaf "$names" || { echo "not the list of a library of mathematics"; exit 1; }

# A check that cannot fail proves nothing.
folder=$(mktemp -d)
trap 'rm -rf "$folder" "$names"' EXIT
echo 'double pow(double, double); double bad(double x) { return pow(x, 0.3); }' > "$folder/bad.c"
echo 'float fmaf(float, float, float); float good(float x) { return fmaf(x, x, x); }' > "$folder/good.c"
for name in bad good; do "$compiler" -O0 -x c -c "$folder/$name.c" -o "$folder/$name.o"; done
[ "$(wanted "$folder/bad.o" "$folder/good.o" < "$names")" = "$folder/bad.o: pow" ] || { echo "the self-check failed"; exit 1; }

[ $# -gt 15 ] || { echo "only $# objects were given"; exit 1; }
found=$(wanted "$@" < "$names")
[ -z "$found" ] && exit 0
echo "these give other bits on other machines; base/math.h and kernels/cores.h have the same everywhere:"
echo "$found"
exit 1
