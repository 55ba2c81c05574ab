#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "base/progress.h"
#include "comm/membership/agreement.h"
#include "comm/membership/group_state.h"
#include "comm/membership/network.h"
#include "comm/membership/role.h"

namespace cachalot::control {

// The end of every rank but 0: it connects to rank 0, waits for the group to form, answers rank 0's heartbeats, and
// watches rank 0 and the processes on its own node.
class Spoke : public Role {
 public:
  Spoke(Network& network, const JoinOptions& options, Hello own, GroupState& state);

  void start() override;
  void stop_joining() override;
  void set_ready() override;
  void process_ended(int rank) override;
  void resume() override;
  void give_up(std::string why) override;
  void leave() override;

 private:
  using Clock = std::chrono::steady_clock;

  // One attempt to reach rank 0; a failed one is followed by another.
  void connect();
  void on_connected(ConnectionPtr connection);
  void retry(std::string_view why);
  void fail_start(Error error);

  void on_frame(const Frame& frame);
  void on_challenge(const Challenge& challenge);
  void on_accepted(const Accepted& accepted);
  void on_formed(Formed formed);
  void set_rank0_activity(const Activity& activity);
  void on_failure(const Failure& failure);
  void on_left(int rank);
  void on_closed(const Error& error);
  void lose_rank0(std::string cause);

  Clock::duration silence_limit() const;  // of rank 0
  void watch_rank0();
  void on_watch();

  template <class Message>
  void send(const Message& message) {
    connection_->send_frame(encode_frame(message, options_.epoch));
  }

  const JoinOptions options_;
  Timing timing_;
  const Hello own_;
  GroupState& state_;
  Network& network_;
  const std::unique_ptr<Timer> retry_timer_, watch_timer_;
  std::list<std::unique_ptr<Timer>> answer_timers_;  // for each process that ended on this node
  uint64_t num_attempts_ = 0;                        // the last one counts
  ConnectionPtr connection_;

  PatientClock clock_;
  Clock::time_point join_deadline_;
  Notices notices_;            // of waiting for rank 0
  Lateness lateness_;          // of rank 0
  Clock::time_point heard_;    // from rank 0, as PatientClock counts
  Clock::time_point planned_;  // of the watch timer
  Nonce rank0_nonce_{}, nonce_{};
  std::optional<Activity> rank0_activity_;
  uint64_t num_foreign_ = 0;  // messages of another epoch
  bool accepted_ = false, formed_ = false, leaving_ = false;
  bool watching_ = false;  // the watch timer is armed
};

}  // namespace cachalot::control
