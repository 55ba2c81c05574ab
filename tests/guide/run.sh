#!/usr/bin/env bash
# The guide's deployment as it stands in examples/guide: four nodes (network namespaces joined by a bridge) with the guide's
# addresses, two servers a node with four ranks each, 32 ranks over which the experts are spread, a router, and the guide's
# question without a chat template. The model is the built-in one in int4, at the guide's path. The answer must be one
# rank's own, and the ranks' counters must show one expert of 32 a rank and UCX between the nodes.
#
#   tests/guide/run.sh path/to/cachalot path/to/model [SCRIPTS]    SCRIPTS: examples/guide
#
# Any folder with server.sh, router.sh and client.sh that keep the guide's values will do. Status 77: this machine lets
# nobody make namespaces, or has no `ip` or no `curl`.
set -euo pipefail
source "$(dirname "$0")/../namespaces/network_nodes.sh"
needs ip curl
enter_namespaces -Urnm "$0" "$@"
binary=$(realpath "$1")
model=$(realpath "$2")
scripts=$(realpath "${3:-$(dirname "$0")/../../examples/guide}")
make_bridge

# The program, the model and the scripts are seen through /run, whatever is mounted over where they are.
mkdir /run/bin /run/model /run/scripts /run/program
mount --bind "$(dirname "$binary")" /run/program
mount --bind "$model" /run/model
mount --bind "$scripts" /run/scripts
ln -s "/run/program/$(basename "$binary")" /run/bin/cachalot
export PATH=/run/bin:$PATH
cd /run
mount -t tmpfs tmpfs /home
guide_model=/home/workspace/models/DeepSeek-R1-awq
mkdir -p /home/workspace/models
ln -s /run/model $guide_model

cleanup() {
  local status=$?
  if ((status)); then tail -n 8 /home/node*/logs/*/*.log /home/one.log 2>/dev/null || true; fi
  end_all
  exit $status
}
trap cleanup EXIT

nodes=(192.168.1.2 192.168.1.3 192.168.1.4 192.168.1.5)
for node in 0 1 2 3; do
  add_node "$node" "${nodes[node]}"
  cp -r /run/scripts "/home/node$node"
done
on() { # on NODE COMMAND...: runs it there, in the node's own folder
  local node=$1
  shift
  (cd "/home/node$node" && ip netns exec "node$node" "$@")
}
wait_for() { # wait_for SECONDS WHAT NODE URL
  for ((attempt = 0; attempt < $1 * 5; attempt++)); do
    if on "$3" curl --silent --fail --max-time 2 --output /dev/null "$4"; then return 0; fi
    sleep 0.2
  done
  echo "$2 is not ready after $1 s"
  exit 1
}
failed=0
check() { # check WHAT CONDITION
  if (("$2")); then echo "ok: $1"; else echo "FAILED: $1"; failed=1; fi
}
text_of() { sed -E 's/.*"text": ?"(([^"\\]|\\.)*)".*/\1/'; }

# One rank's own answer first.
cachalot serve --model $guide_model --host 127.0.0.1 --port 7000 --threads 1 >/home/one.log 2>&1 &
one=$!
for ((attempt = 0; attempt < 100; attempt++)); do
  curl --silent --fail --output /dev/null http://127.0.0.1:7000/health && break
  sleep 0.1
done
expected=$(curl --silent http://127.0.0.1:7000/v1/completions -H 'Content-Type: application/json' -d "{\"model\":
  \"$guide_model\", \"prompt\": \"Which one is larger? 3.8 or 3.11\", \"max_tokens\": 1024, \"temperature\": 0}" | text_of)
kill $one
wait $one || true
check "one rank answers: ${expected##*\\n}" "$([[ $expected == *"3.8 is larger"* ]] && echo 1 || echo 0)"

start=$SECONDS
for node in 0 1 2 3; do on $node bash ./server.sh; done
on 0 bash ./router.sh
for node in 0 1 2 3; do
  for port in 7555 7556; do wait_for 120 "the server ${nodes[node]}:$port" $node "http://${nodes[node]}:$port/health"; done
done
wait_for 20 "the router" 0 http://192.168.1.2:8002/health
echo "32 ranks and the router are ready after $((SECONDS - start)) s"

answer=$(on 3 bash ./client.sh)
text=$(text_of <<<"$answer")
check "the cluster answers what one rank answers: ${text##*\\n}" "$([[ $text == "$expected" ]] && echo 1 || echo 0)"

for node in 0 1 2 3; do
  for port in 7555 7556; do
    metrics=$(on $node curl --silent "http://${nodes[node]}:$port/metrics")
    ranks=$(awk 'index($1, "cachalot:rank_experts{") == 1 && $2 == 1' <<<"$metrics" | wc -l)
    bytes() { awk -v t="transport=\"$1\"" 'index($1, "cachalot:transport_bytes_total{") == 1 && index($1, t) { s += $2 }
      END { printf "%d", s }' <<<"$metrics"; }
    shm=$(bytes shm) ucx=$(bytes ucx)
    check "${nodes[node]}:$port has $ranks ranks with one expert each; $shm bytes through shared memory, $ucx over UCX" \
      "ranks == 4 && shm > 10000 && ucx > 10000"
  done
done
exit $failed
