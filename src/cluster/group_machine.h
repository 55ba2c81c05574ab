#pragma once

#include <chrono>
#include <deque>
#include <string>
#include <vector>

#include "config/cluster_file.h"

namespace cachalot {

enum class GroupState {
  kStarting,    // its processes run, and not all are ready
  kReady,       // serves
  kLost,        // one has ended or answers no more; the others have a moment to end by themselves
  kBackingOff,  // none runs; the next start has its time
  kGaveUp,      // lost before it ever served, or too often
};
const char* to_text(GroupState state);

// Processes that live and die together: the servers of replicas that step in lockstep, or the router. Decides when they
// are started, killed, started anew; knows no process and no clock, so that it is told both.
class GroupMachine {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class Action {
    kNothing,
    kStart,  // all of them
    kKill,   // those that still run
  };
  // How long the others have to end by themselves, and to tell their clients, when one is lost.
  static constexpr std::chrono::milliseconds kGrace{1'000};

  GroupMachine(size_t num_members, const RestartPolicy& policy, Time now)
      : policy_(policy), runs_(num_members), ready_(num_members), due_(now) {}

  // What is to be done now; it counts as done. To be asked after each event, and every now and then.
  Action next(Time now);

  void member_ready(size_t member);
  // It answers no more, but runs; or a person asked for it. `why` is for the log.
  void member_lost(size_t member, const std::string& why, Time now);
  void member_ended(size_t member, const std::string& how, Time now);

  GroupState state() const { return state_; }
  bool is_ready(size_t member) const { return ready_[member]; }
  bool has_served() const { return has_served_; }
  int num_restarts() const { return num_restarts_; }
  int num_losses() const { return num_losses_; }
  // Of the last loss: which member it was, and why.
  size_t lost_member() const { return lost_member_; }
  const std::string& loss() const { return loss_; }
  // In kBackingOff: when the next start is due.
  Time due() const { return due_; }

 private:
  void after_all_ended(Time now);

  const RestartPolicy policy_;
  GroupState state_ = GroupState::kBackingOff;
  std::vector<bool> runs_, ready_;
  Time due_;  // of the next start, or of the next kill
  bool has_started_ = false, has_served_ = false;
  int num_restarts_ = 0, num_losses_ = 0;
  std::deque<Time> restarts_;  // those within the window
  size_t lost_member_ = 0;
  std::string loss_;
};

}  // namespace cachalot
