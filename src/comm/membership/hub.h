#pragma once

#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/progress.h"
#include "comm/membership/agreement.h"
#include "comm/membership/group_state.h"
#include "comm/membership/network.h"
#include "comm/membership/role.h"

namespace cachalot::control {

// Rank 0's end: it listens, compares what the ranks bring, forms the group, and then is the one that sees every rank's
// heartbeats and tells all others of a loss. It goes on listening, to tell late ranks why they may not join.
class Hub : public Role {
 public:
  Hub(Network& network, const JoinOptions& options, Hello own, GroupState& state);

  ~Hub() override;  // closes all connections

  Status listen();
  void start() override;
  void stop_joining() override;
  void set_ready() override;
  void process_ended(int rank) override;
  void resume() override;
  void give_up(std::string why) override;
  void leave() override;

 private:
  using Clock = std::chrono::steady_clock;

  // A connection: of a stranger, until its Hello has been found right; then of a rank.
  struct Client {
    Client(ConnectionPtr its_connection, Clock::duration slack)
        : connection(std::move(its_connection)), lateness(slack) {}

    ConnectionPtr connection;
    Nonce nonce{};
    // As PatientClock counts.
    Clock::time_point heard;
    std::optional<Clock::time_point> asked;  // by the heartbeat that it has not answered yet
    Lateness lateness;
    std::optional<Hello> hello;
    bool proved = false, joined = false, ready = false;  // proved: that it has the group secret, if there is one
    Activity activity;

    int rank() const { return hello ? hello->introduction.rank : -1; }
    std::string name() const { return hello->introduction.name(); }
    bool is_loading() const { return joined && activity.phase == Phase::kLoading; }
  };
  using ClientPtr = std::shared_ptr<Client>;

  void greet(ConnectionPtr connection);
  void on_frame(const ClientPtr& client, const Frame& frame);
  void on_hello(const ClientPtr& client, const Frame& frame);
  void on_message(const ClientPtr& client, const Frame& frame);
  void on_failure(const ClientPtr& client, const Failure& failure);
  void on_closed(const ClientPtr& client, const Error& error);

  void admit(const ClientPtr& client);
  // Tells this one why it may not join; ends nobody else's start.
  void refuse(const ClientPtr& client, const Error& error);
  void dismiss_stranger(const ClientPtr& client, std::string_view what_it_did);
  void form();
  // The group cannot form: everyone who is there, or comes within a few seconds, is told why.
  void end_start(Error error);
  void finish_failed_start_if_told();

  void drop(const ClientPtr& client, std::string cause);
  void lose(int rank, std::string cause);
  void step_down(std::string cause);
  void let_go(const ClientPtr& client);
  void let_all_go();
  void finish_leaving_if_through();
  void tell_all_if_ready();

  void tick();
  void arm(Clock::time_point next);
  // Drops who was silent for too long; gives the moment at which the next one will have been.
  Clock::time_point judge(Clock::time_point now);
  void beat(Clock::time_point now);
  void log_what_is_missing();
  static void warn(const std::optional<std::string>& line);

  ClientPtr member(int rank) const;
  std::vector<int> missing_ranks() const;
  bool forming() const { return !formed_ && !verdict_; }
  template <class Message>
  void send(const ClientPtr& client, const Message& message) const {
    client->connection->send_frame(encode_frame(message, options_.epoch));
  }
  template <class Message>
  void send_to_all(const Message& message) const {
    for (const auto& [rank, client] : members_) send(client, message);
  }

  const JoinOptions options_;
  const Timing timing_;
  const Hello own_;
  GroupState& state_;
  Network& network_;
  const std::unique_ptr<Timer> timer_;
  PatientClock clock_;
  Clock::time_point planned_, next_beat_, join_deadline_;
  Notices notices_;               // of what is missing
  Complaints strange_, refused_;  // of clients that are no ranks, of ranks that may not join
  std::string last_refused_;      // while the group forms: why
  bool armed_ = false;            // timer_ is

  std::list<ClientPtr> strangers_;    // oldest first
  std::map<int, ClientPtr> members_;  // by rank; only those present
  std::set<ClientPtr> departing_;     // with their last message on the way
  std::optional<Error> verdict_;      // why the group cannot form
  std::set<int> told_;                // ranks that have got the verdict
  Clock::time_point linger_until_;
  uint64_t num_foreign_ = 0;  // messages of another epoch
  bool formed_ = false, own_ready_ = false, all_ready_ = false, leaving_ = false;
};

}  // namespace cachalot::control
