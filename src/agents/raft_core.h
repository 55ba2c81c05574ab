#pragma once

#include <cstdint>
#include <functional>
#include <memory>

extern "C" {
#include <raft.h>
#include <raft_log.h>
#include <raft_private.h>
}

// The C library of third_party/raft, for epoch_log.cc: owners of its objects, and the chance that it asks for.
namespace cachalot::agents {

struct RaftDelete {
  void operator()(raft_server_t* server) const { raft_destroy(server); }
  void operator()(raft_entry_t* entry) const { raft_entry_release(entry); }
};
using RaftServer = std::unique_ptr<raft_server_t, RaftDelete>;
using RaftEntry = std::unique_ptr<raft_entry_t, RaftDelete>;

// While it lives, what the library wants of chance on this thread comes from here.
class RaftChance {
 public:
  explicit RaftChance(const std::function<uint64_t()>& random);
  ~RaftChance();
  RaftChance(const RaftChance&) = delete;
  RaftChance& operator=(const RaftChance&) = delete;
};

}  // namespace cachalot::agents
