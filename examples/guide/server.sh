#!/usr/bin/env bash
# Starts this node's two replicas of DeepSeek-R1, each on four devices. Run it on all four nodes, in any order; the
# replicas find each other at the first node. Their logs: logs/server/replica-N.log.
#
#   MODEL=/path/to/model ./server.sh      CACHALOT=/path/to/cachalot, where it is not on the PATH
set -euo pipefail
cd "$(dirname "$0")"
source ./cluster.sh

node=$(this_node)
mkdir -p logs/server
for ((i = 0; i < replicas_per_node; i++)); do
  replica=$((node * replicas_per_node + i))
  TOPS_VISIBLE_DEVICES=${devices[i]} \
    ECCL_ALLTOALLV_MAXSIZE=$exchange_bytes \
    "$cachalot" serve --model "$model" --host "${nodes[node]}" --port $((server_port + i)) \
    --data-parallel-size $num_replicas --data-parallel-rank $replica \
    --data-parallel-address "${nodes[0]}" --data-parallel-rpc-port $rendezvous_port \
    --tensor-parallel-size 4 --enable-expert-parallel \
    --dtype bfloat16 --max-model-len $max_tokens --gpu-memory-utilization 0.8 --block-size 64 \
    --num-scheduler-steps 8 --scheduling-policy priority \
    </dev/null &>"logs/server/replica-$replica.log" &
  echo "replica $replica starts: http://${nodes[node]}:$((server_port + i)), process $!, log logs/server/replica-$replica.log"
done
