#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "http/server.h"
#include "page/cluster_history.h"

namespace cachalot::page {

// Where the page hears what happens; with an API key, for those who have one.
inline constexpr std::string_view kEventsPath = "/cluster/events";

// Looks at a cluster once a second, on a thread of its own, keeps the last hour, and tells all who listen at
// /cluster/events, each of whom is sent the same bytes. Thread-safe.
class Feed {
 public:
  static constexpr int kMostListeners = 64;
  // On the feed's thread; may take a while.
  using Look = std::function<ClusterView()>;

  explicit Feed(ClusterHistory::Names names);
  ~Feed();
  // Before the server starts.
  void register_routes(http::Server& server);
  void start(Look look);
  // Who listens is told that this was all, so that nobody waits for their end.
  void end();

 private:
  struct Hub;
  static http::awaitable<void> tell(std::shared_ptr<Hub> hub, http::ServerCall& call);

  const std::shared_ptr<Hub> hub_;  // requests outlive this
  std::jthread thread_;
};

}  // namespace cachalot::page
