#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

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

}  // namespace cachalot
