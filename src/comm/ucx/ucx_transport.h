#pragma once

#include <ucp/api/ucp.h>

#include <chrono>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "comm/transport.h"

namespace cachalot {

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

struct UcxPeer {
  int rank = -1;
  std::string_view worker_address;
};

// Once they have all been heard. An error names the ranks at fault; then every peer that had connected finds out.
Result<std::unique_ptr<Transport>> connect_over_ucx(std::unique_ptr<UcxWorker> worker, int rank, uint64_t epoch,
                                                    std::span<const UcxPeer> peers, std::chrono::milliseconds deadline,
                                                    const std::stop_token& stop);

}  // namespace cachalot
