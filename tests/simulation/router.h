#pragma once

#include <memory>
#include <string>
#include <vector>

#include "router/request_course.h"
#include "simulation/world.h"

namespace cachalot::simulation {

// Who asked the router.
class Client {
 public:
  virtual ~Client() = default;
  virtual void hear_head(int status) = 0;
  virtual void hear(const std::string& bytes) = 0;
  virtual void hear_end(bool is_whole) = 0;
};

// The router's real logic (courses of requests, table, health) over simulated connections.
class Router {
 public:
  struct Place {
    int host = 0, port = 0;
  };
  Router(World& world, ProcessPtr process, const RouterOptions& options, std::vector<Place> replicas);

  class Call {
   public:
    virtual ~Call() = default;
    virtual void leave() = 0;  // the client goes away
  };
  std::shared_ptr<Call> ask(Client& client, int id, std::string body);
  std::vector<router::ReplicaStatus> status() { return state_.table.status(world_.now()); }
  bool any_up() const { return state_.table.any_up(); }
  size_t num_kept_bytes() const { return state_.takeover_memory.held(); }
  uint64_t num_takeovers() const { return num_takeovers_; }

 private:
  friend class RoutedCall;
  class Watch;

  World& world_;
  const ProcessPtr process_;
  const std::vector<Place> replicas_;
  router::RouterState state_;
  std::vector<std::shared_ptr<Watch>> watches_;
  uint64_t num_takeovers_ = 0;
};

}  // namespace cachalot::simulation
