#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "agents/rank_link.h"
#include "base/error.h"
#include "comm/world.h"
#include "config/options.h"
#include "serve/rank_epochs.h"

namespace cachalot {

// The place of a rank that an agent has started: it hears from its agent which epoch it is in and until when it may
// serve, tells it how it stands, and has a mesh that is connected anew in each epoch.
class AgentSeat {
 public:
  // Takes over options.agent_fd. world: of the rank's ways; own: the rank, without addresses.
  static Result<std::unique_ptr<AgentSeat>> take(const ParallelOptions& options, WorldOptions world, const Member& own);
  ~AgentSeat();

  Mesh& mesh() { return *mesh_; }
  RankEpochs& epochs() { return *epochs_; }

 private:
  AgentSeat(const ParallelOptions& options, std::unique_ptr<Mesh> mesh);
  void obey(const agents::Order& order);
  void report(const RankEpochs::Standing& standing);

  const int rank_;
  const uint64_t process_;
  const std::unique_ptr<Mesh> mesh_;
  agents::RankLink link_;
  std::unique_ptr<RankEpochs> epochs_;
};

}  // namespace cachalot
