#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "http/client.h"
#include "page/cluster_view.h"
#include "router/proxy.h"

namespace cachalot::router {

// What the page shows of the replicas: what the router knows of each, and what each says of itself (GET /state). Used
// by one thread.
class ClusterLook {
 public:
  explicit ClusterLook(std::shared_ptr<ProxyContext> context);
  ~ClusterLook();

  // As of the last answers; asks anew. Waits for nobody, so that a replica that is silent holds up nothing.
  std::vector<page::MemberView> members();

 private:
  struct Question {
    std::optional<http::Running<Result<http::Response>>> running;
    std::optional<page::ServerView> answer;
    int pause = 0;  // looks until it is asked again
  };

  const std::shared_ptr<ProxyContext> context_;
  const http::Client client_;
  std::vector<Question> questions_;  // [replica]
};

}  // namespace cachalot::router
