#!/usr/bin/env bash
# in_namespaces.sh ssh|slurm CACHALOT MODEL NUM_NODES up_faults FLAGS...
#
# Makes nodes on this machine: network namespaces joined by a bridge, each with a name, and an sshd or a slurmd of its own.
# Writes a cluster file that starts servers through it, and runs the command with the flags that tell it of all that
# (within an allocation of all nodes, for Slurm). Everything goes with the command.
#
# Status 77: this is not root, or what it takes is not installed.
set -euo pipefail
source "$(dirname "$0")/../namespaces/network_nodes.sh"
launcher=$1
binary=$(realpath "$2")
model=$(realpath "$3")
num_nodes=$4

[[ $(id -u) == 0 ]] || { echo "skipped: daemons in namespaces take root"; exit 77; }
case $launcher in
  ssh) needs ip /usr/sbin/sshd ssh-keygen ;;
  slurm) needs ip munged slurmctld slurmd salloc srun ;;
esac
enter_namespaces -nmu "$0" "$@"

folder=$(mktemp -d)
cleanup() {
  local status=$?
  if ((status)); then tail -n 15 "$folder"/*.log; fi
  rm -rf "$folder"
  end_all
}
trap cleanup EXIT

# wait_for WHAT COMMAND...: until the command succeeds, at most 20 s.
wait_for() {
  local what=$1 attempt
  shift
  for ((attempt = 0; attempt < 200; attempt++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  echo "$what is not there after 20 s"
  exit 1
}

make_bridge 10.78.0.254
mkdir /run/sshd
chmod 755 "$folder"
hostname head
echo "127.0.0.1 localhost
10.78.0.254 head" >"$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
addresses=()
for ((node = 1; node <= num_nodes; node++)); do
  echo "10.78.0.$node node$node" >>"$folder/hosts"
  addresses+=("10.78.0.$node")
  add_node "$node" "10.78.0.$node"
done
# on_node NODE COMMAND...
on_node() { ip netns exec "node$1" unshare -u bash -c 'hostname "$0" && exec "$@"' "node$1" "${@:2}"; }

start_sshds() {
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
  for ((node = 1; node <= num_nodes; node++)); do
    on_node "$node" /usr/sbin/sshd -D -e -f "$folder/sshd_config" 2>"$folder/sshd$node.log" &
  done
  for ((node = 1; node <= num_nodes; node++)); do
    wait_for "the sshd of node $node" bash -c ": </dev/tcp/10.78.0.$node/22"
  done
  cat <<YAML
nodes: [$(IFS=,; echo "${addresses[*]}")]
ssh:
  user: root
  key: $folder/key
  options: [UserKnownHostsFile=$folder/known_hosts, StrictHostKeyChecking=accept-new]
YAML
}

start_slurm() {
  head -c 128 /dev/urandom >"$folder/munge.key"
  chmod 400 "$folder/munge.key"
  mkdir -m 755 "$folder/munge" "$folder/state"
  munged --force --key-file "$folder/munge.key" --socket "$folder/munge/socket" --pid-file "$folder/munge/pid" \
    --seed-file "$folder/munge/seed" --log-file "$folder/munged.log" >&2
  cat >"$folder/slurm.conf" <<CONFIG
ClusterName=nodes
SlurmctldHost=head
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldPidFile=$folder/slurmctld.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
NodeName=node[1-$num_nodes] CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
CONFIG
  echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf" # asked for, and not used: there is none in a namespace
  slurmctld -D >"$folder/slurmctld.log" 2>&1 &
  for ((node = 1; node <= num_nodes; node++)); do
    on_node "$node" slurmd -D >"$folder/slurmd$node.log" 2>&1 &
  done
  wait_for "a slurm of $num_nodes idle nodes" bash -c "[[ \$(sinfo -h -t idle -o %D) == $num_nodes ]]"
}

run=()
export SLURM_CONF=$folder/slurm.conf
case $launcher in
  ssh) start_sshds >"$folder/launcher.yaml" ;;
  slurm)
    start_slurm >"$folder/launcher.yaml"
    run=(salloc --quiet --nodes="$num_nodes" --exclusive)
    ;;
esac

cat - "$folder/launcher.yaml" >"$folder/nodes.yaml" <<YAML
model: $model
served-model-name: nano
launcher: $launcher
program: $binary
devices: 2
tensor-parallel-size: 2
enable-expert-parallel: true
serve: {threads: 1, num-gpu-blocks-override: 256, max-model-len: 2048}
router: {port: 8002}
restart: {longest-wait: 1, most: 1000000}
YAML

status=0
"${run[@]}" "${@:5}" --file "$folder/nodes.yaml" --port 8002 --nodes "$num_nodes" --cut 'ip link set veth{} down' \
  --mend 'ip link set veth{} up' || status=$?
left=$(pgrep -xc cachalot || true)
[[ $left == 0 ]] || { echo "$left processes of cachalot are left"; status=1; }
exit "$status"
