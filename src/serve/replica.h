#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/generation.h"
#include "engine/rank_engine.h"
#include "scheduler/scheduler.h"
#include "serve/metrics.h"

namespace cachalot {

// How many requests may wait for room; those that can start at once do not wait.
struct QueueLimits {
  int max_requests = 0;    // 0: no bound
  int64_t max_tokens = 0;  // of their prompts; 0: no bound
};

// One replica: its scheduler and the leader of its ranks, driven by one thread of its own that sleeps while no replica
// of the group has anything to do. The public calls are thread-safe: they leave word in a mailbox, which the thread
// empties between two rounds.
class Replica : public GenerationService {
 public:
  // Told on the replica's thread, once, when a round failed: the replica takes no more requests.
  using FailureHandler = std::function<void(const Error&)>;

  // Takes the rank over; `metrics` is borrowed.
  Replica(std::unique_ptr<RankEngine> engine, const SchedulerOptions& options, Metrics& metrics,
          FailureHandler on_failure = {}, const QueueLimits& queue = {});
  // Leaves the group, if leave() was not called.
  ~Replica() override;

  RequestId next_id() override { return next_id_.fetch_add(1, std::memory_order_relaxed); }
  Status submit(Request request, Listener listener) override;
  void abort(RequestId id) override;
  // As of the last round, with the requests that came since then.
  ReplicaStats stats() const override;
  // False also while draining, so that a load balancer looks elsewhere.
  bool healthy() const override { return healthy_.load(std::memory_order_relaxed); }

  // Refuses new requests and waits until the running ones are through, at most until the deadline; then ends the rest.
  void drain(std::chrono::steady_clock::time_point deadline);
  // Ends what is left and the thread. The replicas of a group end together, with the last one that leaves: this one
  // takes part with zero rows until then, but no longer than the deadline.
  void leave(std::chrono::steady_clock::time_point deadline);

  // What the leader's rank has done, as of the last round.
  RankReport report() const;

 private:
  struct Submission {
    Request request;
    Listener listener;
  };
  struct Mailbox {
    std::vector<Submission> submissions;
    int64_t num_tokens = 0;  // of the submissions
    std::vector<RequestId> aborts;
    bool end_all = false;  // of what is left
    bool leave = false;
  };

  static void count(const Mailbox& mail, ReplicaStats& stats);
  Status check_queue(int num_tokens) const;
  void loop();
  Status step_together();
  void take_mail();
  Status run_round(const StepPlan& plan, int num_steps);
  void fail(const Error& error);
  void deliver(std::vector<RequestOutput> outputs);
  void publish_stats();

  const QueueLimits queue_;
  const int max_num_seqs_;
  std::unique_ptr<RankEngine> engine_;
  Metrics& metrics_;
  std::atomic<RequestId> next_id_{1};
  std::atomic<bool> healthy_{true};

  mutable std::mutex mutex_;         // guards what follows
  std::condition_variable changed_;  // is_idle_ or has_ended_
  Mailbox mailbox_;
  bool draining_ = false, is_idle_ = true, has_ended_ = false;
  ReplicaStats stats_;
  RankReport report_;

  // The thread's own.
  FailureHandler on_failure_;
  Scheduler scheduler_;
  bool leaving_ = false, has_said_so_ = false;  // to the other replicas
  bool others_wait_ = false;                    // for this replica's word on the next round
  bool has_left_ = false;
  struct Stream {
    Listener listener;
    RequestTimer timer;
  };
  std::unordered_map<RequestId, Stream> streams_;
  std::thread thread_;
};

}  // namespace cachalot
