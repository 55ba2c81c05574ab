#include "faults/network_nodes.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/error.h"

namespace cachalot::test {
namespace {

template <class... Args>
void run(fmt::format_string<Args...> format, Args&&... args) {
  const std::string command = fmt::format(format, std::forward<Args>(args)...);
  CHECK(std::system(command.c_str()) == 0, "{}", command);
}

}  // namespace

NetworkNodes::NetworkNodes(int num_nodes) {
  std::string script =
      "set -e; source \"" CACHALOT_SOURCE_DIR "/tests/namespaces/network_nodes.sh\"; make_bridge 10.77.0.254";
  for (int node = 0; node < num_nodes; node++) {
    nodes_.push_back({.name = fmt::format("node{}", node), .address = fmt::format("10.77.0.{}", node + 1)});
    script += fmt::format("; add_node {} {}", node, nodes_.back().address);
  }
  run("bash -c '{}'", script);
}

void NetworkNodes::cut(int node) {
  run("ip link set veth{} down", node);
}

void NetworkNodes::mend(int node) {
  run("ip link set veth{} up", node);
}

}  // namespace cachalot::test
