#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/process.h"
#include "cluster/commands.h"
#include "http/client.h"
#include "serve/server_state.h"

namespace cachalot {

struct ProcessPlan {
  std::string label, node, url, log;  // as in MemberState
  Words words;                        // of this machine, with a lease at their end that reports (cluster/lease.h)
  std::string folder;                 // of this machine
  int num_ranks = 0;                  // 0: the router
};

// Asks one server now and then how it is (GET /state), without anybody waiting for the answer. Used by one thread.
class StateProbe {
 public:
  using Clock = std::chrono::steady_clock;

  // Borrows the client. `url`: of the server; its path does not matter. More ranks than that are no answer.
  StateProbe(const http::Client& client, http::Url url, size_t most_ranks);
  ~StateProbe();
  StateProbe(const StateProbe&) = delete;
  StateProbe& operator=(const StateProbe&) = delete;

  // Asks anew if the last question was asked `interval` ago and is through.
  void ask(std::chrono::milliseconds interval);
  // Forgets what it heard: the server is started anew.
  void reset();
  // What it last said; nothing: it has not answered yet.
  const std::optional<ServerState>& state() const { return state_; }
  // How long it has not answered any more; nothing heard since the reset counts from there.
  Clock::duration silence() const { return Clock::now() - heard_; }

 private:
  void hear();

  const http::Client& client_;
  http::Url url_;
  const size_t most_ranks_;
  Clock::time_point asked_, heard_ = Clock::now();
  std::optional<http::Running<Result<http::Response>>> call_;  // under way
  std::optional<ServerState> state_;
};

// One server, or the router, of a cluster: started, held by its lease, asked for its state, and how it ended.
class WatchedProcess {
 public:
  // Borrows the client.
  static Result<std::unique_ptr<WatchedProcess>> create(const ProcessPlan& plan, const http::Client& client);

  const ProcessPlan& plan() const { return plan_; }
  Status start();
  void terminate();  // it drains, and ends
  // At first only the lease is told; if that is of no use (a connection that is cut), what holds it here is ended.
  void kill();

  // Takes what there is to know now: its end, its state; renews the lease. To be called a few times a second.
  void update();
  bool runs() const { return child_.has_value(); }
  int pidfd() const { return child_ ? child_->pidfd() : -1; }
  // After an end: how it was and what the process itself said of it, once.
  std::optional<std::string> take_end() { return std::exchange(end_, std::nullopt); }
  // A server: that it takes requests. The router: that it answers; it may have nobody to send requests to yet.
  bool is_up() const;
  bool takes_requests() const;
  bool was_up() const { return was_up_; }  // at any time
  // What it answered before counts no more.
  void ask_anew() { probe_.reset(); }
  // It was up, but has not answered for so long that nobody should wait for it.
  bool is_silent() const;

  // How far its ranks have loaded: as many as the plan says.
  std::vector<int> percentages() const;
  pid_t pid() const { return child_ ? child_->pid() : 0; }

 private:
  WatchedProcess(ProcessPlan plan, const http::Client& client, http::Url url);
  void read_report();
  std::string describe_last(int status) const;
  std::string last_error() const;

  const ProcessPlan plan_;
  StateProbe probe_;
  std::optional<Process> child_;
  FileDescriptor report_;  // what the lease writes, without waiting
  std::string reported_;   // of that
  off_t log_begin_ = 0;    // where what the process writes to its log begins
  std::optional<std::string> end_;
  bool was_told_to_end_ = false, was_up_ = false, was_up_since_start_ = false;
  StateProbe::Clock::time_point renewed_;
};

}  // namespace cachalot
