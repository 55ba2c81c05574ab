#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/process.h"
#include "cluster/cluster_state.h"
#include "cluster/commands.h"
#include "cluster/health_probe.h"
#include "cluster/log_tail.h"

namespace cachalot {

struct ProcessPlan {
  std::string label, node, url, log;  // as in MemberState
  Words words;                        // of this machine, with a lease at their end (cluster/lease.h)
  std::string folder;                 // of this machine
  int num_ranks = 0;                  // 0: the router
};

// One server, or the router, of a cluster: started, held by its lease, asked for its health, its log read.
class WatchedProcess {
 public:
  // Borrows the client.
  static Result<std::unique_ptr<WatchedProcess>> create(const ProcessPlan& plan, const http::Client& client);

  const ProcessPlan& plan() const { return plan_; }
  Status start();
  void terminate();  // it drains, and ends
  // At first only the lease is told; if that is of no use (a connection that is cut), what holds it here is ended.
  void kill();

  // Reads what there is to know now: its end, its log, its health; renews the lease. To be called a few times a second.
  void update();
  bool runs() const { return child_.has_value(); }
  int pidfd() const { return child_ ? child_->pidfd() : -1; }
  // After an end: how it was and what its log says of it, once.
  std::optional<std::string> take_end() { return std::exchange(end_, std::nullopt); }
  // A server: that it takes requests. The router: that it answers; it may have nobody to send requests to yet.
  bool is_up() const;
  bool takes_requests() const { return probe_.status() == 200; }
  bool was_up() const { return was_up_; }  // at any time
  // What it answered before counts no more.
  void ask_anew() { probe_.reset(); }
  // It was up, but has not answered for so long that nobody should wait for it.
  bool is_silent() const;

  std::vector<int> percentages() const { return percentages_; }
  pid_t pid() const { return child_ ? child_->pid() : 0; }

 private:
  WatchedProcess(ProcessPlan plan, const http::Client& client, http::Url url);
  void read_log();

  const ProcessPlan plan_;
  HealthProbe probe_;
  LogTail tail_;
  std::optional<Process> child_;
  std::optional<std::string> end_;
  bool was_told_to_end_ = false, was_up_ = false;
  HealthProbe::Clock::time_point renewed_;
  std::vector<int> percentages_;
  std::string complaint_, last_line_;  // of its log since the start: the first error, and the last of all
};

}  // namespace cachalot
