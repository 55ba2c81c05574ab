#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agents/log_state.h"
#include "agents/raft_core.h"
#include "base/error.h"

namespace cachalot::agents {

// Where an agent's state is kept.
class Disk {
 public:
  virtual ~Disk() = default;
  // Replaces what is there as a whole: after a crash it is the old or the new. `done` comes later, when the new would
  // outlive one, never from within the call. One at a time.
  virtual void write(std::string state, std::function<void(Status)> done) = 0;
};

struct LogTiming {
  std::chrono::milliseconds election{500};  // silence of a leader, once to twice as long, until another is sought
  std::chrono::milliseconds heartbeat{100};
};

// One agent's part of the log of epochs. The rules are Raft's, in the library's core (raft_core.h); this adds what that
// leaves open: voters that come and go, the state on disk, and the leader's lease. Nothing leaves this object before
// the state that it rests on would outlive a crash. Single-threaded; no time, chance, file or connection of its own.
class EpochLog {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  struct Events {
    std::function<void(int voter, int server, std::string message)> send;  // may be lost, late, and twice
    std::function<void(const Epoch&)> decided;                             // in order; what is passed over comes never
    std::function<uint64_t()> random;
  };

  // The state is not blank. Of what is on disk, `decided` begins with the epoch behind the base.
  EpochLog(LogState state, const LogTiming& timing, Disk& disk, Events events, Time now);
  ~EpochLog();
  EpochLog(const EpochLog&) = delete;
  EpochLog& operator=(const EpochLog&) = delete;

  // Several times within a heartbeat.
  void tick(Time now);
  void receive(Time now, int from, int from_server, std::string_view message);

  const LogName& name() const { return name_; }
  int voter() const { return voter_; }
  // The others have decided to do without this voter: nothing more comes of it, and its id does not come back.
  bool is_removed() const { return is_removed_; }
  // Leads, and has decided something since: it knows all that was decided before.
  bool leads() const;
  // Until then no other leads: a majority has promised it. What this one knows as decided is the newest until then.
  Time lease_until(Time now) const;
  std::optional<Time> leads_since() const { return leads() ? std::optional(leads_since_) : std::nullopt; }
  // The server of the leader that this one has heard last.
  std::optional<int> leader_server() const;

  // Of a leader. False: it leads no more, or something is still undecided.
  bool propose(Time now, const Epoch& next);
  bool admit(Time now, int voter, int server);
  bool retire(Time now, int voter);
  bool is_undecided() const;

  const Epoch& decided() const { return decided_; }  // on whatever the disk holds of it
  std::vector<Voter> voters() const;                 // decided
  LogBase base() const { return base_; }
  LogState state() const;
  bool is_written() const { return num_written_ == num_changes_; }

 private:
  struct Callbacks;  // the library's
  friend struct Callbacks;
  // What tells two states apart: a log's last entry has all others behind it.
  struct Stamp {
    int64_t term = 0, vote = 0, last_index = 0, last_term = 0, base_index = 0;
    bool operator==(const Stamp&) const = default;
  };
  struct Held {
    uint64_t change;  // that must be on disk before
    std::function<void()> leave;
  };

  void build(const LogState& state);
  template <class Call>
  int call(Time now, Call call);
  void settle();
  void write();
  void release();
  void compact();
  bool append(Time now, int type, const std::string& data);
  template <class Message>
  void send(int voter, const Message& message);
  void hear(int from, Time sent, int64_t request_term, int64_t term);
  void tell_decided(const Epoch& epoch);
  Stamp stamp() const;
  const LogTiming timing_;
  Disk& disk_;
  const Events events_;
  const Time begin_;
  LogName name_;
  int voter_ = 0, server_ = 0;
  uint64_t made_for_ = 0;
  Time now_;

  RaftServer core_;
  std::map<int, int> servers_;  // of voters, by id
  LogBase base_;
  Epoch decided_;
  std::string sent_base_;             // encoded, while the library reads it
  std::optional<LogBase> installed_;  // that the leader has sent, in place of what is here
  bool is_removed_ = false;
  bool led_ = false;
  Time leads_since_, heard_leader_;
  std::map<int, Time> acknowledged_;  // by voter: when it was sent what a voter has answered last

  Stamp stamp_;
  uint64_t num_changes_ = 0, num_written_ = 0;
  bool writing_ = false;
  std::vector<std::function<void()>> fresh_;  // of the call under way
  std::deque<Held> held_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace cachalot::agents
