#!/usr/bin/env bash
# in_namespaces.sh CACHALOT MODEL NUM_NODES up_faults FLAGS...
#
# Makes nodes on this machine, network namespaces joined by a bridge, each with an sshd of its own, and a cluster file for
# them; then runs the command with the flags that tell it of them. All of it goes with the command.
#
# Status 77: this is not root, or there is no `ip` or `sshd`.
set -euo pipefail
binary=$(realpath "$1")
model=$(realpath "$2")
num_nodes=$3

if [[ -z ${CACHALOT_IN_NAMESPACE:-} ]]; then
  [[ $(id -u) == 0 ]] || { echo "skipped: sshd in namespaces takes root"; exit 77; }
  for program in ip /usr/sbin/sshd ssh-keygen; do
    command -v "$program" >/dev/null || { echo "skipped: no $program (packages iproute2, openssh-server)"; exit 77; }
  done
  unshare -nm --pid --fork true 2>/dev/null || { echo "skipped: namespaces are not allowed here"; exit 77; }
  CACHALOT_IN_NAMESPACE=1 exec unshare -nm --pid --fork --kill-child --mount-proc "$0" "$@"
fi

folder=$(mktemp -d)
cleanup() {
  rm -rf "$folder"
  kill -KILL -1 2>/dev/null || true # everything of this pid namespace
}
trap cleanup EXIT

mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/sshd
chmod 755 "$folder"
ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
ssh-keygen -q -t ed25519 -N '' -f "$folder/host_key"
cat >"$folder/sshd_config" <<CONFIG
HostKey $folder/host_key
AuthorizedKeysFile $folder/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
CONFIG

ip link set lo up
ip link add bridge type bridge
ip addr add 10.78.0.254/24 dev bridge
ip link set bridge up
addresses=()
for ((node = 1; node <= num_nodes; node++)); do
  ip netns add "node$node"
  ip link add "veth$node" type veth peer name eth0 netns "node$node"
  ip link set "veth$node" master bridge up
  ip -n "node$node" addr add "10.78.0.$node/24" dev eth0
  ip -n "node$node" link set eth0 up
  ip -n "node$node" link set lo up
  ip netns exec "node$node" /usr/sbin/sshd -D -e -f "$folder/sshd_config" 2>"$folder/sshd$node.log" &
  addresses+=("10.78.0.$node")
done

cat >"$folder/nodes.yaml" <<YAML
model: $model
served-model-name: nano
launcher: ssh
program: $binary
ssh:
  user: root
  key: $folder/key
  options: [UserKnownHostsFile=$folder/known_hosts, StrictHostKeyChecking=accept-new]
nodes: [$(IFS=,; echo "${addresses[*]}")]
devices: 2
tensor-parallel-size: 2
enable-expert-parallel: true
serve: {threads: 1, num-gpu-blocks-override: 256, max-model-len: 2048}
router: {port: 8002}
restart: {first-wait: 0.5, most: 1000000}
YAML

status=0
"${@:4}" --file "$folder/nodes.yaml" --port 8002 --nodes "$num_nodes" --cut 'ip link set veth{} down' \
  --mend 'ip link set veth{} up' || status=$?
left=$(pgrep -xc cachalot || true)
[[ $left == 0 ]] || { echo "$left processes of cachalot are left"; status=1; }
exit "$status"
