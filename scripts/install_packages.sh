#!/usr/bin/env bash
# Installs what building Cachalot needs, and the packages named as arguments, from Debian's packages; does nothing where all
# is there. Needs root or sudo only if something is missing. Where no recent cargo is found, Debian's cargo-web and rustc-web
# serve.
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config git ca-certificates zlib1g-dev
  libboost1.81-dev libboost-json1.81-dev libfmt-dev libspdlog-dev libyaml-cpp-dev libcli11-dev libedit-dev prometheus-cpp-dev
  libssl-dev libucx-dev libxxhash-dev libgtest-dev libgmock-dev libbenchmark-dev
  libstdc++-12-pic            # for a release
  python3-venv curl iproute2  # for tests: the openai client, scripts that ask a server, nodes as network namespaces
  "$@")
if ! cargo --version 2>/dev/null | awk '{split($2, v, "."); exit !(v[1] > 1 || v[2] >= 87)}'; then
  packages+=(cargo-web rustc-web)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "These packages are missing, and neither root nor sudo is here to install them: ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi

echo "Installing (a few minutes, once): ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"${as_root[@]}" apt-get update -qq >"$log" 2>&1 || true  # the lists may serve as they are; installing says if not
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
  </dev/null >>"$log" 2>&1 || {
  tail -n 8 "$log" >&2
  echo "These packages could not be installed, for the reason above (is there a network?): ${missing[*]}" >&2
  exit 1
}
