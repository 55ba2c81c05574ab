#pragma once

#include <memory>
#include <vector>

#include "http/io_threads.h"
#include "router/proxy.h"

namespace cachalot::router {

// Asks every replica again and again how it is and what it has to do.
class HealthWatch {
 public:
  explicit HealthWatch(const std::shared_ptr<ProxyContext>& context);
  // Stops asking; does not wait.
  ~HealthWatch();
  HealthWatch(const HealthWatch&) = delete;
  HealthWatch& operator=(const HealthWatch&) = delete;

 private:
  std::vector<http::Running<Status>> running_;
};

}  // namespace cachalot::router
