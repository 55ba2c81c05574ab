#!/usr/bin/env bash
# run.sh BUILD_FOLDER [ROOT]: makes a release of the program that is built there, and runs it where nothing is installed: in the
# root file system of a bare Debian 12 (made by debootstrap, unless it is at ROOT), without a network. Also what the release says
# on a system with an older glibc.
#
# Status 77: this is not root, or there is neither debootstrap nor a ROOT.
set -euo pipefail
source "$(dirname "$0")/../namespaces/network_nodes.sh"
build=$(realpath "$1")
base=${2:-$build/bare-debian12}
source=$(realpath "$(dirname "$0")/../..")

if [[ -z ${CACHALOT_IN_NAMESPACE:-} ]]; then
  [[ $(id -u) == 0 ]] || { echo "skipped: chroot takes root"; exit 77; }
  may_unshare -nm || { echo "skipped: namespaces are not allowed here"; exit 77; }
  if [[ ! -e $base/etc/debian_version ]]; then
    command -v debootstrap >/dev/null || { echo "skipped: no debootstrap"; exit 77; }
    rm -rf "$base"
    debootstrap --variant=minbase bookworm "$base" >"$build/debootstrap.log" 2>&1 || {
      tail -n 3 "$build/debootstrap.log"
      rm -rf "$base"
      echo "skipped: debootstrap fails, is there a network?"
      exit 77
    }
  fi
  "$source/package.sh" --build "$build" --out "$build/package"
  enter_namespaces -nm "$0" "$build" "$base"
fi

# A scratch copy of the bare system, over the one that stays as it is.
scratch=$(mktemp -d)
cleanup() {
  end_all
  umount -R "$scratch/root" 2>/dev/null || true
  umount "$scratch" 2>/dev/null || true
  rmdir "$scratch"
}
trap cleanup EXIT
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch"/{root,upper,work}
mount -t overlay overlay -o "lowerdir=$base,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
root=$scratch/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --bind /dev "$root/dev"
ip link set lo up

tarball=("$build"/package/cachalot-*-linux-x86_64.tar.gz)
[[ ${#tarball[@]} == 1 ]] || { echo "several releases in $build/package"; exit 1; }
mkdir -p "$root/opt/cachalot"
tar -xf "${tarball[0]}" -C "$root/opt/cachalot" --strip-components=1
ln -s /opt/cachalot/bin/cachalot "$root/usr/local/bin/cachalot"

inside() { timeout 120 chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root "$@"; }
fail() { echo "package: $*"; exit 1; }

# Nothing of the system that a bare one lacks.
missing=$(inside sh -c 'for file in /opt/cachalot/libexec/cachalot /opt/cachalot/lib/*.so*; do
  LD_LIBRARY_PATH=/opt/cachalot/lib ldd "$file" | grep "not found" || true; done')
[[ -z $missing ]] || fail "libraries are missing: $missing"
for file in LICENSE README.md licences/debian/libucx0 licences/crates licences/third_party/raft docs/deployment.md deploy/slurm.sbatch \
  models/nano/config.json models/nano-awq/config.json lib/ucx/libuct_ib.so.0; do
  [[ -e $root/opt/cachalot/$file ]] || fail "$file is not in it"
done

# The built-in model over four ranks behind a router, from any folder.
inside sh -c 'mkdir -p /srv/try && cd /srv/try && cachalot check && exec cachalot up --detach' || fail "up fails"
answer=$(inside cachalot chat --url http://127.0.0.1:8002/v1 --temperature 0 --prompt 'Which one is larger? 3.8 or 3.11')
[[ $answer == *'3.8 is larger'* ]] || fail "the answer is: $answer"
inside sh -c 'cd /srv/try && cachalot down' || fail "down fails"

# The demo, from the release itself.
[[ $(inside /opt/cachalot/demo.sh 2>&1) == *'3.8 is larger'* ]] || fail "the demo does not answer"

# Ranks over UCX: its TCP is there without the system's.
inside cachalot bench alltoall -b 1k -e 1M -f 32 --ranks 3 --transports ucx || fail "ranks do not reach each other by UCX"

# UCX finds the modules of the release. That of RDMA does not load without the system's drivers, and nobody minds.
inside env LD_DEBUG=files /opt/cachalot/libexec/cachalot bench alltoall -b 1k -e 1k --ranks 2 --transports ucx >"$scratch/files" 2>&1 ||
  fail "ranks do not meet when the loader tells of its files"
grep -q 'calling init: /opt/cachalot/libexec/../lib/ucx/libuct_cma.so' "$scratch/files" || fail "UCX does not load its modules"
! grep -E 'calling init: /(usr/)?lib/' "$scratch/files" | grep -vE '/(libc|libm|ld-linux-x86-64|libdl|libpthread)\.so' ||
  fail "it takes libraries of the system"

# An older system.
cat >"$root/usr/local/bin/getconf" <<'SCRIPT'
#!/bin/sh
echo "glibc 2.31"
SCRIPT
chmod +x "$root/usr/local/bin/getconf"
if said=$(inside cachalot --version 2>&1); then fail "it starts on a system that says glibc 2.31"; fi
[[ $said == *'needs glibc 2.'*' or later'*'this system has 2.31'* ]] || fail "on an older system it says: $said"
echo "package: runs on a bare Debian 12"
