#!/usr/bin/env bash
# make_deb.sh RELEASE GLIBC VERSION OUT: a package for Debian, Ubuntu and their like from the unpacked release in the folder
# RELEASE. The program and its libraries go to /usr/lib/cachalot; the systemd unit is there, and is not started by itself.
set -euo pipefail
release=$1 glibc=$2 version=$3 out=$4
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$folder/root
home=$root/usr/lib/cachalot
share=$root/usr/share
documents=$share/doc/cachalot
mkdir -p "$root"/DEBIAN "$root"/usr/{bin,lib/systemd/system} "$home" "$documents" "$share"/{cachalot,lintian/overrides,zsh}

cp -a "$release"/{bin,lib,libexec} "$home"
ln -s ../lib/cachalot/bin/cachalot "$root/usr/bin/cachalot"
cp -a "$release/models" "$share/cachalot"
cp -a "$release/share/man" "$release/share/bash-completion" "$release/share/fish" "$share"
cp -a "$release/share/zsh/site-functions" "$share/zsh/vendor-completions" # where Debian's zsh looks
gzip -n -9 "$share/man/man1/cachalot.1"
sed 's,/opt/cachalot/bin/,/usr/bin/,; s,/opt/cachalot/docs/,/usr/share/doc/cachalot/docs/,' "$release/deploy/cachalot.service" |
  sed '/^#   useradd/d; /^#   cp deploy/s/.*/#   systemctl enable --now cachalot/' >"$root/usr/lib/systemd/system/cachalot.service"
cp -a "$release"/{docs,deploy,examples,README.md} "$documents"
rm "$documents/deploy/cachalot.service"
cp -a "$release/licences" "$documents/licences"
cp "$release/CHANGELOG.md" "$documents"
maintainer='Authors of Cachalot <cachalot@cachalot.invalid>'
gzip -n -9 >"$documents/changelog.gz" <<TEXT
cachalot ($version) unstable; urgency=medium

  * /usr/share/doc/cachalot/CHANGELOG.md tells what came.

 -- $maintainer  $(date -R -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}")
TEXT
cat >"$documents/copyright" <<'TEXT'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: cachalot
Comment: The libraries in /usr/lib/cachalot/lib, and what the program is
 built with, have licences of their own: each in the folder licences beside
 this file. Debian's files of some of them point to
 /usr/share/common-licenses.

Files: *
Copyright: 2026 Authors of Cachalot
License: Apache-2.0
 The whole text is in /usr/share/common-licenses/Apache-2.0.
TEXT
cat >"$share/lintian/overrides/cachalot" <<'TEXT'
# One package for every release of Debian and Ubuntu since 2022: what differs among these is inside.
cachalot: embedded-library
cachalot: custom-library-search-path
TEXT
find "$root" -type d -exec chmod 755 {} +
find "$documents" "$share" -type f -exec chmod 644 {} +
grep -rlZ --max-count=1 '^#!/' "$documents/examples" "$documents/deploy" | xargs -0 -r chmod 755

cat >"$root/DEBIAN/control" <<TEXT
Package: cachalot
Version: $version
Architecture: amd64
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= $glibc), libgcc-s1, passwd
Recommends: openssh-client
Suggests: ibverbs-providers, librdmacm1, prometheus
Section: net
Priority: optional
Description: inference server for DeepSeek-R1 and its relatives
 Serves models of DeepSeek's architecture on a cluster of ordinary servers,
 behind one address with OpenAI's API and Anthropic's. One cluster file names
 the nodes; "cachalot up" starts all of it and watches over it.
 .
 A small model is built in, to try it without a download.
TEXT
cat >"$root/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
  getent passwd cachalot >/dev/null ||
    useradd --system --create-home --home-dir /var/lib/cachalot --shell /usr/sbin/nologin cachalot
fi
[ ! -d /run/systemd/system ] || systemctl daemon-reload
SCRIPT
cat >"$root/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
# An upgrade leaves a cluster as it runs; its next start is of the new program.
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now cachalot.service || true; fi
SCRIPT
cat >"$root/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
# Its user stays, as files of it may; so does /etc/cachalot, which is the administrator's.
if [ "$1" = purge ]; then rm -rf /var/log/cachalot; fi
SCRIPT
chmod 755 "$root"/DEBIAN/{postinst,prerm,postrm}
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

mkdir -p "$(dirname "$out")"
# xz at level 1: a third of the time for a tenth more.
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "$out" >/dev/null
echo "$out: $(du -h "$out" | cut -f1)"
