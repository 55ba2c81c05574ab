#!/usr/bin/env bash
# collect_licences.sh FOLDER LIBRARY...: the licences of the libraries (files of Debian packages), of the header libraries, of
# third_party/ and of the Rust crates that the program is built with.
set -euo pipefail
folder=$1
shift

mkdir -p "$folder/debian" "$folder/crates" "$folder/third_party"
cp "$(dirname "$0")/../third_party/raft/LICENSE" "$folder/third_party/raft"
headers=(libboost1.81-dev libcli11-dev libxxhash-dev libfmt-dev libspdlog-dev libyaml-cpp-dev prometheus-cpp-dev)
packages=()
for library in "$@"; do
  # A library may be known under its path before /usr was merged.
  path=$(readlink -f "$library")
  packages+=("$({ dpkg-query -S "$path" 2>/dev/null || dpkg-query -S "${path#/usr}"; } | head -n 1 | cut -d: -f1)")
done
printf '%s\n' "${packages[@]}" "${headers[@]}" | sort -u | while read -r package; do
  cp -L "/usr/share/doc/$package/copyright" "$folder/debian/$package"
done

cd "$(dirname "$0")/../src/text/rust"
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
# The crates that are linked on this platform, and where their sources are.
cargo metadata --offline --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu |
  sed 's/"manifest_path":/\n&/g' | sed -n 's,^"manifest_path":"\([^"]*/registry/src/[^"]*\)/Cargo.toml".*,\1,p' | sort -u |
  while read -r source; do
    crate=$(basename "$source")
    mkdir -p "$folder/crates/$crate"
    find "$source" -maxdepth 1 \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) -type f \
      -exec cp {} "$folder/crates/$crate/" \;
    sed -n '/^license/p' "$source/Cargo.toml" >"$folder/crates/$crate/licence.toml"
  done
