#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot {

// Checks that this host has the interfaces named, so that UCX can use them: "eth0", or "eth0,eth1".
Status check_network_interfaces(const std::string& names);

// The interface through which this host reaches another, or the one that has the address, if it is this host's own.
Result<std::string> network_interface_to(const std::string& host);

// The ports of this host's RDMA adapters, as UCX names them: "mlx5_0:1,mlx5_1:1"; empty where there are none.
std::string rdma_devices();

// As if the environment had the variable UCX_<key>.
struct UcxSetting {
  std::string key, value;
};

// UCX's own objects of one endpoint: a context and its one worker, used by one thread at a time.
class UcxWorker {
 public:
  static Result<std::unique_ptr<UcxWorker>> create(const std::vector<UcxSetting>& settings);
  ~UcxWorker();
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  ucp_worker_h handle() const { return worker_; }
  int event_fd() const { return event_fd_; }  // the worker's
  Result<std::string> address() const;

 private:
  UcxWorker() = default;

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;
};

}  // namespace cachalot
