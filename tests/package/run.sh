#!/usr/bin/env bash
# run.sh PACKAGES SUITE ROOT: runs the release in the folder PACKAGES where nothing is installed: in the root file system of a bare
# Debian SUITE at ROOT (made by debootstrap if it is not there), without a network. First the unpacked archive: a cluster, the
# demo, UCX; then the package: installed, used, removed. Also what the release says on a system with an older glibc.
#
# Status 77: this is not root, or there is neither debootstrap nor a ROOT.
set -euo pipefail
source "$(dirname "$0")/../namespaces/network_nodes.sh"
packages=$(realpath "$1")
suite=$2
base=$3

if [[ -z ${CACHALOT_IN_NAMESPACE:-} ]]; then
  [[ $(id -u) == 0 ]] || { echo "skipped: chroot takes root"; exit 77; }
  may_unshare -nm || { echo "skipped: namespaces are not allowed here"; exit 77; }
  if [[ ! -e $base/etc/debian_version ]]; then
    command -v debootstrap >/dev/null || { echo "skipped: no debootstrap"; exit 77; }
    rm -rf "$base"
    debootstrap --variant=minbase "$suite" "$base" >"$packages/debootstrap.log" 2>&1 || {
      tail -n 3 "$packages/debootstrap.log"
      rm -rf "$base"
      echo "skipped: debootstrap fails, is there a network?"
      exit 77
    }
  fi
  enter_namespaces -nm "$0" "$packages" "$suite" "$base"
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

tarball=("$packages"/cachalot-*-linux-x86_64.tar.gz)
[[ ${#tarball[@]} == 1 ]] || { echo "several releases in $packages"; exit 1; }
mkdir -p "$root/opt/cachalot"
tar -xf "${tarball[0]}" -C "$root/opt/cachalot" --strip-components=1
ln -s /opt/cachalot/bin/cachalot "$root/usr/local/bin/cachalot"

inside() { timeout 120 chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
fail() { echo "package: $*"; exit 1; }

# Nothing of the system that a bare one lacks.
missing=$(inside sh -c 'cd /opt/cachalot; ldd -r libexec/cachalot 2>&1 | grep -E "not found|undefined"
  for file in lib/*.so*; do LD_LIBRARY_PATH=lib ldd "$file" | grep "not found"; done; true')
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

# The whole program by the release's own questions.
inside sh -c 'cd /opt/cachalot && bin/cachalot eval --model models/nano --questions models/nano/questions.jsonl --limit 30 \
  --min-accuracy 0.7' >"$scratch/eval" 2>&1 || fail "its questions: $(tail -n 3 "$scratch/eval")"

# Ranks over UCX: its TCP is there without the system's.
inside cachalot bench alltoall -b 1k -e 1M -f 32 --ranks 3 --transports ucx || fail "ranks do not reach each other by UCX"

# UCX finds the modules of the release. That of RDMA does not load without the system's drivers, and nobody minds.
inside env LD_DEBUG=files /opt/cachalot/libexec/cachalot bench alltoall -b 1k -e 1k --ranks 2 --transports ucx >"$scratch/files" 2>&1 ||
  fail "ranks do not meet when the loader tells of its files"
grep -q 'calling init: /opt/cachalot/libexec/../lib/ucx/libuct_cma.so' "$scratch/files" || fail "UCX does not load its modules"
! grep -E 'calling init: /(usr/)?lib/' "$scratch/files" | grep -vE '/(libc|libm|ld-linux-x86-64|libdl|libpthread|libgcc_s)\.so' ||
  fail "it takes libraries of the system"

# An older system.
mkdir "$root/older"
cat >"$root/older/getconf" <<'SCRIPT'
#!/bin/sh
echo "glibc 2.31"
SCRIPT
chmod +x "$root/older/getconf"
if said=$(inside env PATH=/older:/usr/bin:/bin /opt/cachalot/bin/cachalot --version 2>&1); then
  fail "it starts on a system that says glibc 2.31"
fi
[[ $said == *'needs glibc 2.'*' or later'*'this system has 2.31'* ]] || fail "on an older system it says: $said"

# The package of Debian, in place of the archive.
rm -rf "$root/opt/cachalot" "$root/usr/local/bin/cachalot" "$root/srv/try"
snapshot() { (cd "$root" && find usr etc var/lib/systemd opt -not -path 'var/lib/dpkg/*' 2>/dev/null | LC_ALL=C sort); }
snapshot >"$scratch/before"
mkdir "$root/packages"
cp "$packages"/cachalot_*_amd64.deb "$root/packages"
inside sh -c 'dpkg --install /packages/cachalot_*.deb' >"$scratch/dpkg" 2>&1 || fail "dpkg: $(cat "$scratch/dpkg")"
inside dpkg --verify cachalot || fail "files differ from the package's"
inside id cachalot >/dev/null || fail "there is no user cachalot"
[[ $(inside sh -c 'command -v cachalot') == /usr/bin/cachalot ]] || fail "cachalot is not on the PATH"
inside sh -c 'mkdir -p /srv/try && cd /srv/try && cachalot up --detach' || fail "the installed program's up fails"
answer=$(inside cachalot chat --url http://127.0.0.1:8002/v1 --temperature 0 --prompt 'Which one is larger? 3.8 or 3.11')
[[ $answer == *'3.8 is larger'* ]] || fail "the installed program answers: $answer"
inside sh -c 'cd /srv/try && cachalot down' || fail "the installed program's down fails"
inside bash -c 'source /usr/share/bash-completion/completions/cachalot; COMP_WORDS=(cachalot ser); COMP_CWORD=1; _cachalot
  [[ ${COMPREPLY[*]} == serve ]]' || fail "bash does not complete its words"
# The unit names what is there.
unit=$root/usr/lib/systemd/system/cachalot.service
for program in $(sed -n 's/^Exec[A-Za-z]*=\([^ ]*\).*/\1/p' "$unit"); do
  inside test -x "$program" || fail "the unit starts $program, which is not there"
done
inside dpkg --remove cachalot >/dev/null 2>&1 || fail "it cannot be removed"
inside dpkg --purge cachalot >/dev/null 2>&1 || fail "it cannot be purged"
snapshot >"$scratch/after"
# Its user stays, and what useradd writes about it.
left=$(comm -13 "$scratch/before" "$scratch/after" | grep -vE '^etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$' || true)
[[ -z $left ]] || fail "the package leaves behind: $left"
echo "package: archive and package run on a bare Debian $suite"
