#!/usr/bin/env bash
# Builds Cachalot and passes its tests, from a bare Debian 12 on.
#   ./test.sh                     everything
#   ./test.sh --sanitize          the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   ./test.sh --tidy              clang-tidy over the sources instead
#   ./test.sh -R Scheduler        further arguments go to ctest
set -euo pipefail
cd "$(dirname "$0")"

preset=release
case "${1:-}" in
  --help | -h) sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
  --sanitize) preset=sanitize; shift ;;
  --tidy) exec scripts/tidy.sh ;;
esac

scripts/build.sh "$preset"
ctest --test-dir "build/$preset" --output-on-failure --parallel "$(nproc)" --no-tests=error "$@" </dev/null
