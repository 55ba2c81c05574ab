#!/usr/bin/env bash
# Asks the cluster a question, from anywhere that reaches the router. Prints the whole answer as JSON.
#
#   MODEL=/path/to/model ./client.sh ["another question"]
set -euo pipefail
cd "$(dirname "$0")"
source ./cluster.sh

question=${1:-Which one is larger? 3.8 or 3.11}
question=${question//\\/\\\\}
question=${question//\"/\\\"}
curl --silent --show-error --fail-with-body "http://${nodes[0]}:$router_port/v1/completions" \
  -H 'Content-Type: application/json' \
  -d "{\"model\": \"$model\", \"prompt\": \"$question\", \"max_tokens\": 1024, \"temperature\": 0}"
