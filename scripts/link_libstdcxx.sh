#!/usr/bin/env bash
# link_libstdcxx.sh OUT: Debian's libstdc++.so.6 out of the objects that its shared library is made of (libstdc++-N-pic), for
# older systems: the one function that they take of glibc 2.36, arc4random, comes with it; and what newer releases of libgcc_s
# alone have is linked from libgcc.a. Left out are symbols of GCC 3 and 4 that only programs of those days ask for.
set -euo pipefail
out=$1
version=$(gcc -dumpversion)
objects=$(gcc -print-file-name=libstdc++_pic.a)
[ -f "$objects" ] || { echo "link_libstdcxx.sh: libstdc++-$version-pic is not installed" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/random.c" <<'SOURCE'
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
// std::random_device asks for it. The kernel's numbers, as those of glibc's own.
__attribute__((visibility("hidden"))) uint32_t arc4random(void) {
  uint32_t number;
  if (getentropy(&number, sizeof number) != 0) abort();
  return number;
}
SOURCE
gcc -O2 -fPIC -c "$folder/random.c" -o "$folder/random.o"
gcc -shared -nodefaultlibs -Wl,-soname,libstdc++.so.6 -Wl,--version-script="${objects%.a}.map" -Wl,-z,relro,-z,now,-z,defs \
  -Wl,--build-id=sha1 -o "$out" -Wl,--whole-archive "$objects" -Wl,--no-whole-archive "$folder/random.o" \
  -l:libstdc++.a -lm -lgcc -lgcc_s -lc -l:ld-linux-x86-64.so.2
strip --strip-unneeded "$out"
