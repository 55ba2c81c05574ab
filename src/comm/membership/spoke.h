#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/progress.h"
#include "comm/membership/agreement.h"
#include "comm/membership/connection.h"
#include "comm/membership/group_state.h"
#include "comm/membership/role.h"

namespace cachalot::control {

// The end of every rank but 0: it connects to rank 0, waits for the group to form, answers rank 0's heartbeats, and
// watches rank 0 and the processes on its own node.
class Spoke : public Role {
 public:
  Spoke(boost::asio::io_context& context, const JoinOptions& options, Hello own, GroupState& state);

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
  void resolve();
  void connect(const boost::asio::ip::tcp::resolver::results_type& endpoints);
  void on_connected(boost::asio::ip::tcp::socket socket);
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

  const JoinOptions options_;
  Timing timing_;
  const Hello own_;
  GroupState& state_;
  boost::asio::io_context& context_;
  boost::asio::ip::tcp::resolver resolver_;
  boost::asio::steady_timer attempt_timer_;  // of connecting, and between two attempts
  boost::asio::steady_timer watch_timer_;
  std::shared_ptr<boost::asio::ip::tcp::socket> attempt_;
  std::shared_ptr<Connection> connection_;

  PatientClock clock_;
  Clock::time_point join_deadline_;
  Notices notices_;            // of waiting for rank 0
  Lateness lateness_;          // of rank 0
  Clock::time_point heard_;    // from rank 0, as PatientClock counts
  Clock::time_point planned_;  // of the watch timer
  Nonce rank0_nonce_{}, nonce_{};
  std::optional<Activity> rank0_activity_;
  bool accepted_ = false, formed_ = false, leaving_ = false;
  bool watching_ = false;  // the watch timer is armed
};

}  // namespace cachalot::control
