#pragma once

#include <string>

#include "base/error.h"

namespace cachalot {

// Checks that this host has the interfaces named, so that UCX can use them: "eth0", or "eth0,eth1".
Status check_network_interfaces(const std::string& names);

// The interface through which this host reaches another, or the one that has the address, if it is this host's own.
Result<std::string> network_interface_to(const std::string& host);

// The ports of this host's RDMA adapters, as UCX names them: "mlx5_0:1,mlx5_1:1"; empty where there are none.
std::string rdma_devices();

}  // namespace cachalot
