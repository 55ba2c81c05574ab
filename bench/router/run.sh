#!/usr/bin/env bash
# run.sh CACHALOT
#
# `cachalot router` beside HAProxy (Debian's, installed if it is not there) and beside no proxy at all, before one server that
# costs next to nothing, on this machine. Both proxies have one thread and keep connections to the server.
#   - requests a second over 64 connections, each with a new request as soon as it has its answer, and what CPU time the
#     proxy takes for one;
#   - latencies at RATE requests a second, less those without a proxy: what the proxy adds;
#   - STREAMS open streams of events, and the resident memory that the proxy took for each.
# Rounds alternate, as machines drift; a figure is the median of ROUNDS. The environment may set ROUNDS, DURATION (seconds of a
# measurement), RATE and STREAMS.
set -euo pipefail
export LC_ALL=C

cachalot=$(realpath "${1:?usage: run.sh CACHALOT}")
here=$(dirname "$(realpath "$0")")
rounds=${ROUNDS:-3} duration=${DURATION:-3} rate=${RATE:-2000} streams=${STREAMS:-8000}
command -v haproxy >/dev/null || "$here/../../scripts/install_packages.sh" haproxy

ulimit -n "$(ulimit -Hn)"
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
for program in null_backend http_load; do
  [ "${PROGRAMS:-}" ] && ln -s "$PROGRAMS/$program" "$work/$program" && continue
  g++ -std=c++20 -O2 -o "$work/$program" "$here/$program.cc" -pthread
done

declare -A port=([direct]=18555 [cachalot]=18556 [haproxy]=18557)
cat >"$work/haproxy.cfg" <<CONFIG
global
  nbthread 1
  maxconn $(($(ulimit -n) / 2 - 100))
defaults
  mode http
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  option http-keep-alive
  http-reuse always
frontend front
  bind 127.0.0.1:${port[haproxy]}
  default_backend replicas
backend replicas
  balance leastconn
  option httpchk GET /health
  server null 127.0.0.1:${port[direct]} check inter 250ms
CONFIG
"$work/null_backend" ${port[direct]} &
pids+=($!)
"$cachalot" router --server-urls http://127.0.0.1:${port[direct]} --host 127.0.0.1 --port ${port[cachalot]} --io-threads 1 \
  --max-in-flight-per-replica 0 --log-level error &
declare -A pid=([cachalot]=$!)
haproxy -db -q -f "$work/haproxy.cfg" &
pid[haproxy]=$!
pids+=("${pid[@]}")
for name in cachalot haproxy; do
  for ((attempt = 0; attempt < 50; attempt++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/${port[$name]}") 2>/dev/null; then break; fi
    sleep 0.1
  done
  ((attempt < 50)) || { echo "$name does not listen" >&2; exit 1; }
done
sleep 1  # for the first health question

cpu_ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
for ((round = 0; round < rounds; round++)); do
  for name in direct cachalot haproxy; do
    before=$([ $name = direct ] || cpu_ticks "${pid[$name]}") begin=$EPOCHREALTIME
    "$work/http_load" requests ${port[$name]} 64 "$duration" >>"$work/most.$name"
    [ $name = direct ] || awk -v ticks=$(($(cpu_ticks "${pid[$name]}") - before)) -v begin="$begin" -v end="$EPOCHREALTIME" \
      -v second="$(getconf CLK_TCK)" 'END {printf "%d\n", ticks * 1e6 / second / ($1 * (end - begin))}' \
      "$work/most.$name" >>"$work/cpu.$name"
    "$work/http_load" requests ${port[$name]} 64 "$duration" "$rate" >>"$work/rated.$name"
  done
done
figure() { sed -E "s,$3,\\1," "$work/$1.$2" | median; }  # FILE NAME PATTERN
echo "| | requests/s | CPU of a request | p50 at $rate/s | added | p99 | added |"
echo "|---|---|---|---|---|---|---|"
for name in direct cachalot haproxy; do
  most=$(figure most $name '([0-9]+) requests.*')
  p50=$(figure rated $name '.*p50 ([0-9]+) us.*')
  p99=$(figure rated $name '.*p99 ([0-9]+) us.*')
  [ $name = direct ] && direct_p50=$p50 direct_p99=$p99
  cpu=$([ $name = direct ] || median <"$work/cpu.$name")
  echo "| $name | $most | ${cpu:+$cpu us} | $p50 us | $((p50 - direct_p50)) us | $p99 us | $((p99 - direct_p99)) us |"
done
grep -L ' 0 failed' "$work"/most.* "$work"/rated.* | sed 's,.*/,failed requests in ,'

resident() { awk '/VmRSS/ {print $2}' "/proc/$1/status"; }  # KiB
echo
echo "| $streams streams | alive at the end | resident before | with them | a stream |"
echo "|---|---|---|---|---|"
for name in cachalot haproxy; do
  before=$(resident "${pid[$name]}")
  "$work/http_load" streams ${port[$name]} "$streams" 8 >"$work/streams" &
  load=$!
  for ((attempt = 0; attempt < 300; attempt++)); do
    grep -q 'have begun' "$work/streams" && break
    sleep 0.1
  done
  sleep 5
  with=$(resident "${pid[$name]}")
  wait $load || true
  alive=$(awk '/alive/ {print $1}' "$work/streams")
  echo "| $name | $alive | $((before / 1024)) MiB | $((with / 1024)) MiB | $(((with - before) * 1024 / streams)) bytes |"
done
