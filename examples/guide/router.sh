#!/usr/bin/env bash
# Starts the router: one address for all replicas. Run it on the first node, before or after the servers. Its log:
# logs/router/router.log.
#
#   MODEL=/path/to/model ./router.sh
set -euo pipefail
cd "$(dirname "$0")"
source ./cluster.sh

if [[ $(this_node) != 0 ]]; then
  echo "the router belongs on ${nodes[0]}" >&2
  exit 1
fi
urls=()
for address in "${nodes[@]}"; do
  for ((i = 0; i < replicas_per_node; i++)); do urls+=("http://$address:$((server_port + i))"); done
done
mkdir -p logs/router
"$cachalot" router --server-urls "${urls[@]}" --host "${nodes[0]}" --port $router_port --model "$model" \
  </dev/null &>logs/router/router.log &
echo "the router starts: http://${nodes[0]}:$router_port, process $!, log logs/router/router.log"
