#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/membership/member.h"
#include "comm/membership/wire.h"

namespace cachalot::control {

// What this rank knows of its group: the control thread writes it down, the callers' threads wait for it. Only the own
// activity goes the other way.
class GroupState {
 public:
  explicit GroupState(const JoinOptions& options) : rank_(options.rank) {
    lost_.reserve(static_cast<size_t>(options.size));  // so that a loss is noted whole or not at all
  }

  // --- The control thread's.
  void set_formed(Formed formed);
  void set_start_failed(Error error);
  bool start_is_decided() const;
  // Logs the loss of a rank and tells the handler, once for each rank. Nothing more is reported once this rank knows
  // that it is the one which was cut off: what it sees of the others then means nothing.
  void report_lost(int rank, std::string cause, std::optional<Activity> doing);
  void set_left(int rank);
  bool is_present(int rank) const;  // neither lost nor left
  void set_all_ready();
  void set_gone();  // this rank's goodbye is through
  void report_progress(int rank, const Activity& activity);

  // --- Any thread's.
  void set_activity(Phase phase, uint64_t step) { activity_.store(pack(phase, step), std::memory_order_relaxed); }
  void set_percent(int percent) { percent_.store(percent, std::memory_order_relaxed); }
  Activity activity() const;
  std::optional<LostRank> first_lost() const;
  bool readiness_is_decided() const;  // wait_until_all_ready() would not wait

  // --- The callers'.
  Result<Formed> wait_until_formed();
  Status wait_until_all_ready();
  bool wait_until_gone(std::chrono::milliseconds timeout);  // false: it is not
  // Called on the control thread, or at once for what was lost before.
  void set_lost_handler(std::function<void(const LostRank&)> handler);
  void set_progress_handler(std::function<void(int rank, const Activity&)> handler);

 private:
  // Phase and step in one word, so that both are of the same moment.
  static uint64_t pack(Phase phase, uint64_t step) {
    return static_cast<uint64_t>(phase) << 56 | (step & (~0ull >> 8));
  }

  bool is_through_loading() const { return all_ready_ || !lost_.empty() || !first_left_.empty(); }

  const int rank_;
  // A heartbeat takes what it finds; nothing is read by way of these.
  std::atomic<uint64_t> activity_{pack(Phase::kLoading, 0)};
  std::atomic<int> percent_{0};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Result<Formed>> start_;
  std::vector<LostRank> lost_;
  std::set<int> absent_;    // lost or left
  std::string first_left_;  // its name
  bool all_ready_ = false, gone_ = false;
  // Guards the handlers, and that a loss is told once; held while they run.
  std::mutex handler_mutex_;
  std::function<void(const LostRank&)> lost_handler_;
  std::function<void(int rank, const Activity&)> progress_handler_;
};

}  // namespace cachalot::control
