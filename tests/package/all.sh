#!/usr/bin/env bash
# all.sh BUILD [ROOTS]: every form of a release of the program in the folder BUILD, read and tried: the archive and the package on
# bare Debian 12 and 13, and a container's image. Takes minutes, root, debootstrap, and the network for the first time; the root
# file systems stay in ROOTS. Fails at what cannot be tried as well.
set -euo pipefail
build=$(realpath "$1")
roots=${2:-$build/roots}
here=$(realpath "$(dirname "$0")")
source=$(realpath "$here/../..")
mkdir -p "$roots"

"$source/scripts/image_root.sh" "$roots/image"
"$source/package.sh" --build "$build" --out "$build/package" --deb --image "$roots/image"
for part in archive deb manual completion; do python3 "$here/release_test.py" "$build/package" "$part"; done
for suite in bookworm trixie; do "$here/run.sh" "$build/package" "$suite" "$roots/$suite"; done
images=("$build"/package/cachalot-*-image.tar)
python3 "$here/image_test.py" "${images[@]}"
echo "Not tried: Ubuntu, Fedora, RHEL and its rebuilds, openSUSE, Arch; by its symbols it starts on those with glibc 2.34 or later."
