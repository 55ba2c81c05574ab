#!/bin/sh
# Starts Cachalot as it was unpacked, where the system has what it needs.
needed=@GLIBC_NEEDED@
found=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p')
[ -n "$found" ] || found=$(ldd --version 2>/dev/null | sed -n '1s/.* \([0-9][0-9.]*\)$/\1/p')
case $(uname -m) in
  x86_64) ;;
  *) echo "cachalot: this release is for x86-64, and this machine is $(uname -m)" >&2; exit 1 ;;
esac
older() {  # A B: whether version A is older than B
  [ "${1%%.*}" -lt "${2%%.*}" ] || { [ "${1%%.*}" -eq "${2%%.*}" ] && [ "$(minor "$1")" -lt "$(minor "$2")" ]; }
}
minor() { echo "$1" | sed 's/^[0-9]*\.//; s/\..*$//; s/[^0-9].*$//'; }
if [ -z "$found" ]; then
  echo "cachalot: this release needs glibc $needed or later, and this system does not tell of any (musl has none);" \
    "use a container of Debian 12 or later (deploy/Containerfile)" >&2
  exit 1
elif older "$found" "$needed"; then
  echo "cachalot: this release needs glibc $needed or later (Debian 12, Ubuntu 22.04, RHEL 9), and this system has $found;" \
    "use a container (deploy/Containerfile), or build it here" >&2
  exit 1
fi
here=$(readlink -f -- "$0")
exec "${here%/bin/*}/libexec/cachalot" "$@"
