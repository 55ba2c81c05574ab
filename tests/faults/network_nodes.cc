#include "faults/network_nodes.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/check.h"

namespace cachalot::test {
namespace {

template <class... Args>
void run(fmt::format_string<Args...> format, Args&&... args) {
  const std::string command = fmt::format(format, std::forward<Args>(args)...);
  CHECK(std::system(command.c_str()) == 0, "{}", command);
}

}  // namespace

NetworkNodes::NetworkNodes(int num_nodes) {
  run("mount -t tmpfs tmpfs /run && mkdir -p /run/netns");  // where `ip netns` keeps them
  run("ip link set lo up");
  run("ip link add bridge type bridge && ip addr add 10.77.0.254/24 dev bridge && ip link set bridge up");
  for (int node = 0; node < num_nodes; node++) {
    nodes_.push_back({.name = fmt::format("node{}", node), .address = fmt::format("10.77.0.{}", node + 1)});
    run("ip netns add node{0} && ip link add veth{0} type veth peer name eth0 netns node{0}", node);
    run("ip link set veth{} master bridge up", node);
    run("ip -n node{} addr add {}/24 dev eth0", node, nodes_.back().address);
    run("ip -n node{0} link set eth0 up && ip -n node{0} link set lo up", node);
  }
}

void NetworkNodes::cut(int node) {
  run("ip link set veth{} down", node);
}

void NetworkNodes::mend(int node) {
  run("ip link set veth{} up", node);
}

}  // namespace cachalot::test
