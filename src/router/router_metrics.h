#pragma once

#include <memory>
#include <string>
#include <vector>

#include "router/replica_table.h"

namespace cachalot::router {

// What an operator watches of the router, in Prometheus' text format. Thread-safe.
class RouterMetrics {
 public:
  RouterMetrics(const std::vector<std::string>& urls, const std::string& model);
  ~RouterMetrics();

  // A replica's answer has begun, so long after the request came; it has ended, whole or broken.
  void answer_began(size_t replica, double seconds);
  void answer_ended(size_t replica, int status, double seconds, bool is_whole);
  void passed_bytes(size_t replica, size_t num_to_replica, size_t num_to_client);
  // A request that this replica did not answer goes to another one.
  void retried(size_t replica);
  // An answer that this replica had begun goes on elsewhere; the client has waited so long for its next token; it ends,
  // since three servers died at the same one.
  void taken_over(size_t replica);
  void waited(double seconds);
  void blamed();
  // A request got no replica's answer but one of the router's own.
  void refused(int status);

  std::string render(const std::vector<ReplicaStatus>& replicas, int num_connections);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::router
