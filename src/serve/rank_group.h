#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "base/ports.h"
#include "comm/world.h"
#include "config/options.h"
#include "engine/placement.h"
#include "engine/rank_engine.h"
#include "placement/expert_placement.h"
#include "serve/agent_seat.h"
#include "serve/rank_board.h"
#include "serve/rank_processes.h"
#include "serve/server_state.h"

namespace cachalot {

// The settings that must be equal on all ranks of a group, as flags and values. What concerns one process alone (its
// address, threads, devices, seed, share of memory) is not among them.
std::vector<std::pair<std::string, std::string>> group_settings(const EngineOptions& engine,
                                                                const ParallelOptions& parallel);

// Which other ranks a process starts as its children.
enum class Starts {
  kReplica,  // the other ranks of its replica
  kGroup,    // all others of the group, on this machine
};

struct RankGroupOptions {
  EngineOptions engine;
  ParallelOptions parallel;
  Starts starts = Starts::kReplica;
  std::vector<std::string> command_line;  // of this process; its children's with a few flags behind
  std::stop_token stop;                   // until all ranks are ready: this process ends, and tells the others
  // A rank that another process started goes on for so long after it was told to end: its leader drains.
  std::optional<std::chrono::milliseconds> patience;
};

// This process among the ranks that run one model together: starts those that it is to start, meets all, and says where
// the rank stands. To be made by the main thread, and to outlive the engine.
class RankGroup {
 public:
  // Starts this process' children.
  static Result<std::unique_ptr<RankGroup>> start(const RankGroupOptions& options);
  // Waits for all ranks; what follows is for afterwards. Errors: what the ranks disagree on; a rank that did not come,
  // or ended.
  Status form();
  // Both.
  static Result<std::unique_ptr<RankGroup>> join(const RankGroupOptions& options);
  ~RankGroup();

  // This process leads its replica, and serves; the others follow.
  const ParallelOptions& parallel() const { return placement_.parallel; }
  const Placement& placement() const { return placement_; }
  std::vector<Member> members() const { return seat_ ? seat_->epochs().members() : world_->members(); }
  // How far loading is, for the others to know.
  void set_loaded(size_t num_done, size_t num_total);
  // Until then, and then this one is ready. Of a rank that an agent has started: until it is in an epoch in which its
  // replica serves.
  Status meet(RankEngine& engine);
  // Where the next epoch is heard of; null: there is none.
  Epochs* epochs() { return seat_ ? &seat_->epochs() : nullptr; }
  void set_draining() { set_phase(RankPhase::kDraining); }
  // Writes what this rank has done where the process that started it sees it.
  void publish(const RankReport& report);
  // Of this process' rank, which brings its own, and of those that it started; of others, nothing is known here.
  std::vector<RankReport> reports(const RankReport& own) const;
  // How often rows of these ranks have chosen each expert, as JSON.
  std::string expert_load() const;

  // From any thread, from the start on: how the ranks of this replica are, and why it failed, if it did.
  std::vector<StateOfRank> states() const;
  RankPhase phase() const;
  std::optional<StateFailure> failure() const;
  uint32_t epoch() const { return seat_ ? seat_->mesh().epoch() : epoch_.load(); }  // 0: the group has not formed

  // Waits until the ranks that this process started have ended by themselves.
  void wait_for_children() { processes_.reset(); }
  // Says goodbye, so that the end of this process is no failure.
  void leave() {
    if (world_) world_->membership().leave();
  }
  // This rank cannot go on. Tells the others why, unless it is for a rank that all have lost; gives what is left to
  // say: every loss has been logged already.
  Error give_up(const Error& error);

 private:
  explicit RankGroup(const RankGroupOptions& options);
  size_t num_choices() const {
    return static_cast<size_t>(experts_.num_layers) * static_cast<size_t>(experts_.num_experts);
  }
  Status start_children();
  Status form_world();
  Status take_seat();
  Result<WorldOptions> world_options(IsaLevel isa) const;
  void end_early(const std::string& why);
  void set_phase(RankPhase phase);
  bool is_ready_within(std::chrono::milliseconds patience);
  void set_failure(const Error& error, int rank);
  std::string death_of(const LostRank& lost);

  const RankGroupOptions options_;
  Placement placement_;
  std::chrono::milliseconds failure_timeout_{0};
  ExpertPlacement::Shape experts_;            // of the model: layers, and experts of each
  std::vector<uint64_t> own_choices_;         // of a process without a board
  std::optional<KeptPort> meeting_port_;      // of a group of this machine alone
  std::unique_ptr<RankBoard> board_;          // of a group of more than one
  std::vector<int> child_ranks_;              // of the processes, in their order
  std::unique_ptr<RankProcesses> processes_;  // none: this process starts no rank
  std::unique_ptr<World> world_;              // one of both, once it is formed
  std::unique_ptr<AgentSeat> seat_;           // of a rank that an agent has started
  std::atomic<uint32_t> epoch_{0};
  std::optional<std::stop_callback<std::function<void()>>> on_stop_;  // until all are ready

  mutable std::mutex own_mutex_;  // guards what follows
  std::condition_variable phase_changed_;
  RankState own_;
  std::optional<StateFailure> failure_;
};

// The life of a rank that another process started: loads its part, takes part until the leader has enough.
Status run_started_rank(const RankGroupOptions& options);

}  // namespace cachalot
