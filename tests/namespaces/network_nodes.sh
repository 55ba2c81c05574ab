# Sourced by tests that make nodes on this machine: network namespaces, which a bridge joins in a network namespace of the
# test's own. All of it goes with the test.

# needs PROGRAM...: where one is not installed the test is skipped.
needs() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || { echo "skipped: no $program"; exit 77; }
  done
}

pid_namespace=(--pid --fork --kill-child --mount-proc)

# unshare_all FLAGS COMMAND...: runs it in the namespaces of unshare's FLAGS, and in one of processes, which ends with it.
unshare_all() { unshare "$1" "${pid_namespace[@]}" "${@:2}"; }

# may_unshare FLAGS: whether it would run.
may_unshare() { unshare_all "$1" true 2>/dev/null; }

# enter_namespaces FLAGS "$0" "$@": starts the script anew in them, once.
enter_namespaces() {
  [[ -z ${CACHALOT_IN_NAMESPACE:-} ]] || return 0
  may_unshare "$1" || { echo "skipped: namespaces are not allowed here"; exit 77; }
  # Whoever ends the script ends unshare itself, and with it all.
  CACHALOT_IN_NAMESPACE=1 exec unshare "$1" "${pid_namespace[@]}" "${@:2}"
}

# end_all: every process of this pid namespace but the script itself.
end_all() { kill -KILL -1 2>/dev/null || true; }

# make_bridge [ADDRESS]: what joins the nodes; with the address of this namespace among them. /run is a new one.
make_bridge() {
  mount -t tmpfs tmpfs /run
  mkdir -p /run/netns # where `ip netns` keeps them
  ip link set lo up
  ip link add bridge type bridge
  if (($# > 0)); then ip addr add "$1/24" dev bridge; fi
  ip link set bridge up
}

# add_node NUMBER ADDRESS: the namespace nodeNUMBER, whose eth0 has the address; `vethNUMBER` is its link's end here.
add_node() {
  ip netns add "node$1"
  ip link add "veth$1" type veth peer name eth0 netns "node$1"
  ip link set "veth$1" master bridge up
  ip -n "node$1" addr add "$2/24" dev eth0
  ip -n "node$1" link set eth0 up
  ip -n "node$1" link set lo up
}
