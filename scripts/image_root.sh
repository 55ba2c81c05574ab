#!/usr/bin/env bash
# image_root.sh FOLDER: the root file system that a container's image of a release stands on, with the user side of RDMA and
# what `cachalot up` calls, as deploy/Containerfile has it. By debootstrap, as root; needs the network.
set -euo pipefail
root=$1
[ ! -e "$root/etc/debian_version" ] || exit 0
debootstrap --variant=minbase --include=ibverbs-providers,librdmacm1,iproute2,openssh-client,procps bookworm "$root" >/dev/null || {
  rm -rf "$root"
  echo "image_root.sh: debootstrap fails, is there a network?" >&2
  exit 1
}
rm -rf "$root"/var/{cache/apt/*,lib/apt/lists/*,log/*.log,log/apt} "$root"/debootstrap \
  "$root"/etc/{hostname,resolv.conf} # this machine's
