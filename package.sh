#!/usr/bin/env bash
# Makes a release: a tarball with the program, the libraries that it needs beyond glibc, the built-in model, documents, deploy/,
# examples/, the manual page, completion for shells and licences. It runs on any x86-64 Linux with a glibc as new as the one it
# names (2.34: RHEL 9, Ubuntu 22.04, Debian 12 and what came later), without a network.
#   ./package.sh                      builds, and writes build/package/cachalot-VERSION-linux-x86_64.tar.gz
#   ./package.sh --build FOLDER       takes the program that is built there
#   ./package.sh --out FOLDER         writes there
#   ./package.sh --deb                a package for Debian and Ubuntu besides, cachalot_VERSION_amd64.deb
#   ./package.sh --image ROOT         a container's image besides (OCI), cachalot-VERSION-image.tar, on the root file system
#                                     in the folder ROOT; as root (scripts/image_root.sh makes one)
set -euo pipefail
cd "$(dirname "$0")"

build= out=build/package deb= image_root=
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --deb) deb=1; shift ;;
    --image) image_root=$2; shift 2 ;;
    --help | -h) sed -n '2,10p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
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

# glibc's own parts come from where it runs: they must fit its kernel, name services and loader. So does libgcc_s: glibc itself
# takes it to end threads and unwinds by what its loader knows, and no distribution is without it.
glibc='^(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil|libanl|libmvec|libnss_[a-z]+|libgcc_s)\.so'
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
scripts/link_libstdcxx.sh "$root/lib/libstdc++.so.6"
chmod 644 "$root"/lib/*.so* "$root"/lib/ucx/*.so.0

# ---- what it needs of the system ----

glibc_needed=$(objdump -T "$root/libexec/cachalot" "$root"/lib/*.so* "$root"/lib/ucx/*.so.0 |
  grep -o 'GLIBC_2\.[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -n 1)
sed "s/@GLIBC_NEEDED@/$glibc_needed/" scripts/start_packaged.sh >"$root/bin/cachalot"
chmod 755 "$root/bin/cachalot"

# ---- the rest ----

commit_time=$(git log -1 --format=%ct)
share=$root/share
mkdir -p "$share"/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
"$build/bin/cachalot" man --date "$(date -u -d "@$commit_time" +%F)" >"$share/man/man1/cachalot.1"
"$build/bin/cachalot" completion bash >"$share/bash-completion/completions/cachalot"
"$build/bin/cachalot" completion zsh >"$share/zsh/site-functions/_cachalot"
"$build/bin/cachalot" completion fish >"$share/fish/vendor_completions.d/cachalot.fish"

mapfile -t files < <(git ls-tree --name-only HEAD models docs deploy examples demo.sh README.md CHANGELOG.md LICENSE)
git -c tar.umask=0022 archive HEAD "${files[@]}" | tar -x -C "$root"
rm -rf "$root/models/nano/training" "$root/models/nano/train.sh"
scripts/collect_licences.sh "$root/licences" "${bundled[@]}"

mkdir -p "$out"
tarball=$out/$name.tar.gz
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$commit_time" -cf - "$name" |
  gzip -n -9 >"$tarball.part"
mv "$tarball.part" "$tarball"
echo "$tarball: $(du -h "$tarball" | cut -f1), for x86-64 Linux with glibc $glibc_needed or later"

export SOURCE_DATE_EPOCH=$commit_time
[ -z "$deb" ] || scripts/make_deb.sh "$root" "$glibc_needed" "$version" "$out/cachalot_${version}_amd64.deb"
[ -z "$image_root" ] || scripts/make_image.py --base "$image_root" --release "$root" --version "$version" \
  --out "$out/cachalot-$version-image.tar"
