#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/membership/group_state.h"
#include "comm/membership/role.h"
#include "engine/lockstep.h"
#include "placement/council.h"
#include "scheduler/fake_model_test_util.h"
#include "serve/leader.h"
#include "serve/metrics.h"
#include "simulation/cluster.h"
#include "simulation/control_network.h"
#include "simulation/experts.h"

namespace cachalot::simulation {

class Rank;

// What a rank needs of the cluster around it.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual World& world() = 0;
  virtual const Scenario& scenario() const = 0;
  virtual const FakeModel& model() const = 0;
  virtual Tally& tally() = 0;
  virtual Rank* rank_of(int process_id) = 0;  // none: it is dead
  virtual const Asked& request(int id) const = 0;
  // A leader answers HTTP at this port of its host.
  virtual int http_port(int replica) const = 0;
};

// One rank's process: the real membership, agreements and (of a leader) Leader, over a toy of a model whose every token
// is a hash of all before it, and whose ranks must all take every step.
class Rank {
 public:
  Rank(Ranks& ranks, int replica, int tp_rank, ProcessPtr process);
  ~Rank();

  const ProcessPtr& process() const { return process_; }
  int replica() const { return replica_; }
  int group_rank() const { return group_rank_; }
  bool is_leader() const { return tp_rank_ == 0; }
  bool is_ready() const { return phase_ >= Phase::kBetweenRounds && phase_ < Phase::kEnded; }
  bool is_idle() const { return phase_ == Phase::kSleeping || phase_ == Phase::kAwaitingRound; }

  // SIGTERM: takes no more, does what it has, and leaves.
  void terminate();
  // A process on this host, that shares memory with this one, has ended.
  void see_death(const Rank& other);
  // A child of this one ended while the group formed.
  void see_childs_end() {
    if (phase_ == Phase::kJoining) exit("a rank that it started has ended");
  }
  ReplicaStats stats() const { return leader_->stats(); }  // of a leader
  // When all is quiet: nothing is left over.
  void check_quiet() const;

 private:
  friend class Api;
  enum class Phase {
    kJoining,
    kLoading,
    kAwaitingOthers,  // who load
    kBetweenRounds,
    kSleeping,
    kAgreeing,
    kAwaitingRound,  // of a follower
    kMeeting,        // over where the experts are
    kAwaitingOffer,  // of where they are to be
    kComputing,
    kExchanging,
    kAwaitingTokens,  // of a follower
    kDraining,        // after a failure or the end: answers go out
    kEnded
  };
  // What every rank sends every other in a step: in place of token rows.
  struct StepWord {
    uint64_t step;
    int64_t num_rows;  // of the whole group
    int32_t step_idx, num_steps;
    uint64_t state;  // a hash of what the rank computed for its replica
    uint64_t placement;
  };
  struct Choice {
    TokenId token;
    int32_t finished;
  };
  struct Active {
    RoundSequence now;
    TokenId last = 0;
    bool finished = false;
    const PlannedSequence* planned = nullptr;
    SequenceResult* result = nullptr;
    int num_sampled = 0;
  };

  // --- Membership.
  void join();
  void look_at_membership();
  void load();
  void connect_mesh(const control::Formed& formed);
  void fail_mesh(const Error& error);
  void give_up(const Error& error);
  void exit(const std::string& why);

  // --- Rounds.
  void wake();  // looks for something to do, soon
  void advance();
  bool advance_once();  // whether it got on
  bool begin_round();
  bool sleep();
  bool agree();
  bool take_round();
  void start_steps(int num_steps);
  bool meet();
  bool take_offer();
  void bring_experts();
  void start_step();
  bool exchange();
  bool end_step();
  bool take_tokens();
  bool end_round();
  void await_with_deadline(Phase phase, const char* what);
  uint64_t compute(const RoundSequence& sequence);
  void sample();
  bool has_from(const std::vector<int>& peers) const;
  std::string take_from(int peer);
  template <class Message>
  Message take_message(int peer);
  void send_to(int peer, std::string bytes);
  void fail(const Error& error);

  Ranks& ranks_;
  World& world_;
  const Layout& layout_;
  const int replica_, tp_rank_, group_rank_;
  const ProcessPtr process_;

  ControlNetwork network_;
  JoinOptions join_options_;
  control::GroupState state_;
  std::unique_ptr<control::Role> role_;
  std::vector<int> member_processes_;

  std::map<int, std::shared_ptr<Way>> ways_;                 // to the other ranks, by group rank
  std::map<int, std::deque<std::string>> from_;              // what came of them
  std::vector<int> other_leaders_, own_ranks_, step_peers_;  // group ranks
  std::optional<Error> failure_;                             // of the mesh

  RoundLimits limits_;
  Agreements agreements_;
  std::optional<Metrics> metrics_;  // of a leader
  std::optional<Leader> leader_;
  std::unique_ptr<class Api> api_;
  LeaderMail mail_;
  bool is_draining_ = false, wake_is_planned_ = false, says_goodbye_ = false;

  Phase phase_ = Phase::kJoining;
  uint64_t num_waits_ = 0;  // so that a deadline knows its wait
  Wish wish_;
  Agreement agreement_;
  Round round_;
  std::vector<std::byte> round_bytes_;
  std::string announced_;
  std::vector<Active> active_;
  StepResult result_;
  int num_steps_of_round_ = 0, step_idx_ = 0;
  uint64_t num_steps_ = 0, state_hash_ = 0;
  std::optional<Council> council_;  // of ranks that share the experts out
  CouncilWord own_word_;
  std::optional<Experts> experts_;
  uint64_t num_copyings_ = 0;
  std::vector<uint64_t> slots_;  // the toy's KV cache
};

}  // namespace cachalot::simulation
