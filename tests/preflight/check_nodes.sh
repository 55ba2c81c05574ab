#!/usr/bin/env bash
# check_nodes.sh CACHALOT --file CLUSTER.yaml ...: `cachalot check` of nodes that tests/cluster/in_namespaces.sh has made, as
# they are and with faults. Further flags are those of that script's other users.
set -euo pipefail
cachalot=$1 file=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$file" "$work/nodes.yaml"

fail() { echo "check_nodes.sh: $*"; cat "$work/output"; exit 1; }
check() {  # STATUS FLAGS...: runs it, keeps what it says
  local wanted=$1 status=0
  shift
  timeout 100 "$cachalot" check "$@" >"$work/output" 2>&1 || status=$?
  [[ $status == "$wanted" ]] || fail "status $status instead of $wanted"
  sleep 0.5
  ! pgrep -x cachalot >/dev/null || fail "it has left processes behind"
}
says() { grep -qE -- "$1" "$work/output" || fail "it does not say '$1'"; }

# As they are: every node is shown, and a link of each two in both directions.
check 0 "$work/nodes.yaml" --json "$work/check.json"
for node in 1 2 3 4; do says "node$node .* eth0 "; done
[[ $(grep -oE '[0-9.]+ / [0-9.]+' "$work/output" | wc -l) == 12 ]] || fail "not twelve figures of links"
cat "$work/output"
grep -q '"links":{"size":4' "$work/check.json" || fail "no links in the JSON"
check 0 "$work/nodes.yaml" --full

# A port that is taken, on one node.
ip netns exec node2 python3 -m http.server --bind 0.0.0.0 7555 >/dev/null 2>&1 &
listener=$!
sleep 1
check 1 "$work/nodes.yaml"
says 'error: (10.78.0.2|node2): port 7555 cannot be listened on: Address already in use'
kill $listener
wait $listener 2>/dev/null || true

# Another model on one node.
model=$(sed -n 's/^model: //p' "$work/nodes.yaml")
mkdir "$work/same" "$work/other"
cp -r "$model" "$work/same/m"
cp -r "$model" "$work/other/m"
sed -i 's/"vocab_size"/ "vocab_size"/' "$work/other/m/config.json"
awk -v work="$work" '/^model:/ {print "model: m"; next} /^devices:/ {print "folder: " work "/same"} {print}' \
  "$work/nodes.yaml" >"$work/relative.yaml"
if grep -q '^nodes:' "$work/relative.yaml"; then  # not in Slurm, whose nodes are the allocation's
  sed -i "s,^nodes:.*,nodes: [10.78.0.1\, 10.78.0.2\, 10.78.0.3\, {address: 10.78.0.4\, folder: $work/other}]," "$work/relative.yaml"
  check 1 "$work/relative.yaml"
  says 'error: 10.78.0.4: its model has the fingerprint'

  # A node that is not there: the others are shown all the same.
  sed 's,^nodes:.*,nodes: [10.78.0.1\, 10.78.0.99],' "$work/nodes.yaml" >"$work/absent.yaml"
  check 1 "$work/absent.yaml"
  says 'error: 10.78.0.99: cannot be asked: ended with status 255'
  says '^10.78.0.1 +node1'

  # An address that is another node's.
  sed 's,^nodes:.*,nodes: [10.78.0.1\, {address: 10.78.0.3\, ssh: {host: 10.78.0.2\, user: root}}],' "$work/nodes.yaml" \
    >"$work/foreign.yaml"
  check 1 "$work/foreign.yaml"
  says 'error: 10.78.0.3: nobody can listen at this address there'
fi
