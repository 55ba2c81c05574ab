#!/usr/bin/env bash
# Four nodes on this machine: network namespaces joined by a bridge, each with a replica of two ranks, experts over all
# eight. Asks each replica, and compares what the ranks counted with what the network's own counters say. Then cuts a node
# off: all others must know, say so, and end. The namespaces belong to this test alone and go with it.
#
#   tests/namespaces/run.sh path/to/cachalot path/to/model
#
# Status 77: this machine lets nobody make namespaces, or has no `ip`.
set -euo pipefail
source "$(dirname "$0")/network_nodes.sh"
needs ip
enter_namespaces -Urnm "$0" "$@"
binary=$(realpath "$1")
model=$(realpath "$2")

logs=$(mktemp -d)
cleanup() {
  local status=$?
  if ((status)); then tail -n 20 "$logs"/*.log; fi
  rm -rf "$logs"
  end_all
}
trap cleanup EXIT

num_nodes=4
failure_timeout_ms=2000
declare -a servers
mount -t sysfs sysfs /sys # of these namespaces, for the links' counters
make_bridge 10.77.0.254
for ((node = 1; node <= num_nodes; node++)); do add_node "$node" "10.77.0.$node"; done

for ((node = 1; node <= num_nodes; node++)); do
  ip netns exec "node$node" "$binary" serve --model "$model" --host "10.77.0.$node" --port 7555 --threads 1 \
    --tensor-parallel-size 2 --data-parallel-size $num_nodes --data-parallel-rank $((node - 1)) --enable-expert-parallel \
    --data-parallel-address 10.77.0.1 --data-parallel-rpc-port 54999 --num-scheduler-steps 8 \
    --failure-timeout-ms $failure_timeout_ms >"$logs/node$node.log" 2>&1 &
  servers[node]=$!
done

# get NODE PATH: the body of an answer, without curl.
get() {
  exec 3<>"/dev/tcp/10.77.0.$1/7555" || return 1
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
  cat <&3
  exec 3>&-
}
# metric NODE NAME LABELS: the sum over the node's ranks.
metric() { get "$1" /metrics | tr -d '\r' | awk -v name="$2" -v labels="$3" 'index($1, name "{") == 1 && index($1, labels) { sum += $2 } END { printf "%d", sum }'; }

for ((node = 1; node <= num_nodes; node++)); do
  for ((attempt = 0; ; attempt++)); do
    if [[ $(get $node /health 2>/dev/null) == "HTTP/1.1 200 "* ]]; then break; fi
    ((attempt < 600)) || { echo "node $node is not ready after a minute"; exit 1; }
    sleep 0.1
  done
done

failed=0
check() { # check WHAT CONDITION...
  if (("$2")); then echo "ok: $1"; else echo "FAILED: $1"; failed=1; fi
}
for ((node = 1; node <= num_nodes; node++)); do
  answer=$("$binary" chat --url "http://10.77.0.$node:7555/v1" --temperature 0 --max-tokens 200 \
    "Which one is larger? 3.8 or 3.11" 2>&1)
  check "node $node answers" "$([[ $answer == *"3.8 is larger than 3.11."* ]] && echo 1 || echo 0)"
done
for ((node = 1; node <= num_nodes; node++)); do
  ucx=$(metric $node cachalot:transport_bytes_total 'transport="ucx"')
  shm=$(metric $node cachalot:transport_bytes_total 'transport="shm"')
  wire=$(<"/sys/class/net/veth$node/statistics/rx_bytes") # what the bridge got from the node
  check "node $node sent $ucx bytes over UCX, $shm through shared memory; its link carried $wire" \
    "ucx > 100000 && shm > 100000 && wire >= ucx && wire < 3 * ucx + 2000000"
  check "node $node holds 2 x 4 of 32 experts" "$(metric $node cachalot:rank_experts '') == 8"
done

cut=3
ip link set "veth$cut" down
start=$(date +%s%N)
for ((node = 1; node <= num_nodes; node++)); do
  while kill -0 "${servers[node]}" 2>/dev/null && (($(date +%s%N) - start < 15 * 10 ** 9)); do sleep 0.02; done
  took=$((($(date +%s%N) - start) / 10 ** 6))
  check "node $node has ended $took ms after node $cut was cut off" "took < 3 * failure_timeout_ms + 3000"
  status=0
  wait "${servers[node]}" || status=$?
  check "node $node ended with status $status, not 0" "status != 0"
  # Which ranks it misses: those of the node that was cut off, or, there, that it is the one.
  lost=$(grep -cE "rank [45] |cut off|rank 0 " <(grep -E ' E | W ' "$logs/node$node.log") || true)
  check "node $node said why, in $lost lines" "lost >= 1"
done
check "no process is left" "$(pgrep -xc cachalot || true) == 0"
exit $failed
