#!/usr/bin/env bash
# Builds Cachalot and passes its tests, from a bare Debian 12 on.
#   ./test.sh                     everything
#   ./test.sh --sanitize          the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   ./test.sh --tsan              the tests of threads and processes under ThreadSanitizer
#   ./test.sh --clients [SUITE]   drives it with the programs that people use (network, npm; tests/clients/run.py)
#   ./test.sh --packages          makes every form of a release, and tries it on bare Debian 12 and 13 (root, network)
#   ./test.sh --fuzz SECONDS      fuzzes each reader of strangers' bytes for so long (clang 19)
#   ./test.sh --simulate SEEDS [--seed N]  lives through so many clusters with faults, from seed N on (docs/architecture.md)
#   ./test.sh --tidy              clang-tidy over the sources instead
#   ./test.sh -R Scheduler        further arguments go to ctest
set -euo pipefail
cd "$(dirname "$0")"

preset=release targets=()
case "${1:-}" in
  --help | -h) sed -n '2,11p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
  --sanitize) preset=sanitize; shift ;;
  --tsan)
    preset=tsan targets=(comm_test http_test router_test serve_test cluster_test)
    shift
    set -- -L "^($(IFS='|'; echo "${targets[*]}"))\$" "$@" ;;
  --fuzz)
    [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "./test.sh --fuzz SECONDS [TARGET...]" >&2; exit 2; }
    scripts/install_packages.sh clang-19 libclang-rt-19-dev
    scripts/build.sh fuzz cachalot_fuzz
    exec tests/fuzz/run.sh build/fuzz "${@:2}" ;;
  --clients)
    scripts/build.sh release cachalot scripted_server
    exec tests/clients/run.py --bin build/release/bin "${@:2}" ;;
  --packages)
    scripts/install_packages.sh debootstrap lintian man-db mandoc zsh fish skopeo umoci
    scripts/build.sh release cachalot
    exec tests/package/all.sh build/release ;;
  --simulate)
    [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "./test.sh --simulate SEEDS [--seed N]" >&2; exit 2; }
    scripts/build.sh release simulation_test agents_simulation_test
    build/release/bin/agents_simulation_test --long --seeds "${@:2}"
    exec build/release/bin/simulation_test --long --seeds "${@:2}" ;;
  --tidy) exec scripts/tidy.sh ;;
esac

scripts/build.sh "$preset" "${targets[@]}"
# A sanitizer's report counts wherever it comes from, be it a server that its test ends by force.
reports=build/$preset/reports
rm -rf "$reports"
mkdir -p "$reports"
export ASAN_OPTIONS=log_path=$PWD/$reports/address UBSAN_OPTIONS=log_path=$PWD/$reports/undefined:print_stacktrace=1
# UCX looks at what a thread gives back at its end, when ThreadSanitizer knows the thread no more, and crashes.
[ "$preset" != tsan ] || export UCX_MEM_EVENTS=no
export TSAN_OPTIONS=log_path=$PWD/$reports/threads:die_after_fork=0
status=0
ctest --test-dir "build/$preset" --output-on-failure --parallel "$(nproc)" --no-tests=error "$@" </dev/null || status=$?
find "$reports" -type f -exec tail -n +1 {} + | grep . && status=1
exit $status
