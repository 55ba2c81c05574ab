#!/usr/bin/env bash
# Makes a release: a tarball with the program, the libraries that it needs beyond glibc, the built-in model, documents, deploy/,
# examples/ and licences. It runs on any x86-64 Linux with a glibc as new as the one it names, without a network.
#   ./package.sh                      builds, and writes build/package/cachalot-VERSION-linux-x86_64.tar.gz
#   ./package.sh --build FOLDER       takes the program that is built there
#   ./package.sh --out FOLDER         writes there
set -euo pipefail
cd "$(dirname "$0")"

build= out=build/package
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --help | -h) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "package.sh: $1 is not an option; see ./package.sh --help" >&2; exit 2 ;;
  esac
done
if [ -z "$build" ]; then
  scripts/build.sh release cachalot
  build=build/release
fi
[ -x "$build/bin/cachalot" ] || { echo "package.sh: $build/bin/cachalot is not there; build it first" >&2; exit 1; }

version=$(sed -n 's/^project(cachalot VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
name=cachalot-$version-linux-x86_64
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/$name
mkdir -p "$root"/{bin,lib/ucx,libexec,licences}

# ---- the program and its libraries ----

# glibc's own parts come from where it runs: they must fit its kernel, name services and loader.
glibc='^(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil|libanl|libmvec|libnss_[a-z]+)\.so'
# RDMA's user side belongs to the host's drivers. Where a host has none, UCX goes without its RDMA modules.
rdma='^(libibverbs|librdmacm|libmlx[45]|libefa|libnl(-route)?-3)\.so'

needed_by() {  # FILE: "soname path" of what it needs, and what that needs
  ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | grep -vE "$glibc" | grep -vE "$rdma" || true
}

DESTDIR="" cmake --install "$build" --prefix "$stage/installed" --component cachalot >/dev/null
mv "$stage/installed/libexec/cachalot" "$root/libexec/cachalot"
strip --strip-unneeded "$root/libexec/cachalot"
ucs=$(ldd "$build/bin/cachalot" | awk '$1 ~ /^libucs\.so/ {print $3}')
modules=("$(dirname "$ucs")"/ucx/libuct_*.so.0)
bundled=()  # where the files come from
while read -r soname path; do
  cp -L "$path" "$root/lib/$soname"
  bundled+=("$path")
done < <({ needed_by "$build/bin/cachalot"; for module in "${modules[@]}"; do needed_by "$module"; done; } | grep -v ' .*/ucx/' | sort -u)
# UCX looks for its modules in the folder ucx beside libucs.
for module in "${modules[@]}"; do
  cp -L "$module" "$root/lib/ucx/"
  bundled+=("$module")
done
chmod 644 "$root"/lib/*.so* "$root"/lib/ucx/*.so.0

# ---- what it needs of the system ----

glibc_needed=$(objdump -T "$root/libexec/cachalot" "$root"/lib/*.so* "$root"/lib/ucx/*.so.0 |
  grep -o 'GLIBC_2\.[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -n 1)
sed "s/@GLIBC_NEEDED@/$glibc_needed/" scripts/start_packaged.sh >"$root/bin/cachalot"
chmod 755 "$root/bin/cachalot"

# ---- the rest ----

mapfile -t files < <(git ls-tree --name-only HEAD models docs deploy examples demo.sh README.md CHANGELOG.md LICENSE)
git archive HEAD "${files[@]}" | tar -x -C "$root"
rm -rf "$root/models/nano/training" "$root/models/nano/train.sh"
scripts/collect_licences.sh "$root/licences" "${bundled[@]}"

mkdir -p "$out"
tarball=$out/$name.tar.gz
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -cf - "$name" |
  gzip -n -9 >"$tarball.part"
mv "$tarball.part" "$tarball"
echo "$tarball: $(du -h "$tarball" | cut -f1), for x86-64 Linux with glibc $glibc_needed or later"
