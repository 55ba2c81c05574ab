#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agents/epoch.h"
#include "agents/epoch_log.h"
#include "base/error.h"
#include "comm/membership/role.h"

namespace cachalot::agents {

// What an agent needs of the world. No event comes from within a call.
class AgentHost : public Disk {
 public:
  // To the agent of a server, or the witness; may be lost, late, and come twice.
  virtual void send(int server, std::string message) = 0;
  virtual void start_rank(int rank, uint64_t process) = 0;
  virtual void kill_rank(int rank, uint64_t process) = 0;  // Agent::rank_ended() follows
  virtual void tell_rank(int rank, uint64_t process, const Order& order) = 0;
  virtual uint64_t random() = 0;
};

struct AgentOptions {
  int server = 0;  // this one's; the witness has the number behind the last
  int num_servers = 1, ranks_per_server = 1;
  bool has_witness = false;
  std::chrono::milliseconds failure_timeout{1'000};  // until the silent are lost
  std::chrono::milliseconds longest_wait{30'000};    // between two starts of a rank that does not stay

  int num_agents() const { return num_servers + (has_witness ? 1 : 0); }
  bool is_witness() const { return server >= num_servers; }
};

// The parent of a server's ranks, and this server's part in what the group decides. It starts its ranks, starts them
// again when they have ended, and kills who is silent, so that silence becomes a fact. All agents tell all others what
// their ranks do. The one that leads the log (EpochLog) proposes the next epoch when a member is lost or a rank is
// ready to come, and gives the others leases: a rank serves only while its agent has one for the newest epoch. An epoch
// without a member is proposed only when that member's process has ended, or its last lease is over. So two epochs
// never serve at the same time, whatever is slow, cut off, stopped or wakes again.
//
// Single-threaded; no time, chance, file or connection of its own.
class Agent {
 public:
  using Time = EpochLog::Time;
  using Duration = Time::duration;

  // The state: what the disk holds; none where the folder is empty. Starts its ranks at the first tick.
  Agent(const AgentOptions& options, std::optional<LogState> state, AgentHost& host, Time now);

  // Every tick_interval(), and at once after what follows.
  void tick(Time now);
  std::chrono::milliseconds tick_interval() const { return options_.failure_timeout / 20; }
  void receive(Time now, int server, std::string_view message);
  void rank_said(Time now, const RankReport& report);
  void rank_ended(Time now, int rank, uint64_t process, const std::string& why);

  // A person says that these servers are lost for good. Without a majority this agent goes on alone, and who else is
  // left joins it; with one, a group that begins anew does not wait for them. Errors: one of them was just heard;
  // others are silent, too; another agent is to be asked.
  Status confirm_lost(Time now, const std::vector<int>& servers);

  const Epoch& epoch() const { return epoch_; }       // the newest decided that this one knows
  const EpochLog* log() const { return log_.get(); }  // none: it belongs to no group yet
  bool leads() const { return log_ && log_->leads(); }
  Time serve_until() const { return lease_until_; }
  bool hears(int server, Time now) const { return server == options_.server || is_heard(server, now); }
  // From now on ranks that end are not started again: this server is to end.
  void start_no_more() { starts_ranks_ = false; }
  bool has_majority(Time now) const { return lease_until_ > now; }

 private:
  // A rank of this server.
  struct Rank {
    int rank = 0;
    uint64_t process = 0;  // 0: none runs
    bool is_killed = false;
    RankReport report;
    Time started, heard;  // heard: as PatientClock counts
    Time next_start;
    int num_short_lives = 0;
  };
  // What another agent has said last; this one's own among them.
  struct Peer {
    uint64_t agent = 0;  // random, of its process
    int voter = 0;
    uint64_t made_for = 0;
    bool is_blank = true;
    std::vector<RankReport> ranks;
    Time sent;   // by its clock
    Time heard;  // as PatientClock counts; min: never
  };
  // Who has listed a process, and when last.
  struct Sighting {
    uint64_t agent = 0;
    Time last;  // as PatientClock counts
  };
  struct Report;
  struct Grant;
  struct Invitation;
  struct LogWord;

  Duration silence_limit() const { return options_.failure_timeout * 9 / 10; }
  Duration lease() const { return options_.failure_timeout * 6 / 10; }
  bool is_heard(int server, Time now) const;
  uint64_t random_id();

  void tend_ranks(Time now);
  void report(Time now);
  void on_report(Time now, int server, const Report& report);
  void on_decided(const Epoch& epoch);
  void order_ranks();
  void lead(Time now);
  bool tend_voters(Time now);
  void propose(Time now);
  bool is_lost(const EpochMember& member, Time now) const;
  const RankReport* last_word_of(const EpochMember& member) const;  // null: its agent does not list it
  void grant(Time now, int server, const Report& report);
  void renew_own_lease(Time now);

  void begin_log(LogState state, Time now);
  void begin_blank();
  void found(Time now);
  void forget(std::string_view why);
  // False: it is of another log; a greater one makes this agent forget its own.
  bool is_of_this_log(const LogName& name, int server);
  template <class Message>
  void send(int server, const Message& message);

  const AgentOptions options_;
  AgentHost& host_;
  const LogTiming timing_;
  const uint64_t agent_;
  int voter_ = 0;  // 0: not on disk yet
  uint64_t made_for_ = 0;
  control::PatientClock clock_;
  Time planned_, next_report_;
  bool is_naming_ = false;
  bool is_news_ = true;  // that the others do not know yet
  bool starts_ranks_ = true;

  std::vector<Rank> ranks_;
  std::map<int, Peer> peers_;             // by server
  std::map<uint64_t, Sighting> sighted_;  // by process
  std::unique_ptr<EpochLog> log_;         // none: blank
  Epoch epoch_;
  uint32_t over_epoch_ = 0;  // that a member is through with, though none is lost, and since when
  Time over_since_;
  uint32_t held_up_in_ = 0;  // that has lost somebody, while not all have shown where another finds them; since when
  Time held_up_since_;       // as PatientClock counts
  std::set<int> confirmed_;  // servers that a person has told this leader not to wait for
  Time lease_until_ = Time::min();  // for the ranks, by this node's clock
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace cachalot::agents
