# What all scripts of this folder must agree on, in one place.
cachalot=${CACHALOT:-cachalot}
model=${MODEL:-/home/workspace/models/DeepSeek-R1-awq}
nodes=(192.168.1.2 192.168.1.3 192.168.1.4 192.168.1.5)
devices=("0,1,2,3" "4,5,6,7") # of a node's replicas
server_port=7555              # of a node's first replica; the second has the next
rendezvous_port=54999         # on the first node: here the replicas find each other
router_port=8002              # on the first node
max_tokens=2048               # of a sequence, and of a step

replicas_per_node=${#devices[@]}
num_replicas=$((${#nodes[@]} * replicas_per_node))
# An upper bound of each buffer of the expert exchange: rows of R1's width from every replica, two bytes a number.
exchange_bytes=$((max_tokens * num_replicas * (7168 + 16 + 16) * 2))

# this_node: which of the nodes this machine is, from 0, by its addresses.
this_node() {
  local own=" $(hostname -I) " node
  for node in "${!nodes[@]}"; do
    if [[ $own == *" ${nodes[node]} "* ]]; then
      echo "$node"
      return
    fi
  done
  echo "none of this machine's addresses ($own) is one of ${nodes[*]}; see cluster.sh" >&2
  return 1
}
